"""TH8, TH3: what a program that starts the command needs: a lifeline, an order for a process that is ready, and one for a process that is gone.

``docs/testing.md`` is the user of both.

Starts the command: `--lifeline` is the subject.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from faces_tools import BEHAVIOURS

from passenger_trio.admin.client import order
from passenger_trio.errors import AdminError
from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os


def test_a_server_ends_with_its_lifeline_and_before_that_spawns_and_ends_processes_on_order() -> None:
    parent = subprocess.Popen(["sleep", "1000"])
    try:
        with Supervisor.start(
            BEHAVIOURS, "--lifeline", str(parent.pid), "--min-instances", "0", "--max-pool-size", "2"
        ) as server:
            admin = str(server.ready["admin_socket"])
            assert server.pids == []
            [made] = order(admin, "/v1/spawn", {}, for_long=True)["groups"]
            assert made["error"] is None
            assert server.pids == [made["pid"]]
            [again] = order(admin, "/v1/spawn", {"group": made["name"]}, for_long=True)["groups"]
            assert again["pid"] == made["pid"], "one is free"
            assert server.group()["processes"][0]["processed"] == 0, "no application sees it"
            [another] = order(admin, "/v1/spawn", {"more": True}, for_long=True)["groups"]
            assert sorted(server.pids) == sorted({made["pid"], another["pid"]})
            assert [process["sessions"] for process in server.group()["processes"]] == [0, 0]
            order(admin, "/v1/detach", {"pid": made["pid"], "wait": True}, for_long=True)
            assert not is_running(made["pid"]), "the answer comes when it has ended"
            with pytest.raises(AdminError, match="404"):
                order(admin, "/v1/spawn", {"group": "other"})
            assert server.get("/pid").status == 200
            parent.kill()
            parent.wait()
            server.wait()
            server.wait_log(f"the process {parent.pid} of --lifeline has ended: ending at once")
    finally:
        parent.kill()
        parent.wait()


def test_a_lifeline_that_does_not_live_is_refused() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    server = Supervisor.start(BEHAVIOURS, "--lifeline", str(ended.pid), wait=False)
    eventually(lambda: server.process.poll() is not None, 30)
    with server:
        assert server.wait() != 0
    assert "--lifeline" in server.log_tail
    assert "there is no such process" in server.log_tail


def test_an_application_that_does_not_start_is_the_answer(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "app.py"), "w") as file:
        file.write("def application(environ, start_response):\n    return []\n\n\n1 / 0\n")
    with Supervisor.start(tmp_path, "--min-instances", "0") as server:
        [result] = order(str(server.ready["admin_socket"]), "/v1/spawn", {}, for_long=True)["groups"]
        assert result["pid"] is None
        assert result["error"]["code"] == "spawn_failed"
        assert "ZeroDivisionError" in result["error"]["cause"]["summary"]
