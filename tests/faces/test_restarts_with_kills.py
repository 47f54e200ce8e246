"""Restarts in which something else goes wrong at the same time: no request is lost, and the restart has a true end.

Starts the command: restarts by command are the subject.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS, clients, gate, run_command, write_app

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

SOURCE = """
import os, time
if os.path.exists("hold"):
    print("loading", os.getpid(), flush=True)
    while os.path.exists("hold"):
        time.sleep(0.01)
os.register_at_fork(after_in_child=lambda: time.sleep(0.2))
VERSION = "v1"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
"""
METHODS = pytest.mark.parametrize("method", ["smart", "direct"])


def deploy(root: Path, version: str) -> None:
    write_app(root, SOURCE.replace("v1", version))


def restart(server: Supervisor) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "passenger_trio", "restart", "--wait", "--instance", str(server.instance_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def the_loading(server: Supervisor, start: int = 0) -> int:
    line = server.wait_log('"loading ', start=start)
    return int(line.partition('"loading ')[2].partition('"')[0])


@METHODS
def test_the_candidate_is_killed_while_it_is_loaded(method: str, tmp_path: Path) -> None:
    """R43, F18: the version before serves on, and the restart is told to have failed."""
    deploy(tmp_path, "v1")
    with Supervisor.start(tmp_path, "--spawn-method", method) as server:
        deploy(tmp_path, "v2")
        (tmp_path / "hold").touch()
        with restart(server) as waiting:
            os.kill(the_loading(server), signal.SIGKILL)
            _, errors = waiting.communicate(timeout=60)
        assert waiting.returncode == 1
        assert "NOT restarted, the version before serves on" in errors
        assert server.get().text == "v1"
        (tmp_path / "hold").unlink()
        with restart(server) as waiting:
            assert waiting.wait(60) == 0
        assert server.get().text == "v2"


def test_the_preloader_of_the_new_generation_dies_in_the_middle(tmp_path: Path) -> None:
    """R43, KE9: another one loads the new version, and the restart comes to its end."""
    deploy(tmp_path, "v1")
    with Supervisor.start(tmp_path, "--spawn-method", "smart", "--min-instances", "3") as server:
        eventually(lambda: len(server.pids) == 3)
        before = server.preloader_pid
        deploy(tmp_path, "v2")
        with restart(server) as waiting:
            new = eventually(lambda: (pid := server.preloader_pid) != before and pid)
            eventually(lambda: any(p["generation"] == 2 for p in server.group()["processes"]))
            os.kill(new, signal.SIGKILL)
            assert waiting.wait(60) == 0
        assert {p["generation"] for p in server.group()["processes"] if p["state"] == "running"} == {2}
        assert server.get().text == "v2"
        assert server.preloader_pid not in (before, new)


@METHODS
def test_hangups_during_a_restart_lead_to_the_code_as_it_was_at_the_last(method: str, tmp_path: Path) -> None:
    """F19: two restarts quickly one behind the other, and SIGHUP while one is under way."""
    deploy(tmp_path, "v1")
    with Supervisor.start(tmp_path, "--spawn-method", method) as server:
        deploy(tmp_path, "v2")
        (tmp_path / "hold").touch()
        with restart(server) as waiting:
            the_loading(server)
            deploy(tmp_path, "v3")
            server.send_signal(signal.SIGHUP)
            eventually(lambda: sum("SIGHUP" in line for line in server.log) == 1)
            server.send_signal(signal.SIGHUP)
            eventually(lambda: sum("SIGHUP" in line for line in server.log) == 2)
            assert server.get().text == "v1"
            (tmp_path / "hold").unlink()
            assert waiting.wait(60) == 0
        eventually(lambda: server.get().text == "v3")
        group = eventually(lambda: (g := server.group())["generation"] == 3 and not g["restarting"] and g)
        assert group["rejected"] is None


def test_a_restart_while_the_circuit_is_open_tries_at_once(tmp_path: Path) -> None:
    """R42, R43: whoever restarts says that it is mended; nobody waits for the back-off."""
    write_app(tmp_path, SOURCE + "raise ValueError('not yet')\n")
    with Supervisor.start(tmp_path, "-e", "production", "--stat-throttle-rate", "0", wait=False) as server:
        server.wait_ready()
        eventually(lambda: (server.group()["backing_off_for"] or 0) > 1.5, 30)
        assert server.get().status == 500
        failed = run_command("restart", "--wait", "--instance", str(server.instance_dir))
        assert failed.returncode == 1
        assert "does NOT start" in failed.stderr
        deploy(tmp_path, "v2")
        done = run_command("restart", "--wait", "--instance", str(server.instance_dir))
        assert (done.returncode, done.stderr) == (0, "")
        assert server.get().text == "v2"


def test_a_restart_with_a_full_queue_serves_those_who_wait(tmp_path: Path) -> None:
    """R43, F6: nobody who waits is refused for it, and what is served is served to its end."""
    options = ("--max-pool-size", "1", "--max-request-queue-size", "2")
    with gate() as at_gate, clients(4) as send, Supervisor.start(BEHAVIOURS, *at_gate.arguments, *options) as server:
        served = send(server, "/gate")
        old = at_gate.wait_arrival()
        waiting = [send(server, "/pid") for _ in range(2)]
        eventually(lambda: server.group()["queue"] == 2)
        assert server.get("/pid").status == 503
        with restart(server) as restarting:
            assert restarting.wait(60) == 0
        answers = [answer.result(30) for answer in waiting]
        assert [answer.status for answer in answers] == [200, 200]
        assert str(old) not in {answer.text for answer in answers}
        assert not served.done()
        at_gate.open()
        assert served.result(30).status == 200
