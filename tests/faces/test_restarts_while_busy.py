"""Restarts while processes hang: the next version comes, what hangs has a time to drain and is ended then, and people are told of it (fault 19).

Starts the command: restarts by command are the subject.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faces_tools import clients, run_command, write_app

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

SOURCE = """
import os, time
VERSION = "v1"
def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        print("pid", os.getpid(), "hangs", flush=True)
        time.sleep(3600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
"""


def deploy(root: Path, version: str) -> None:
    write_app(root, SOURCE.replace("v1", version))


def restart(server: Supervisor) -> subprocess.CompletedProcess[str]:
    return run_command("restart", "--wait", "--instance", str(server.instance_dir))


@pytest.mark.parametrize(("size", "method"), [(1, "direct"), (6, "smart")])
def test_a_second_deployment_arrives_while_every_old_process_hangs(size: int, method: str, tmp_path: Path) -> None:
    """Fault 19: it stayed "Restarting..." for ever, with one hung request in a pool of one and six in a pool of six."""
    deploy(tmp_path, "v1")
    options = ("--max-pool-size", str(size), "--min-instances", str(size), "--spawn-method", method)
    options += ("--process-shutdown-timeout", "200ms", "--shutdown-timeout", "200ms")
    with clients(size) as send, Supervisor.start(tmp_path, *options) as server:
        eventually(lambda: len(server.pids) == size)
        hung = [send(server, "/hang") for _ in range(size)]
        eventually(lambda: sum("hangs" in line for line in server.log) == size)
        for version in ("v2", "v3"):
            deploy(tmp_path, version)
            done = restart(server)
            assert done.returncode == 0, done  # what it waits for it says on a slow machine
            assert server.get().text == version
        assert not any(answer.done() for answer in hung), "and nobody was cut off for it"
        leaving = [process for process in server.group()["processes"] if process["leaving"]]
        assert len(leaving) == size
        for process in leaving:
            assert 200 < process["ends_in"] <= 300
        status = run_command("status", str(server.instance_dir)).stdout
        assert "Stopping: 1 request in hand, ended in 4m" in status
        assert server.stop() == 0


def test_what_hangs_is_ended_after_its_time_and_whoever_waits_is_told_which_process_and_when(tmp_path: Path) -> None:
    """Fault 19: the third deployment has to wait; log, ``status`` and ``restart --wait`` name the process and the time."""
    deploy(tmp_path, "v1")
    options = ("--max-pool-size", "1", "--max-drain-time", "10s", "--process-shutdown-timeout", "200ms")
    with clients(3) as send, Supervisor.start(tmp_path, *options) as server:
        hung, pids = [], []
        for version in ("v2", "v3", "v4"):
            pids += server.pids
            hung.append(send(server, "/hang"))
            server.wait_log(f"pid {pids[-1]} hangs")
            deploy(tmp_path, version)
            if version != "v4":
                assert restart(server).returncode == 0
        command = [sys.executable, "-m", "passenger_trio", "restart", "--wait", "--instance", str(server.instance_dir)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            eventually(lambda: server.group()["waits_for_room"])
            status = run_command("status", str(server.instance_dir)).stdout
            said, errors = waiting.communicate(timeout=60)
        assert "Restarting: waits for processes that are to go" in status
        assert "Stopping: 1 request in hand, ended in" in status
        assert f"waits for process {pids[0]} of" in errors, errors
        assert "which has 1 request in hand, and is ended in" in errors
        assert (waiting.returncode, "is restarted" in said) == (0, True)
        assert server.get().text == "v4"
        server.wait_log(f"ending process {pids[0]} of {tmp_path.name} (development) with 1 request in progress")
        assert [answer.result().status for answer in hung] == [504] * 3
        eventually(lambda: set(pids).isdisjoint(process["pid"] for process in server.group()["processes"]))
