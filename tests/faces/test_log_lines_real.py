"""OB6 with a real server: what happens to its processes and requests can be read from the fields of the log, and its times have one format.

Starts the command: its own log is the subject, from start to end.
"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest
from faces_tools import BEHAVIOURS

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_OB6_the_lines_of_a_server_have_fields_and_one_format_of_times() -> None:
    with Supervisor.start(
        BEHAVIOURS, "--min-instances", "1", "--access-log-format", "json", "--log-level", "debug"
    ) as server:

        def wait_line(kind: str, **fields: object) -> dict[str, Any]:
            return eventually(
                lambda: next(
                    (line for line in lines() if line.get("kind") == kind and fields.items() <= line.items()), {}
                ),
                timeout=60,
                what=f"a line {kind} with {fields}",
            )

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in server.log if line.startswith("{")]

        ours = {"group": "behaviours", "environment": "development"}
        first = server.pids[0]
        assert wait_line("process_ready", pid=first, **ours)["milliseconds"] > 0
        wait_line("spawn_begins", **ours)

        os.kill(first, signal.SIGSEGV)
        died = wait_line("process_died", pid=first, signal="SIGSEGV", **ours)
        assert "status" not in died
        second = int(server.get("/pid").body)

        answer = server.get("/raise?hidden", X_Request_Id="mine")
        assert answer.status == 500
        id = answer.header("X-Request-Id")
        raised = wait_line(
            "application_raised", request_id=id, status=500, code="application_raised", group="behaviours"
        )
        assert raised["pid"] == second

        answer = server.post("/exit?4", b"x")
        assert answer.status == 502
        id = answer.header("X-Request-Id")
        failed = wait_line("response_failed", request_id=id, status=502, code="incomplete_response")
        assert wait_line("process_died", pid=failed["pid"], **ours)["status"] == 4

        third = int(server.get("/pid").body)
        server.send_signal(signal.SIGHUP)
        wait_line("restart_ended", generation=2, **ours)
        wait_line("process_retired", pid=third, reason="the application restarts", **ours)
        ended = wait_line("process_ended", pid=third, status=0, **ours)
        assert ended["reason"] == "the application restarts"
        assert (
            ended["event"]
            == f"process {third} of behaviours (development) ended: exit status 0 (the application restarts)"
        )

        server.wait_access_log("/exit")
        times = [line["time"] for line in [*lines(), *map(json.loads, server.access_log())]]
        assert len(times) > 10
        assert all(STAMP.fullmatch(time) for time in times)
        loggers = {
            "passenger_trio.pool",
            "passenger_trio.spawning",
            "passenger_trio.server",
            "passenger_trio.error_kernel",
        }
        assert [line for line in lines() if line["logger"] in loggers and "kind" not in line] == []
