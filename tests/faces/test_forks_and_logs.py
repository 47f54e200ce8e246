"""A preloader that gets no process, and logs that get no thread or no descriptor: who serves goes on, nothing is lost, and what was owed is done as soon as it can be
(KE2, KE3). By injection (``failing_calls``).

Starts the command: faults are injected into its own calls.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faces_tools import AS_OURSELVES, BEHAVIOURS, write_app
from failing_calls import failing_calls
from short_server import TWO, failing

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

PID_IN_RUBY = 'run ->(_env) { [200, { "content-type" => "text/plain" }, [Process.pid.to_s]] }\n'


@pytest.mark.parametrize("language", ["python", "ruby"])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM], ids=["EAGAIN", "ENOMEM"])
def test_KE3_a_preloader_gets_no_process(language: str, error: int, tmp_path: Path) -> None:
    """The fork fails in the preloader itself. It lives on, its other worker serves, and the same preloader forks as soon as it can.

    Where the system says EAGAIN, Ruby itself tries again each second and tells nobody; else the failure is told, and the pool tries again.
    """
    root = BEHAVIOURS if language == "python" else write_app(tmp_path, PID_IN_RUBY, "config.ru")
    with failing_calls() as calls:
        with Supervisor.start(root, *TWO, "--spawn-method", "smart", env=calls.environment) as server:
            eventually(lambda: len(server.pids) == 2)
            preloader = server.preloader_pid
            assert preloader is not None
            calls.aim_at(preloader)
            calls.fail("fork", error=error)
            victim, other = server.pids
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: calls.failed)
            if (language, error) == ("ruby", errno.EAGAIN):
                eventually(lambda: calls.failed > 1)
            else:
                server.wait_log(os.strerror(error))
            for _ in range(5):
                answer = server.get("/pid")
                assert (answer.status, answer.text) == (200, str(other))
            assert calls.stop()
            eventually(lambda: len(server.pids) == 2, 45)
            assert (server.preloader_pid, victim in server.pids, other in server.pids) == (preloader, False, True)
            assert "please report it" not in "\n".join(server.log)


def test_KE3_an_access_log_without_a_thread_is_opened_anew_later() -> None:
    """There is none from the first moment on, for Trio keeps those that it has had: lines wait, and so does the new file; none is lost or repeated."""
    with failing_calls() as calls:
        calls.fail("thread", error=errno.EAGAIN)
        calls.aim_at_first()
        with Supervisor.start(BEHAVIOURS, *TWO, "--spawn-method", "direct", env=calls.environment) as server:
            path = server.home / "access.log"
            assert server.get("/pid?before").status == 200
            old = path.rename(server.home / "old.log")
            server.send_signal(signal.SIGUSR1)
            server.wait_log("opening the log files anew")
            assert server.get("/pid?behind").status == 200
            eventually(lambda: calls.failed > 1)
            assert not path.exists()
            assert not old.read_text()
            calls.stop()
            server.wait_access_log("?behind")
            lines = (old.read_text() + path.read_text()).splitlines()
            assert [line.split("?")[1].split()[0] for line in lines] == ["before", "behind"]
            assert "please report it" not in "\n".join(server.log)


def test_KE2_KE3_a_start_that_gets_no_descriptor_says_so_in_a_line(tmp_path: Path) -> None:
    """Really, for limits at which it does not come to serve. Nothing of it is a fault of ours, and no user is said not to exist."""
    app, log = write_app(tmp_path), tmp_path / "access.log"
    words = (sys.executable, "-m", "passenger_trio", "start", str(app), "--port", "0", "--access-log", str(log))

    def start(limit: int) -> tuple[int, str]:
        done = subprocess.run(
            ("prlimit", f"--nofile={limit}", *words),
            env={**os.environ, **AS_OURSELVES},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "fault of passenger" not in done.stderr, done.stderr
        return done.returncode, done.stderr.splitlines()[-1]

    said = [start(limit) for limit in range(5, 13)]
    for code, line in said:
        assert line.startswith("passenger-trio: "), said
        assert "Too many open files" in line, said
        assert code == (2 if ": --" in line else 70), said
    assert any("LimitNOFILE" in line for _, line in said), said


def test_KE2_an_access_log_without_a_descriptor_is_opened_anew_later() -> None:
    """After a rotation lines go to the old file; the new one comes by itself; none is lost or repeated."""
    with failing("--spawn-method", "direct", gauges="60") as (server, calls):
        path = server.home / "access.log"
        server.get("/pid?before")
        server.wait_access_log("?before")
        old = path.rename(server.home / "old.log")
        calls.fail("open", error=errno.EMFILE)
        server.send_signal(signal.SIGUSR1)
        eventually(lambda: calls.failed)
        for name in ("without-1", "without-2"):
            assert server.get(f"/pid?{name}").status == 200
        eventually(lambda: "?without-2" in old.read_text())
        assert not path.exists()
        assert calls.stop()
        assert server.get("/pid?behind").status == 200
        server.wait_access_log("?behind")
        lines = (old.read_text() + path.read_text()).splitlines()
        assert [line.split("?")[1].split()[0] for line in lines] == ["before", "without-1", "without-2", "behind"]
        assert "please report it" not in "\n".join(server.log)
