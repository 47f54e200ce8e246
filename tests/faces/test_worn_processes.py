"""Processes of a real server are replaced for their age, their requests and their size; what lasts too long is ended."""

from __future__ import annotations

import pytest
from faces_tools import BEHAVIOURS, clients, gate

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os


def pid(server: Supervisor) -> int:
    response = server.get("/pid")
    assert response.status == 200
    return int(response.body)


def test_a_process_is_replaced_after_so_many_requests_and_no_request_notices() -> None:
    with Supervisor.start(BEHAVIOURS, "--max-requests", "5") as server:
        first = pid(server)
        eventually(lambda: pid(server) != first)
        eventually(lambda: server.pids and first not in server.pids)
        server.wait_log("it has served max_requests requests")


def test_a_process_is_replaced_after_its_lifetime() -> None:
    with Supervisor.start(BEHAVIOURS, "--max-process-lifetime", "300ms") as server:
        first = pid(server)
        eventually(lambda: pid(server) != first)
        server.wait_log("it is older than max_process_lifetime")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_request_that_lasts_too_long_is_answered_504_and_its_process_is_killed(threads: str) -> None:
    """F3."""
    with (
        gate() as at_gate,
        Supervisor.start(
            BEHAVIOURS, "--max-request-time", "500ms", "--thread-count", threads, *at_gate.arguments
        ) as server,
    ):
        with clients(1) as send:
            answer = send(server, "/gate?secret")
            stuck = at_gate.wait_arrival()
            assert answer.result().status == 504
        line = server.wait_log("its process was killed")
        assert "GET /gate" in line
        assert "secret" not in line
        assert "request " in line
        assert at_gate.nobody_comes(), "it was sent to a second process"
        eventually(lambda: server.pids and stuck not in server.pids)
        assert pid(server) != stuck
        assert server.status()["requests"]["rejected"] == {"request_time_exceeded": 1}


def test_a_response_that_has_begun_is_cut_short_visibly() -> None:
    with gate() as at_gate, Supervisor.start(BEHAVIOURS, "--max-request-time", "500ms", *at_gate.arguments) as server:
        with clients(1) as send:
            answer = send(server, "/stream")
            at_gate.wait_arrival()
            assert not answer.result().complete


def test_who_waits_too_long_for_a_process_is_answered_504() -> None:
    with (
        gate() as at_gate,
        Supervisor.start(
            BEHAVIOURS, "--max-pool-size", "1", "--max-request-queue-time", "300ms", *at_gate.arguments
        ) as server,
    ):
        with clients(1) as send:
            first = send(server, "/gate")
            at_gate.wait_arrival()
            assert server.get("/pid").status == 504
            at_gate.open()
            assert first.result().status == 200
        assert server.get("/pid").status == 200


def test_a_process_that_grew_is_replaced() -> None:
    """F34."""
    with Supervisor.start(BEHAVIOURS, "--memory-limit", "80M", "--memory-check-interval", "100ms") as server:
        first = pid(server)
        server.get("/grow?120")
        server.wait_log("its memory exceeds the limit")
        eventually(lambda: pid(server) != first)


def test_a_process_that_grew_too_much_is_killed() -> None:
    """(With a soft limit beside it, it may be seen on its way up, and be replaced.)"""
    with Supervisor.start(BEHAVIOURS, "--hard-memory-limit", "300M", "--memory-check-interval", "100ms") as server:
        first = pid(server)
        server.get("/grow?400")
        eventually(lambda: first not in server.pids)
        server.wait_log(f"killing process {first} of behaviours (development): its memory exceeds the limit")


def test_the_concurrency_of_a_process_can_be_forced() -> None:
    with Supervisor.start(
        BEHAVIOURS, "--thread-count", "4", "--force-max-concurrent-requests-per-process", "2"
    ) as server:
        assert server.group()["processes"][0]["concurrency"] == 2
