"""Long polls and server-sent events with real processes: each chunk comes at once, and an application hears of a client that leaves."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from faces_tools import APPS

from passenger_trio.testing import eventually
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

AT_ONCE = 0.5
"""Seconds. What looks only now and then is late again and again; a busy machine is late once or twice."""
_TRIES = 10
LOG = Path(tempfile.gettempdir(), f"pt-polls-{os.getpid()}")
"""What the applications tell: one file for all tests of this process, so that they can share a server."""
GATE = Path(f"{LOG}.gate")
WSGI = pytest.mark.passenger(str(APPS / "long_polls"), port=0, thread_count=2, env={"LOG": str(LOG)})
ONE_THREAD = WSGI.with_args(thread_count=1)
RACK = pytest.mark.passenger(
    str(APPS.parent / "ruby" / "hijack"),
    port=0,
    thread_count=2,
    env={"HIJACK_LOG": str(LOG), "HIJACK_GATE": str(GATE)},
)
ON_BOTH = pytest.mark.parametrize("interface", [pytest.param("wsgi", marks=WSGI), pytest.param("rack", marks=RACK)])

pytestmark = [pytest.mark.os, pytest.mark.slow]


@pytest.fixture
def polled(live_app: LiveApp) -> Iterator[LiveApp]:
    """The application, whose clients connect by TCP, without a tap in between."""
    live_app.address = live_app.server.address
    yield live_app
    LOG.unlink(missing_ok=True)
    GATE.unlink(missing_ok=True)


@ON_BOTH
def test_a_long_poll_waits_and_has_each_chunk_at_once(polled: LiveApp, interface: str) -> None:
    with httpx.stream("GET", f"{polled.url}/poll?{GATE}", timeout=30) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"waiting\n"  # while the application waits for the news
        GATE.touch()
        assert b"".join(chunks) == b"news\n"


@ON_BOTH
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_an_application_is_told_when_the_client_leaves(polled: LiveApp, reset: bool, interface: str) -> None:
    for _ in range(_TRIES):
        took = leave_between_events(polled, reset)
        LOG.unlink()
        if took < AT_ONCE:
            break
    assert took < AT_ONCE
    eventually(lambda: not polled.server.status()["requests"]["active"])


def leave_between_events(polled: LiveApp, reset: bool) -> float:
    """Seconds from the end of the client's connection until the application knows of it."""
    with polled.connect() as client:
        client.send(b"GET /events?0.01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        came = b""
        while came.count(b"data: ") < 3:
            came += client.receive()
        if reset:
            client.reset()
    began = time.monotonic()
    eventually(lambda: LOG.exists() and LOG.read_text() == "events closed\n")
    return time.monotonic() - began


@ONE_THREAD
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_leaves_between_two_rare_events(polled: LiveApp, passenger_log: LiveLog, reset: bool) -> None:
    """Of one that has closed we know when something is sent to it: with the next event, and not only with the one after that."""
    with polled.connect() as client:
        client.send(b"GET /events?1.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not client.receive().endswith(b"data: 1\n\n\r\n"):
            pass
        if reset:
            client.reset()
    eventually(lambda: LOG.exists() and LOG.read_text() == "events closed\n")
    # 1 at 0 s, 2 at 1.5 s; the worker looks before 3, or before 2 if the connection was reset.
    assert passenger_log.wait_access("/events")["duration"] < (1.4 if reset else 2.9)


@ONE_THREAD
def test_a_client_that_leaves_a_silent_poll_is_seen_at_once(polled: LiveApp, passenger_log: LiveLog) -> None:
    server = polled.server
    with polled.connect() as client:
        client.send(b"GET /silent?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % str(GATE).encode())
        eventually(lambda: server.status()["requests"]["active"] == 1)
        client.reset()
    assert passenger_log.wait_access("/silent")["status"] == 499
    assert server.group()["processes"][0]["sessions"] == 1, "a process that still computes is busy"
    GATE.touch()
    eventually(lambda: server.group()["processes"][0]["sessions"] == 0)


@ONE_THREAD.with_args(max_pool_size=2)
def test_a_client_that_closes_a_silent_poll_is_found_out_and_one_that_half_closes_is_answered(
    polled: LiveApp, passenger_log: LiveLog
) -> None:
    """R28: both look the same, until the client's kernel has forgotten the one that closed."""
    server = polled.server
    polled.start_process()
    request = b"GET /silent?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % str(GATE).encode()
    with polled.connect() as half:
        half.send(request)
        half.send_eof()
        with polled.connect() as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)  # in place of a minute
            client.send(request)
            eventually(lambda: server.status()["requests"]["active"] == 2)
        assert passenger_log.wait_access("/silent", timeout=30)["status"] == 499
        assert server.status()["requests"]["active"] == 1
        GATE.touch()
        assert half.read_response().status == 200
