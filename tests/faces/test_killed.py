"""KE12, fault 35: ``kill -9`` of the supervisor. Everything that it started goes, also what has escaped with ``setsid``, where there is a cgroup of its own.

That it takes no longer than a second is measured by ``tests/storms/kill_supervisor.py``; here it is counted what is left.

Starts the command: its end by SIGKILL is the subject.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faces_tools import write_app
from needs import needs

from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os

APP = """
import os, subprocess, time
def application(environ, start_response):
    what = environ["PATH_INFO"][1:]
    job = ["sh", "-c", "trap '' HUP INT TERM; while :; do sleep 10; done"]
    pid = subprocess.Popen(job, start_new_session=what == "session").pid
    if what == "hang":
        time.sleep(1000)
    start_response("200 OK", [])
    return [str(pid).encode()]
"""


@contextmanager
def killable(tmp_path: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Supervisor]:
    """A server that may be killed; what it leaves is ended."""
    server = Supervisor.start(write_app(tmp_path / "app", APP), *arguments, prefix=prefix)
    try:
        yield server
    finally:
        server.kill()
        for line in server.marked_processes():
            try:
                os.kill(int(line.split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                continue
        eventually(lambda: not server.marked_processes())
        server._clean()


def own_cgroup(server: Supervisor) -> Path:
    """The directory of the cgroup that it has made."""
    lines = Path(f"/proc/{server.pid}/cgroup").read_text().splitlines()
    inside = next((line[3:] for line in lines if line.startswith("0::/")), "")
    mounted = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mount = next((fields[4] for fields in mounted if " - cgroup2 " in " ".join(fields)), "")
    needs(bool(mount) and "/passenger-trio." in inside, "root, and a cgroup (version 2) in which others can be made")
    return Path(mount + inside)


def watchdog(server: Supervisor) -> int:
    return next(int(line.split()[0]) for line in server.marked_processes() if "/cgroup.kill" in line)


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_KE12_everything_goes_also_daemons(tmp_path: Path, method: str) -> None:
    with killable(tmp_path, "--spawn-method", method) as server:
        cgroup = own_cgroup(server)
        for path in ("/", "/session"):
            assert is_running(int(server.get(path).body))
        server.process.kill()
        server.process.wait()
        eventually(lambda: not server.marked_processes(), what="everything is gone")
        eventually(lambda: not cgroup.exists(), what="the cgroup is removed")


def test_KE12_the_next_start_ends_what_is_left_where_the_watchdog_was_killed_too(tmp_path: Path) -> None:
    with killable(tmp_path / "first") as server:
        cgroup = own_cgroup(server)
        daemon = int(server.get("/session").body)
        os.kill(watchdog(server), signal.SIGKILL)
        server.process.kill()
        server.process.wait()
        eventually(lambda: len(server.marked_processes()) <= 2, what="only the daemon is left, and its sleep")
        # It still runs, unless a server of another test that runs beside this one was the next start, and ends it now.
        eventually(lambda: is_running(daemon) or not cgroup.exists(), what="the daemon runs, or its cgroup is removed")
        with Supervisor.start(write_app(tmp_path / "second")) as second:
            assert own_cgroup(second).parent == cgroup.parent
            eventually(lambda: not server.marked_processes(), what="everything is gone")
            eventually(lambda: not cgroup.exists())
            assert second.get("/").status == 200


def test_KE12_a_server_that_lives_keeps_what_it_has_when_another_starts_and_ends(tmp_path: Path) -> None:
    with killable(tmp_path / "first") as server:
        daemon = int(server.get("/session").body)
        with Supervisor.start(write_app(tmp_path / "second")) as second:
            assert own_cgroup(second) != own_cgroup(server)
        assert is_running(daemon)
        assert server.get("/").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_KE12_an_ordinary_end_leaves_no_cgroup_and_no_watchdog(tmp_path: Path, number: int) -> None:
    with Supervisor.start(write_app(tmp_path / "app", APP)) as server:
        cgroup = own_cgroup(server)
        server.get("/session")
        assert server.stop(number) == 0
        assert not cgroup.exists()


def test_KE12_without_a_cgroup_what_applications_start_themselves_stays(tmp_path: Path) -> None:
    """As docs/signals.md says. The server says nothing of it, and serves."""
    needs(
        os.geteuid() == 0
        and bool(shutil.which("unshare"))
        and subprocess.run(["unshare", "-m", "true"]).returncode == 0,
        "root, and unshare, to make mount namespaces",
    )
    without = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /sys/fs/cgroup; exec "$@"', "sh")
    with killable(tmp_path, "--min-instances", "2", prefix=without) as server:
        daemon = int(server.get("/session").body)
        assert "/passenger-trio." not in Path(f"/proc/{server.pid}/cgroup").read_text()
        server.process.kill()
        server.process.wait()
        eventually(
            lambda: not any("wsgi_loader" in line for line in server.marked_processes()), what="loaders are gone"
        )
        assert is_running(daemon)
