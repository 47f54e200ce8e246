"""OP8: applications run as users of their own, and a hostile one reaches nothing of another user's. With real users.

Starts the command: the users that it switches to are the subject.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from faces_tools import HELLO, run_command
from needs import needs

from passenger_trio.spawning.user_access import what_is_closed
from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

PROBE = r"""
import ctypes, json, os, socket
from urllib.parse import parse_qs

libc = ctypes.CDLL(None, use_errno=True)


def application(environ, start_response):
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"/facts": facts, "/reach": reach}[environ["PATH_INFO"]](query)).encode()]


def facts(query):
    mask = os.umask(0)
    os.umask(mask)
    names = ("HOME", "USER", "LOGNAME", "SHELL", "SUDO_USER", "XDG_RUNTIME_DIR", "SECRET_OF_BLOG")
    return {
        "pid": os.getpid(),
        "ids": [os.getresuid(), os.getresgid()],
        "groups": sorted(os.getgroups()),
        "umask": mask,
        "env": {name: os.environ.get(name) for name in names},
        "spawn": [name for name in os.environ if name.startswith("PASSENGER_TRIO_")],
        "stdout": os.access("/dev/stdout", os.W_OK) and open("/dev/stdout", "w").close() is None,
    }


def reach(query):
    done = {}

    def attempt(name, function, *arguments):
        try:
            found = function(*arguments)
            done[name] = found is None or bool(found)
        except OSError as error:
            done[name] = False

    pid = int(query["pid"])
    attempt("environ", lambda: open("/proc/%d/environ" % pid, "rb").read())
    attempt("mem", lambda: open("/proc/%d/mem" % pid, "rb").close())
    attempt("descriptors", lambda: os.listdir("/proc/%d/fd" % pid))
    attempt("signal", os.kill, pid, 0)
    attempt("trace", trace, pid)
    for name in ("admin", "worker", "spawn"):
        if name in query:
            attempt(name, {"spawn": hello}.get(name, connect), query[name])
    for name in ("list", "list_apps"):
        if name in query:
            attempt(name, os.listdir, query[name])
    if "file" in query:
        attempt("file", lambda: open(query["file"]).read())
    attempt("root", os.setuid, 0)
    attempt("terminal", lambda: open("/dev/tty").close())
    return done


def trace(pid):
    if libc.ptrace(16, pid, 0, 0) != 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")
    libc.waitpid(pid, 0, 0)
    libc.ptrace(17, pid, 0, 0)


def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def hello(path):
    # Whether the supervisor takes us for a process of its own.
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        line = {"type": "hello", "token": "0" * 32, "contract": 1, "role": "worker", "language": "x", "version": "1", "pid": 1}
        sock.sendall(json.dumps(line).encode() + b"\n")
        sock.settimeout(20)
        return sock.recv(1)
"""
DENIED = dict.fromkeys(
    ("environ", "mem", "descriptors", "signal", "trace", "admin", "worker", "spawn", "list", "list_apps", "file", "root", "terminal"),
    False,
)  # fmt: skip


@attrs.frozen
class User:
    name: str
    uid: int
    gid: int
    home: str


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that every user can enter."""
    needs(os.geteuid() == 0 and shutil.which("useradd") is not None, "root and useradd, to make users")
    path = Path(tempfile.mkdtemp(prefix="pt-users-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def users(home: Path) -> Iterator[tuple[User, User, int]]:
    """Two users, and the number of a group that the first one is in besides its own."""
    mark = secrets.token_hex(3)
    names, group = (f"pts{mark}", f"ptb{mark}"), f"ptg{mark}"
    run("groupadd", group)
    try:
        for name, more in zip(names, (("-G", group), ()), strict=True):
            run("useradd", "-U", *more, "-d", str(home / name), "-s", "/bin/bash", name)
        shop, blog = (User(name, number("-u", name), number("-g", name), str(home / name)) for name in names)
        import grp

        yield shop, blog, grp.getgrnam(group).gr_gid
    finally:
        for name in names:
            subprocess.run(["userdel", name], check=False, capture_output=True)
        subprocess.run(["groupdel", group], check=False, capture_output=True)


def interpreter() -> str:
    """One that every user can run: that of the tests may lie in root's home."""
    for path in (
        sys.executable,
        *(shutil.which(name, path="/usr/bin:/usr/local/bin") for name in ("python3", "python3.11")),
    ):
        if path:
            try:
                subprocess.run(
                    [path, "-c", ""], check=True, capture_output=True, user=65534, group=65534, extra_groups=[]
                )
            except (OSError, subprocess.SubprocessError):
                continue
            return path
    needs(False, "a Python that every user can run")
    raise AssertionError


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def number(flag: str, name: str) -> int:
    return int(run("id", flag, name))


def app_of(folder: Path, owner: int, text: str = PROBE) -> Path:
    folder.mkdir()
    (folder / "wsgi.py").write_text(text)
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, owner)
    return folder


@attrs.frozen
class Served:
    server: Supervisor
    shop: User
    blog: User
    group: int
    home: Path

    def facts(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.server.get(f"/{name}/facts").body))

    def reach(self, pid: int, **what: str) -> dict[str, bool]:
        query = "&".join(f"{name}={value}" for name, value in what.items())
        return dict(json.loads(self.server.get(f"/shop/reach?pid={pid}&{query}").body))

    @property
    def apps(self) -> str:
        return os.readlink(self.server.instance_dir / "apps")


