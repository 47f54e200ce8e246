"""Long polls and server-sent events with real processes: each chunk comes at once, and an application hears of a client that leaves."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from faces_tools import APPS

from passenger_trio.testing import Supervisor, eventually

RUBY = APPS.parent / "ruby" / "hijack"
AT_ONCE = 0.5
"""Seconds that are allowed on a busy machine; the goal is 0.1."""

pytestmark = [pytest.mark.os, pytest.mark.slow]


@pytest.fixture(params=["wsgi", "rack"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    if request.param == "wsgi":
        arguments, environment = [APPS / "long_polls", "--thread-count", "2"], {"LOG": str(tmp_path / "log")}
    else:
        arguments = [RUBY, "--thread-count", "2"]
        environment = {"HIJACK_LOG": str(tmp_path / "log"), "HIJACK_GATE": str(tmp_path / "gate")}
    with Supervisor.start(arguments[0], *map(str, arguments[1:]), env=environment) as running:
        yield running


def test_a_long_poll_waits_and_has_each_chunk_at_once(server: Supervisor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with httpx.stream("GET", f"{server.url}/poll?{gate}", timeout=30) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"waiting\n"  # while the application waits for the news
        gate.touch()
        assert b"".join(chunks) == b"news\n"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_an_application_is_told_when_the_client_leaves(server: Supervisor, tmp_path: Path, reset: bool) -> None:
    log = tmp_path / "log"
    with server.connect() as client:
        client.send(b"GET /events?0.01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        came = b""
        while came.count(b"data: ") < 3:
            came += client.receive()
        if reset:
            client.reset()
    began = time.monotonic()
    eventually(lambda: log.exists() and log.read_text() == "events closed\n")
    assert time.monotonic() - began < AT_ONCE
    eventually(lambda: not server.status()["requests"]["active"])


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_leaves_between_two_rare_events(tmp_path: Path, reset: bool) -> None:
    """Of one that has closed we know when something is sent to it: with the next event, and not only with the one after that."""
    log = tmp_path / "log"
    with Supervisor.start(APPS / "long_polls", env={"LOG": str(log)}) as server:
        with server.connect() as client:
            client.send(b"GET /events?1.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not client.receive().endswith(b"data: 1\n\n\r\n"):
                pass
            if reset:
                client.reset()
        eventually(lambda: not server.status()["requests"]["active"] or log.exists(), timeout=10)
        eventually(lambda: log.exists() and log.read_text() == "events closed\n")
        # 1 at 0 s, 2 at 1.5 s; the worker looks before 3, or before 2 if the connection was reset.
        (record,) = [line for line in [server.wait_access_log("/events")] if line]
        duration = float(record.split(" time=")[1].split()[0])
        assert duration < (1.4 if reset else 2.9)


def test_a_client_that_leaves_a_silent_poll_is_seen_at_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Supervisor.start(APPS / "long_polls", env={"LOG": str(tmp_path / "log")}) as server:
        with server.connect() as client:
            client.send(b"GET /silent?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % str(gate).encode())
            eventually(lambda: server.status()["requests"]["active"] == 1)
            client.reset()
        eventually(lambda: not server.status()["connections"]["open"] or server.log_tail.count("499"))
        assert '" 499 ' in server.wait_access_log("/silent")
        assert server.group()["processes"][0]["sessions"] == 1, "a process that still computes is busy"
        gate.touch()
        eventually(lambda: server.group()["processes"][0]["sessions"] == 0)


def test_a_client_that_closes_a_silent_poll_is_found_out_and_one_that_half_closes_is_answered(tmp_path: Path) -> None:
    """R28: both look the same, until the client's kernel has forgotten the one that closed."""
    gate = tmp_path / "gate"
    options = ("--max-pool-size", "2", "--min-instances", "2")
    with Supervisor.start(APPS / "long_polls", *options, env={"LOG": str(tmp_path / "log")}) as server:
        request = b"GET /silent?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % str(gate).encode()
        with server.connect() as half:
            half.send(request)
            half.send_eof()
            with server.connect() as client:
                client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)  # in place of a minute
                client.send(request)
                eventually(lambda: server.status()["requests"]["active"] == 2)
            assert '" 499 ' in server.wait_access_log("/silent", timeout=30)
            assert server.status()["requests"]["active"] == 1
            gate.touch()
            assert half.read_response().status == 200
