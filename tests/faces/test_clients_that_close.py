"""Fault 29: a client that has closed is found out at once by what is written to it, and nothing of that shows to one that has only half-closed (R28)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import APPS

from passenger_trio.testing import eventually
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = pytest.mark.os

EVENTS = Path(tempfile.gettempdir(), f"pt-events-{os.getpid()}")
"""What the application tells: one file for all tests of this process, so that they can share a server."""
GATE = EVENTS.with_suffix(".gate")
APP = APPS / "left_by_clients"
ON = {
    loop: pytest.mark.passenger(str(APP), port=0, loop=loop, env={"EVENTS": str(EVENTS), "LOOP": loop})
    for loop in ("asyncio", "trio")
}
"""On TCP: only there what is written to a client that has closed is answered with a reset."""


@pytest.fixture
def client_of(live_app: LiveApp) -> Iterator[LiveApp]:
    """The application, whose clients connect without a tap in between."""
    live_app.address = live_app.server.address
    yield live_app
    EVENTS.unlink(missing_ok=True)
    GATE.unlink(missing_ok=True)


def events() -> list[str]:
    return EVENTS.read_text().splitlines() if EVENTS.exists() else []


@pytest.mark.parametrize("path", ["/silent", "/stream"])
@pytest.mark.parametrize("loop", [pytest.param(loop, marks=mark) for loop, mark in ON.items()])
def test_an_asgi_application_is_told_soon(client_of: LiveApp, loop: str, path: str) -> None:
    """Fault 29: before a response, and in a chunked one that is silent."""
    with client_of.connect() as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: f"began {path}" in events())
        if path == "/stream":
            assert b"x" * 20 in client.receive()
    # The kernel of a client that is gone would let us wait for a minute.
    eventually(lambda: "ended" in events(), timeout=20)
    if loop == "asyncio":
        assert "http.disconnect" in events()
    eventually(lambda: client_of.server.status()["requests"]["active"] == 0)


@pytest.mark.passenger(str(APP / "silent.py") + ":application", port=0, env={"EVENTS": str(EVENTS)})
def test_a_silent_wsgi_request_is_given_up_soon(client_of: LiveApp, passenger_log: LiveLog) -> None:
    """Fault 29: the request is over; the thread, which cannot be told before it yields, is not."""
    with client_of.connect() as client:
        client.send(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: "began /silent" in events())
    eventually(lambda: client_of.server.status()["requests"]["active"] == 0, timeout=20)
    assert passenger_log.wait_access("/silent")["status"] == 499
    GATE.touch()


@ON["asyncio"]
@pytest.mark.parametrize("path", ["/gate", "/stream-gate"])
def test_a_client_that_half_closes_has_its_whole_response(client_of: LiveApp, path: str) -> None:
    """R28: what it is asked with says nothing to it: a ``100 Continue`` before the response, a leading zero of the next chunk's size in one."""
    with client_of.connect() as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.send_eof()
        came = b""
        probe = b"HTTP/1.1 100 Continue\r\n\r\n" if path == "/gate" else b"x\r\n0"
        while not came.endswith(probe):
            came += client.receive()
        GATE.touch()
        came += client.receive_all()
        if path == "/gate":
            assert came.startswith(probe + b"HTTP/1.1 200 OK\r\n")
            assert came.endswith(b"\r\n\r\n4\r\nnews\r\n0\r\n\r\n")
        else:
            assert came.endswith(b"\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n04\r\nnews\r\n0\r\n\r\n")


@ON["asyncio"]
def test_an_http_1_0_client_is_not_asked(client_of: LiveApp) -> None:
    """RFC 9110 15.2: no interim response to an HTTP/1.0 client. The kernel's probes find out."""
    with client_of.connect() as client:
        client.send(b"GET /gate HTTP/1.0\r\nHost: x\r\n\r\n")
        client.send_eof()
        eventually(lambda: "began /gate" in events())
        with client_of.connect() as other:  # which is asked after the same time, and later
            other.send(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n")
            other.send_eof()
            assert other.receive().startswith(b"HTTP/1.1 100 ")
            GATE.touch()
            assert b"HTTP/1.1 200 OK\r\n" in other.receive_all()
        assert client.receive_all().startswith(b"HTTP/1.1 200 OK\r\n")
