"""Processes of a real server are replaced for their age, their requests and their size; what lasts too long is ended."""

from __future__ import annotations

import pytest
from faces_tools import BEHAVES, Gate, clients

from passenger_trio.testing import eventually
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = pytest.mark.os


def pid(live_app: LiveApp) -> int:
    response = live_app.get("/pid")
    assert response.status == 200
    return int(response.body)


@BEHAVES.with_args(max_requests=5)
def test_a_process_is_replaced_after_so_many_requests_and_no_request_notices(
    live_app: LiveApp, passenger_log: LiveLog
) -> None:
    first = pid(live_app)
    eventually(lambda: pid(live_app) != first)
    eventually(lambda: first not in live_app.pids)
    passenger_log.wait("it has served max_requests requests")


@BEHAVES.with_args(max_process_lifetime="300ms")
def test_a_process_is_replaced_after_its_lifetime(live_app: LiveApp, passenger_log: LiveLog) -> None:
    first = pid(live_app)
    eventually(lambda: pid(live_app) != first)
    passenger_log.wait("it is older than max_process_lifetime")


@pytest.mark.passenger_allow_log("its process was killed")
@pytest.mark.parametrize(
    "threads",
    [
        pytest.param(threads, marks=BEHAVES.with_args(max_request_time="500ms", thread_count=threads))
        for threads in (1, 2)
    ],
)
def test_a_request_that_lasts_too_long_is_answered_504_and_its_process_is_killed(
    live_app: LiveApp, passenger_log: LiveLog, at_gate: Gate, threads: int
) -> None:
    """F3."""
    with clients(1) as send:
        answer = send(live_app, "/gate?secret")
        stuck = at_gate.wait_arrival()
        assert answer.result().status == 504
    line = passenger_log.wait("its process was killed")
    assert "GET /gate" in line
    assert "secret" not in line
    assert "request " in line
    assert at_gate.nobody_comes(), "it was sent to a second process"
    eventually(lambda: stuck not in live_app.pids)
    assert pid(live_app) != stuck
    assert live_app.server.status()["requests"]["rejected"] == {"request_time_exceeded": 1}


@pytest.mark.passenger_allow_log("its process was killed")
@BEHAVES.with_args(max_request_time="500ms")
def test_a_response_that_has_begun_is_cut_short_visibly(live_app: LiveApp, at_gate: Gate) -> None:
    with clients(1) as send:
        answer = send(live_app, "/stream")
        at_gate.wait_arrival()
        assert not answer.result().complete


@BEHAVES.with_args(max_pool_size=1, max_request_queue_time="300ms")
def test_who_waits_too_long_for_a_process_is_answered_504(live_app: LiveApp, at_gate: Gate) -> None:
    with clients(1) as send:
        first = send(live_app, "/gate")
        at_gate.wait_arrival()
        assert live_app.get("/pid").status == 504
        at_gate.open()
        assert first.result().status == 200
    assert live_app.get("/pid").status == 200


@BEHAVES.with_args(memory_limit="80M", memory_check_interval="100ms")
def test_a_process_that_grew_is_replaced(live_app: LiveApp, passenger_log: LiveLog) -> None:
    """F34."""
    first = pid(live_app)
    live_app.get("/grow?120")
    passenger_log.wait("its memory exceeds the limit")
    eventually(lambda: pid(live_app) != first)


@pytest.mark.passenger_allow_log("before it answered")
@BEHAVES.with_args(hard_memory_limit="300M", memory_check_interval="100ms")
def test_a_process_that_grew_too_much_is_killed(live_app: LiveApp, passenger_log: LiveLog) -> None:
    """(With a soft limit beside it, it may be seen on its way up, and be replaced.)"""
    first = pid(live_app)
    live_app.get("/grow?400")
    eventually(lambda: first not in live_app.pids)
    passenger_log.wait(rf"killing process {first} of behaviours \(development\): its memory exceeds the limit")


@BEHAVES.with_args(thread_count=4, force_max_concurrent_requests_per_process=2)
def test_the_concurrency_of_a_process_can_be_forced(live_app: LiveApp) -> None:
    assert live_app.server.group()["processes"][0]["concurrency"] == 2
