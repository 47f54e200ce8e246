"""OB9: slow requests are logged while they last, with what their process is doing."""

from __future__ import annotations

from typing import Any

import pytest
from faces_tools import BEHAVES, Gate, clients

from passenger_trio.admin.slow_requests import SlowRequests, sentence
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog


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
@BEHAVES.with_args(max_pool_size=1, slow_request_time="300ms")
def test_OB9_the_log_has_the_stack_of_the_process(live_app: LiveApp, passenger_log: LiveLog, at_gate: Gate) -> None:
    with clients(2) as send:
        asked = [send(live_app, "/gate?secret=1") for _ in range(2)]
        pid = at_gate.wait_arrival()
        line = passenger_log.wait("GET /gate of ")
        passenger_log.wait("at_gate")
        passenger_log.wait("it is waiting for a process for ")
        at_gate.open()
        at_gate.wait_arrival()
        at_gate.open()
        assert [one.result(30).status for one in asked] == [200, 200]
    assert f"[pid {pid}]" in line or "waiting for a process" in line
    slow = [line for line in passenger_log.events if " takes " in line and "/gate" in line]
    assert len(slow) == 2
    assert "secret" not in "".join(slow)
