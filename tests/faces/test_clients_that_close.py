"""Fault 29: a client that has closed is found out at once by what is written to it, and nothing of that shows to one that has only half-closed (R28)."""

from __future__ import annotations

from pathlib import Path

import pytest
from faces_tools import write_app

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

ASGI = """
import LOOP as loop, os

def note(text):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(text + "\\n")

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    note("began " + path)
    await receive()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    if path == "/stream":
        await send(start)
        await send({"type": "http.response.body", "body": b"x" * 20, "more_body": True})
    if path.endswith("gate"):
        if path == "/stream-gate":
            await send(start)
            await send({"type": "http.response.body", "body": b"x" * 20, "more_body": True})
        while not os.path.exists(os.environ["EVENTS"] + ".gate"):
            await loop.sleep(0.02)
        if path == "/gate":
            await send(start)
        await send({"type": "http.response.body", "body": b"news", "more_body": True})
        return await send({"type": "http.response.body", "body": b""})
    try:
        note((await receive())["type"])
    finally:
        note("ended")
"""
WSGI = """
import os

def application(environ, start_response):
    with open(os.environ["EVENTS"], "a") as file:
        file.write("began %s\\n" % environ["PATH_INFO"])
    while not os.path.exists(os.environ["EVENTS"] + ".gate"):
        pass
    start_response("200 OK", [])
    return [b"late"]
"""


def events(root: Path) -> list[str]:
    path = root / "events"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("path", ["/silent", "/stream"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_asgi_application_is_told_soon(tmp_path: Path, loop: str, path: str) -> None:
    """Fault 29: before a response, and in a chunked one that is silent."""
    write_app(tmp_path, ASGI.replace("LOOP", loop), "passenger_asgi.py")
    with Supervisor.start(tmp_path, "--loop", loop, env={"EVENTS": str(tmp_path / "events")}) as server:
        with server.connect() as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            eventually(lambda: f"began {path}" in events(tmp_path))
            if path == "/stream":
                assert b"x" * 20 in client.receive()
        # The kernel of a client that is gone would let us wait for a minute.
        eventually(lambda: "ended" in events(tmp_path), timeout=20)
        if loop == "asyncio":
            assert "http.disconnect" in events(tmp_path)
        eventually(lambda: server.status()["requests"]["active"] == 0)


def test_a_silent_wsgi_request_is_given_up_soon(tmp_path: Path) -> None:
    """Fault 29: the request is over; the thread, which cannot be told before it yields, is not."""
    write_app(tmp_path, WSGI)
    with Supervisor.start(tmp_path, env={"EVENTS": str(tmp_path / "events")}) as server:
        with server.connect() as client:
            client.send(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: "began /silent" in events(tmp_path))
        eventually(lambda: server.status()["requests"]["active"] == 0, timeout=20)
        assert '" 499 ' in server.wait_access_log("/silent")
        (tmp_path / "events.gate").touch()


@pytest.mark.parametrize("path", ["/gate", "/stream-gate"])
def test_a_client_that_half_closes_has_its_whole_response(tmp_path: Path, path: str) -> None:
    """R28: what it is asked with says nothing to it: a ``100 Continue`` before the response, a leading zero of the next chunk's size in one."""
    write_app(tmp_path, ASGI.replace("LOOP", "asyncio"), "passenger_asgi.py")
    with Supervisor.start(tmp_path, env={"EVENTS": str(tmp_path / "events")}) as server, server.connect() as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.send_eof()
        came = b""
        probe = b"HTTP/1.1 100 Continue\r\n\r\n" if path == "/gate" else b"x\r\n0"
        while not came.endswith(probe):
            came += client.receive()
        (tmp_path / "events.gate").touch()
        came += client.receive_all()
        if path == "/gate":
            assert came.startswith(probe + b"HTTP/1.1 200 OK\r\n")
            assert came.endswith(b"\r\n\r\n4\r\nnews\r\n0\r\n\r\n")
        else:
            assert came.endswith(b"\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n04\r\nnews\r\n0\r\n\r\n")


def test_an_http_1_0_client_is_not_asked(tmp_path: Path) -> None:
    """RFC 9110 15.2: no interim response to an HTTP/1.0 client. The kernel's probes find out."""
    write_app(tmp_path, ASGI.replace("LOOP", "asyncio"), "passenger_asgi.py")
    with Supervisor.start(tmp_path, env={"EVENTS": str(tmp_path / "events")}) as server, server.connect() as client:
        client.send(b"GET /gate HTTP/1.0\r\nHost: x\r\n\r\n")
        client.send_eof()
        eventually(lambda: "began /gate" in events(tmp_path))
        with server.connect() as other:  # which is asked after the same time, and later
            other.send(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n")
            other.send_eof()
            assert other.receive().startswith(b"HTTP/1.1 100 ")
        (tmp_path / "events.gate").touch()
        assert client.receive_all().startswith(b"HTTP/1.1 200 OK\r\n")