@pytest.fixture(scope="module")
def served(home: Path, users: tuple[User, User, int]) -> Iterator[Served]:
    """Three applications: two of their owners' users, one of root's files. The first has forked processes."""
    shop, blog, group = users
    app_of(home / "shop", shop.uid)
    app_of(home / "blog", blog.uid)
    app_of(home / "rooted", 0)
    (home / "rooted" / "secret").unlink()
    python = interpreter()
    config = home / "passenger-trio.toml"
    config.write_text(f"""
[server]
log_level = "info"
[[app]]
root = "shop"
python = "{python}"
base_uri = "/shop"
spawn_method = "smart"
umask = "0027"
[[app]]
root = "blog"
python = "{python}"
base_uri = "/blog"
spawn_method = "direct"
env = {{ SECRET_OF_BLOG = "x" }}
[[app]]
root = "rooted"
python = "{python}"
base_uri = "/rooted"
[[app]]
root = "shop"
python = "{python}"
name = "asked"
base_uri = "/asked"
user = "{blog.name}"
group = "{shop.name}"
min_instances = 0
""")
    login = {"SUDO_USER": "me", "XDG_RUNTIME_DIR": "/run/user/0", "PASSENGER_TRIO_USER": None}
    with Supervisor.start(None, "--config", str(config), "--max-pool-size", "8", env=login) as server:
        made = Served(server, shop, blog, group, home)
        apps = made.apps
        yield made
    assert not os.path.exists(apps), "the directory of the applications' sockets is removed"


def test_each_runs_as_the_owner_of_its_startup_file(served: Served) -> None:
    """OP8: forked and started processes; supplementary groups; HOME, USER, LOGNAME, SHELL; nothing of root's login; umask."""
    shop, blog = served.facts("shop"), served.facts("blog")
    assert shop["ids"] == [[served.shop.uid] * 3, [served.shop.gid] * 3]
    assert shop["groups"] == sorted([served.shop.gid, served.group])
    assert blog["ids"] == [[served.blog.uid] * 3, [served.blog.gid] * 3]
    assert blog["groups"] == [served.blog.gid]
    own = {"HOME": served.shop.home, "USER": served.shop.name, "LOGNAME": served.shop.name, "SHELL": "/bin/bash"}
    gone = dict.fromkeys(("SUDO_USER", "XDG_RUNTIME_DIR", "SECRET_OF_BLOG"))
    assert shop["env"] == {**own, **gone}
    assert blog["env"]["SECRET_OF_BLOG"] == "x"
    assert shop["spawn"] == blog["spawn"] == []
    assert shop["umask"] == 0o027
    assert shop["stdout"]
    assert blog["stdout"]
    preloader = next(one for one in served.server.status()["groups"] if one["name"] == "shop")["preloader"]["pid"]
    assert os.stat(f"/proc/{preloader}").st_uid == served.shop.uid


def test_a_user_and_a_group_that_are_asked_for(served: Served) -> None:
    """OP8: the option wins over the owner."""
    asked = served.facts("asked")
    assert asked["ids"] == [[served.blog.uid] * 3, [served.shop.gid] * 3]


