"""KE11: what a container, a service manager or a mistake may take away. In each of these the server starts and serves, or says in one line what it needs.

Each is a real run in a mount namespace of its own. Only the server's is changed: its process id is what it would be without.

Starts the command: what surrounds it at its start is the subject.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from faces_tools import AS_OURSELVES, run_command, write_app
from needs import needs

from passenger_trio.testing import Supervisor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

from storm_tools import as_another_user, interpreter_of_another_user

pytestmark = pytest.mark.os

WITHOUT_PROC = "mount -t tmpfs none /proc"
WITHOUT_SHM = """
d=$(mktemp -d "$KEPT/dev.XXXXXX") && mount -t tmpfs none "$d"
for name in null zero full random urandom tty; do : >"$d/$name"; mount --bind "/dev/$name" "$d/$name"; done
mount --rbind "$d" /dev
test ! -e /dev/shm
"""
READ_ONLY = 'mount --bind "$KEPT" "$KEPT"; mount -o remount,bind,ro /'
"""As ``ProtectSystem=strict`` with ``ReadWritePaths=$KEPT``."""
PRIVATE_TMP = 'mkdir -p "$KEPT/tmp"; mount --bind "$KEPT/tmp" /tmp; mount --bind "$KEPT/tmp" /var/tmp'
NO_TMP = "mount -t tmpfs -o ro none /tmp; mount -t tmpfs -o ro none /var/tmp"


@pytest.fixture
def kept() -> Iterator[Path]:
    """A directory that stays, with the application in it; it is not below /tmp, which changes."""
    needs(
        os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0,
        "root, and unshare, to make mount namespaces",
    )
    directory = Path(tempfile.mkdtemp(prefix="pt-kept-", dir="/var/lib"))
    directory.chmod(0o755)
    yield write_app(directory)
    shutil.rmtree(directory)


def within(kept: Path, *changes: str, last: str = "") -> tuple[str, ...]:
    """What starts a server where this has been done."""
    script = "\n".join(["set -e", f"KEPT={kept}", *changes, last, 'exec "$@"'])
    return ("unshare", "-m", "sh", "-c", script, "sh")


def serves(kept: Path, prefix: tuple[str, ...], env: Mapping[str, str | None], but: str = "traceback") -> Supervisor:
    """Starts, serves (also what goes through files), and ends without a trace."""
    home = kept / "i"
    with Supervisor.start(
        kept, "--instance-dir", str(home), "--access-log", str(kept / "access.log"), prefix=prefix, env=env
    ) as server:
        assert server.get("/").status == 200
        for _ in range(8):
            assert server.post("/", b"x" * 300_000).status == 200
    assert not home.exists()
    assert not [line for line in server.log if "Traceback" in line], server.log_tail
    assert not [line for line in server.log if '"level":"error"' in line and but not in line], server.log_tail
    return server


def says(
    prefix: tuple[str, ...], cwd: Path, *arguments: str, env: Mapping[str, str | None] | None = None
) -> tuple[int, str]:
    """The exit code, and the one line, of a server that does not start."""
    words = [*prefix, sys.executable, "-m", "passenger_trio", "start", *arguments]
    if "--socket" not in arguments:
        words += ["--port", "0"]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={name: value for name, value in {**os.environ, **AS_OURSELVES, **(env or {})}.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


def test_KE11_no_proc(kept: Path) -> None:
    """Who is whose parent cannot be told without it, and so whom to trust."""
    code, line = says(within(kept, WITHOUT_PROC), kept, str(kept))
    assert code == 70
    assert line == "passenger-trio: passenger_trio needs /proc: it is not mounted here (mount -t proc proc /proc)"


def test_KE11_the_proc_of_another_pid_namespace(kept: Path) -> None:
    """It names others by the numbers that we know."""
    code, line = says(("unshare", "-p", "--fork"), kept, str(kept))
    assert code == 70
    assert "that of another pid namespace" in line


def test_KE11_the_first_process_of_a_pid_namespace(kept: Path) -> None:
    """As in a container."""
    with Supervisor.start(kept, prefix=("unshare", "-p", "-m", "--fork", "--mount-proc")) as server:
        assert server.get("/").status == 200
        assert server.ready["pid"] == 1
        first = next(
            line for line in server.marked_processes() if " -m passenger_trio " in line and "unshare" not in line
        )
        os.kill(int(first.split()[0]), signal.SIGTERM)
        assert server.wait() == 0


def test_KE11_no_dev_shm(kept: Path) -> None:
    serves(kept, within(kept, WITHOUT_SHM), {})


def test_KE11_a_read_only_root_with_one_place_to_write(kept: Path) -> None:
    """What is to be buffered goes where $TMPDIR says."""
    serves(kept, within(kept, READ_ONLY), {"HOME": "/nonexistent", "TMPDIR": str(kept)})


def test_KE11_a_read_only_root_and_no_place_for_temporary_files(kept: Path) -> None:
    """What cannot be buffered on disk is streamed; one line says why."""
    server = serves(
        kept, within(kept, READ_ONLY, NO_TMP), {"HOME": "/nonexistent", "TMPDIR": None}, but="buffering in /tmp failed"
    )
    assert "Read-only file system" in server.wait_log("buffering in /tmp failed")


def test_KE11_nothing_can_be_written_at_all(kept: Path) -> None:
    prefix = within(kept, NO_TMP, "mount -o remount,bind,ro /")
    code, line = says(prefix, kept, str(kept), env={"TMPDIR": None, "XDG_RUNTIME_DIR": None})
    assert code == 2
    assert line.startswith("passenger-trio: --instance-dir: ")
    assert "Read-only file system" in line
    assert line.endswith("give one")


def test_KE11_a_runtime_directory_that_has_become_read_only_is_passed_over(kept: Path) -> None:
    """``ProtectSystem=strict`` with ``PrivateTmp``: /tmp is the place then."""
    runtime = kept / "run"
    (runtime / "passenger-trio").mkdir(mode=0o700, parents=True)
    prefix = within(
        kept, PRIVATE_TMP, "chmod 1777 /tmp", f"mount --bind {runtime} {runtime}; mount -o remount,bind,ro {runtime}"
    )
    with Supervisor.start(
        kept,
        "--instance-dir",
        "",
        "--access-log",
        str(kept / "access.log"),
        prefix=prefix,
        env={"XDG_RUNTIME_DIR": str(runtime)},
    ) as server:
        assert server.get("/").status == 200
        assert str(server.ready["admin_socket"]).startswith("/tmp/passenger-trio-")
    assert not list(runtime.glob("passenger-trio/*"))


def test_KE11_no_home(kept: Path) -> None:
    serves(kept, (), {"HOME": "/nonexistent"})


def test_KE11_a_user_without_a_name_and_without_a_home(kept: Path) -> None:
    python = interpreter_of_another_user()
    needs(bool(python), "root, which becomes another user by setpriv, and a Python that he may start")
    env = {"HOME": None, "USER": None, "LOGNAME": None}
    with Supervisor.start(kept, "--python", python, prefix=as_another_user(), env=env) as server:
        assert server.get("/").status == 200
        assert os.stat(f"/proc/{server.pid}").st_uid >= 54_000


def test_KE11_two_servers_in_one_working_directory(kept: Path) -> None:
    with Supervisor.start(None, cwd=kept) as one, Supervisor.start(None, cwd=kept) as other:
        assert one.get("/").status == other.get("/").status == 200


def test_KE11_the_working_directory_was_removed(kept: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with Supervisor.start(kept, prefix=("sh", "-c", f'cd {gone}; rmdir {gone}; exec "$@"', "sh")) as server:
        assert server.get("/").status == 200


@pytest.mark.parametrize("words", [("{app}", "--socket", "x"), ("{app}", "--instance-dir", "x"), (".",)])
def test_KE11_what_is_relative_to_a_working_directory_that_was_removed(
    kept: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    prefix = ("sh", "-c", f'cd {gone}; rmdir {gone}; exec "$@"', "sh")
    code, line = says(prefix, kept, *(word.replace("{app}", str(kept)) for word in words))
    assert code in (2, 4)
    assert "is relative, and the working directory was removed" in line


def test_KE11_status_without_a_home(kept: Path) -> None:
    done = run_command("list", env={"HOME": "/nonexistent", "USER": None})
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
