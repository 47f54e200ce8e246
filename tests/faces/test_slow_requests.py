"""OB9: slow requests are logged while they last, with what their process is doing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, gate

from passenger_trio.admin.slow_requests import SlowRequests, sentence
from passenger_trio.testing import Supervisor, eventually


def request(id: str, age: float, **changes: Any) -> dict[str, Any]:
    return {
        "id": id,
        "age": age,
        "in_stage": 1.25,
        "queue_time": 0.0,
        "stage": "waiting for the application (slow path)",
        "relay": None,
        **changes,
    }


def test_OB9_each_is_told_of_once_and_the_oldest_first() -> None:
    watched = SlowRequests(2.0)
    first, second = request("a", 2.0), request("b", 9.0)
    assert watched.look([request("a", 1.9), request("b", 1.0)]) == []
    assert watched.look([first, second]) == [second, first]
    assert watched.look([first, second]) == []
    websocket = request("w", 99.0, relay={})
    assert watched.look([first, request("c", 3.0), websocket]) == [request("c", 3.0)]
    assert watched.look([]) == []


def test_OB9_stages_have_their_times() -> None:
    assert sentence(request("a", 2.0)) == "it is waiting for the application for 1.2 s"
    waited = request("a", 2.0, queue_time=0.7)
    assert sentence(waited) == "it waited 0.7 s for a process, and is waiting for the application for 1.2 s"


@pytest.mark.os
def test_OB9_the_log_has_the_stack_of_the_process() -> None:
    with (
        gate() as waits,
        Supervisor.start(
            BEHAVIOURS, *waits.arguments, "--max-pool-size", "1", "--slow-request-time", "300ms"
        ) as server,
    ):
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(server.get, "/gate?secret=1") for _ in range(2)]
            pid = waits.wait_arrival()
            line = server.wait_log("GET /gate of ")
            eventually(lambda: any("at_gate" in line for line in server.log), what="the stack names the function")
            server.wait_log("it is waiting for a process for ")
            waits.open()
            waits.wait_arrival()
            waits.open()
            assert [one.result(30).status for one in asked] == [200, 200]
        assert f"[pid {pid}]" in line or "waiting for a process" in line
        slow = [line for line in server.log if " takes " in line and "/gate" in line]
        assert len(slow) == 2
        assert "secret" not in "".join(slow)
