"""``--front-balance load``: as many fronts serve as the load needs, and idle connections move to these (FR6).

Starts the command: fronts are the subject. What makes a second front active here is the number of connections, which no other process of the machine can change.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, run_command

from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

OPTIONS = ("--fronts", "3", "--max-pool-size", "12", "--keep-alive-timeout", "600")
MANY = 300
"""Connections: more than one front has on a server with little load."""


@pytest.fixture
def server() -> Iterator[Supervisor]:
    with Supervisor.start(BEHAVIOURS, *OPTIONS) as running:
        eventually(lambda: active(running) == [True, False, False], 60, "it has started, and is quiet")
        yield running


def fronts(server: Supervisor) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.status()["fronts"]
    return found


def active(server: Supervisor) -> list[bool]:
    return [front["alive"] and front["active"] for front in fronts(server)]


def counts(server: Supervisor) -> list[int]:
    return [front["connections"] for front in fronts(server)]


@contextlib.contextmanager
def connected(server: Supervisor, count: int) -> Iterator[list[RawClient]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def shown(server: Supervisor) -> str:
    return run_command("status", str(server.instance_dir)).stdout


def all_answer(there: list[RawClient]) -> bool:
    return {client.get("/pid").status for client in there} == {200}


def test_FR6_a_quiet_server_serves_with_one_front(server: Supervisor) -> None:
    with connected(server, 12) as there:
        assert all_answer(there)
        eventually(lambda: counts(server) == [12, 0, 0], 15, "the first one has all connections")
        eventually(lambda: shown(server).count(", not active") == 2, 30, "`status` says which are not")


def test_FR6_many_connections_make_a_second_one_active_and_move_back_when_they_go(server: Supervisor) -> None:
    """Each connection serves before, after and between, and keeps its place in the one server: none is closed, none is counted twice."""
    accepted = server.status()["connections"]["accepted"]
    with connected(server, 12) as stays:
        assert all_answer(stays)
        with connected(server, MANY - 12) as there:
            assert all_answer(there)
            eventually(lambda: active(server) == [True, True, False], 30, "a second one is active")
            eventually(lambda: min(counts(server)[:2]) > MANY // 3, 30, "connections moved to it")
            assert all_answer(there)
            assert all_answer(stays)
            assert sum(counts(server)) == MANY
        eventually(lambda: active(server) == [True, False, False], 30, "one is enough again")
        eventually(lambda: counts(server) == [12, 0, 0], 30, "what is left moved back")
        assert all_answer(stays)
    assert server.status()["connections"]["accepted"] == accepted + MANY


def test_FR6_when_the_active_front_dies_the_next_one_takes_its_place(server: Supervisor) -> None:
    with connected(server, 4) as there:
        assert all_answer(there)
        victim = fronts(server)[0]
        os.kill(victim["pid"], signal.SIGKILL)
        eventually(lambda: fronts(server)[0]["pid"] not in (None, victim["pid"]), 30, "it is replaced")
        assert server.get("/pid").status == 200
        eventually(lambda: active(server) == [True, False, False], 60, "the first one is active again")
        with connected(server, 4) as after:
            assert all_answer(after)
            eventually(lambda: counts(server) == [4, 0, 0], 15, "it has them all")


def test_FR6_requests_under_way_end_where_they_are(server: Supervisor) -> None:
    """A long answer, and a request that arrives piece by piece, while their front stops to be active."""
    with connected(server, MANY) as there:
        assert all_answer(there)
        eventually(lambda: min(counts(server)[:2]) > MANY // 3, 30, "both serve")
        busy = there[:40]
        for client in busy:
            client.send(b"GET /pid HTTP/1.1\r\nHo")
        for client in there[40:]:
            client.close()
        eventually(lambda: active(server) == [True, False, False], 30, "one is enough")
        for client in busy:
            client.send(b"st: localhost\r\n\r\n")
        assert {client.read_response().status for client in busy} == {200}
        eventually(lambda: counts(server) == [40, 0, 0], 30, "then they moved")
        assert all_answer(busy)
