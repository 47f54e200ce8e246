"""A preloader that gets no process, and logs that get no thread or no descriptor: who serves goes on, nothing is lost, and what was owed is done as soon as it can be
(KE2, KE3). By injection (``failing_calls``).
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS, write_app
from failing_calls import failing_calls
from short_server import TWO, failing

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

PID_IN_RUBY = 'run ->(_env) { [200, { "content-type" => "text/plain" }, [Process.pid.to_s]] }\n'


@pytest.mark.parametrize("language", ["python", "ruby"])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM], ids=["EAGAIN", "ENOMEM"])
def test_KE3_a_preloader_gets_no_process(language: str, error: int, tmp_path: Path) -> None:
    """The fork fails in the preloader itself. It lives on, its other worker serves, and the same preloader forks as soon as it can."""
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
            server.wait_log(f"fork: {os.strerror(error)}" if language == "ruby" else os.strerror(error))
            for _ in range(5):
                answer = server.get("/pid")
                assert (answer.status, answer.text) == (200, str(other))
            assert calls.stop()
            eventually(lambda: len(server.pids) == 2, 45)
            assert (server.preloader_pid, victim in server.pids, other in server.pids) == (preloader, False, True)
            assert "please report it" not in "\n".join(server.log)


def test_KE2_KE3_an_access_log_is_opened_anew_as_soon_as_it_can_be() -> None:
    """After a rotation: without a thread lines wait, without a descriptor they go to the old file; none is lost or repeated, and the new file comes by itself."""
    with failing("--spawn-method", "direct", gauges="60") as (server, calls):
        path = server.home / "access.log"
        asked = []

        def ask(name: str) -> None:
            asked.append(name)
            assert server.get(f"/pid?{name}").status == 200

        ask("before")
        server.wait_access_log("?before")
        for kind, error in (("thread", errno.EAGAIN), ("open", errno.EMFILE)):
            old = path.rename(server.home / f"{kind}.log")
            calls.fail(kind, error=error)
            server.send_signal(signal.SIGUSR1)
            eventually(lambda: calls.failed)
            ask(f"{kind}-1")
            if kind == "open":
                eventually(lambda old=old: "?open-1" in old.read_text())  # type: ignore[misc]
            ask(f"{kind}-2")
            assert not path.exists()
            assert calls.stop()
            ask(f"{kind}-3")
            server.wait_access_log(f"?{kind}-3")
        lines = [line for file in server.home.glob("*.log") for line in file.read_text().splitlines()]
        assert sorted(line.split("?")[1].split()[0] for line in lines) == sorted(asked)
        assert "please report it" not in "\n".join(server.log)