def test_roots_files_run_as_nobody_with_a_warning(served: Served) -> None:
    """OP8: never root unless asked by name; the warning says what to do."""
    assert served.facts("rooted")["ids"][0] == [number("-u", "nobody")] * 3
    [warning] = [line for line in served.server.log if "rooted runs as nobody" in line]
    assert "belongs to root" in warning
    assert "--app-user NAME" in warning


def test_a_hostile_application_reaches_nothing_of_another_user(served: Served) -> None:
    """OP8: not its processes, sockets, files, environment, spawn token; not the supervisor, its spill files, the admin API."""
    blog = served.facts("blog")["pid"]
    folder = next(
        path for path in Path(served.apps).iterdir() if path.is_dir() and path.stat().st_uid == served.blog.uid
    )
    [worker] = list(folder.iterdir())
    instance = served.server.instance_dir
    what = {
        "admin": str(instance / "admin.sock"),
        "worker": str(worker),
        "spawn": f"{served.apps}/spawn.sock",
        "list": str(folder),
        "list_apps": served.apps,
        "file": str(served.home / "blog" / "secret"),
    }
    assert served.reach(blog, **what) == DENIED
    supervisor = served.reach(served.server.pid, **{**what, "list": str(instance)})
    assert supervisor == DENIED
    assert served.server.get("/blog/facts").status == 200


def test_for_the_same_user_it_is_no_boundary(served: Served) -> None:
    """F61, OP8: what the attempts above can do at all. Documented, and the reason for users."""
    found = served.reach(served.facts("shop")["pid"], file=str(served.home / "shop" / "secret"))
    assert found["environ"]
    assert found["signal"]
    assert found["file"]
    assert not found["root"]
    assert not found["terminal"]


def test_the_whole_server_becomes_a_user(home: Path, users: tuple[User, User, int]) -> None:
    """OP8, R46: --user drops everything, for ever, after binding: a port that only root can have is served.

    OP4: a file of --apps-dir that asks for what this user may not grant is refused alone.
    """
    shop, _, group = users
    app = app_of(home / "whole", 0)
    place = home / "instance"
    place.mkdir()
    os.chown(place, shop.uid, shop.gid)
    place.chmod(0o700)
    sockets = home / "sockets"
    sockets.mkdir()
    os.chown(sockets, shop.uid, shop.gid)
    socket = sockets / "by-root.sock"
    files = home / "files"
    files.mkdir(mode=0o755)
    arguments = (
        "wsgi:application",
        "--apps-dir",
        str(files),
        "--user",
        shop.name,
        "--python",
        interpreter(),
        "-S",
        str(socket),
        "--instance-dir",
        str(place),
        "--access-log",
        "off",
    )
    with Supervisor.start(app, *arguments) as server:
        status = Path(f"/proc/{server.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert fields["Uid"].split() == [str(shop.uid)] * 4
        assert fields["Gid"].split() == [str(shop.gid)] * 4
        assert set(map(int, fields["Groups"].split())) == {shop.gid, group}
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert socket.stat().st_uid == 0, "bound before"
        facts = json.loads(server.get("/facts").body)
        assert facts["ids"] == [[shop.uid] * 3, [shop.gid] * 3]
        assert facts["env"]["HOME"] == shop.home

        limits = Path(f"/proc/{server.pid}/limits").read_text()
        hard = int(next(line.split()[-2] for line in limits.splitlines() if line.startswith("Max open files")))
        asks = {
            "greedy": f"open_files = {hard + 1}",
            "hasty": "nice = -20",
            "other": 'user = "root"',
            "modest": "open_files = 60",
        }
        for name, line in asks.items():
            (files / f"{name}.toml").write_text(f'root = "../whole"\nbase_uri = "/{name}"\n{line}\n')
        eventually(lambda: server.get("/modest/facts").status == 200)
        broken = {Path(one["file"]).name: one["error"] for one in server.status()["broken_files"]}
        assert broken.keys() == {"greedy.toml", "hasty.toml", "other.toml"}
        assert f"hard limit is {hard}, and only root can raise it" in broken["greedy.toml"]
        assert "only root can lower it" in broken["hasty.toml"]
        assert "only root can run it as another user" in broken["other.toml"]
        assert json.loads(server.get("/facts").body)["pid"] == facts["pid"]


def test_users_that_cannot_be_had(home: Path, users: tuple[User, User, int]) -> None:
    """OP8: one clear line each, before anything starts."""
    shop, _, _ = users
    app = app_of(home / "plain", shop.uid, HELLO)
    for words, wanted in (
        (("--user", "no-such-user"), "--user"),
        (("--app-user", "no-such-user"), "--app-user"),
        (("--app-group", "no-such-group"), "--app-group"),
    ):
        done = run_command("start", str(app), *words)
        assert done.returncode == 2
        assert wanted in done.stderr
        assert "there is no such" in done.stderr
    done = run_command("start", str(app), "--user", shop.name, "--app-user", "root")
    assert done.returncode == 2
    assert "only root can run it as another user" in done.stderr


def test_what_the_user_cannot_reach_is_told_at_the_start(home: Path, users: tuple[User, User, int]) -> None:
    """OP8: one line with the user, the reason and the way out, and exit code 4; `config check` says the same."""
    shop, _, _ = users
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "python3"
    program.symlink_to(interpreter())
    own = {"PASSENGER_TRIO_USER": ""}
    rooted = app_of(home / "of-root", 0, HELLO)
    (rooted / "passenger-trio.toml").write_text(f'[[app]]\npython = "{program}"\n')
    for words in (("start", str(rooted)), ("config", "check", str(rooted))):
        done = run_command(*words, env=own)
        assert done.returncode == 4
        assert "would run as nobody" in done.stderr
        assert f"cannot run {program} ({closed} is closed to that user)" in done.stderr
        assert "--app-user NAME (user in an [[app]] table), or --user root" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    inside = app_of(closed / "app", shop.uid, HELLO)
    done = run_command("start", str(inside), "--python", interpreter(), "--user", shop.name)
    assert done.returncode == 4
    assert f"would run as {shop.name} (uid {shop.uid}), as --user says" in done.stderr
    assert f"cannot read {inside}/wsgi.py ({closed} is closed to that user)" in done.stderr


def test_what_is_closed_to_a_real_user(home: Path, users: tuple[User, User, int]) -> None:
    """OP8: by owner, group and others, on the way and at the end."""
    shop, blog, group = users
    closed = home / "by-group"
    closed.mkdir(mode=0o750)
    os.chown(closed, 0, group)
    (closed / "file").write_text("x")
    (closed / "file").chmod(0o640)
    os.chown(closed / "file", 0, group)
    path = str(closed / "file")
    assert what_is_closed(path, shop.uid, shop.gid, (shop.gid, group), runs=False) == ""
    assert what_is_closed(path, blog.uid, blog.gid, (blog.gid,), runs=False) == str(closed)
    closed.chmod(0o755)
    assert what_is_closed(path, blog.uid, blog.gid, (blog.gid,), runs=False) == path
    (closed / "file").chmod(0o644)
    assert what_is_closed(path, blog.uid, blog.gid, (blog.gid,), runs=False) == ""
    assert what_is_closed(path, blog.uid, blog.gid, (blog.gid,), runs=True) == path
    assert what_is_closed(path, 0, 0, (0,), runs=False) == ""


@pytest.mark.parametrize("is_known", [True, False])
def test_no_directory_is_left_by_a_killed_server(home: Path, users: tuple[User, User, int], is_known: bool) -> None:
    """OP8: the next instance removes what a killed one has left, also what an application put into its directory, and
    also if the instance directory is gone. What a running instance has stays.
    """
    shop, _, _ = users
    place = home / f"of-the-killed-{is_known}"
    app = app_of(home / f"killed-{is_known}", shop.uid, HELLO)
    arguments = ("--python", interpreter(), "--instance-dir")
    own = {"PASSENGER_TRIO_USER": None}
    with Supervisor.start(app, *arguments, str(place), env=own) as server:
        left = Path(os.readlink(place / "apps"))
        (left / "a0" / "made by it").mkdir()
        os.symlink("/etc", left / "a0" / "link")
        server.kill()
        eventually(lambda: not server.marked_processes())
        if not is_known:
            shutil.rmtree(place)
        with Supervisor.start(app, *arguments, str(place if is_known else home / "another"), env=own) as second:
            assert not left.exists()
            assert os.path.exists("/etc/passwd")
            if is_known:
                with Supervisor.start(app, *arguments, str(home / "third"), env=own):
                    assert second.get("/").body == b"hello"
