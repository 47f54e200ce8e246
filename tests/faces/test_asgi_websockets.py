"""WebSockets of real frameworks through the whole server, with a real client: FastAPI on asyncio, Quart on Trio.

Starts the command: the end of the server is the subject of one, and the others have an application of their own each.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from passenger_trio.testing import Supervisor

pytestmark = pytest.mark.os

FASTAPI = """
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

    app = FastAPI()
    active = []

    @app.websocket("/chat/{number}")
    async def chat(websocket: WebSocket, number: int):
        await websocket.accept("chat" if "chat" in websocket.scope["subprotocols"] else None, [(b"x-number", b"%d" % number)])
        active.append(websocket)
        try:
            while True:
                text = await websocket.receive_text()
                for one in active:
                    await one.send_text("%d says %s" % (number, text))
        except WebSocketDisconnect as error:
            active.remove(websocket)
            print("%d left with %d %s" % (number, error.code, error.reason), flush=True)

    @app.websocket("/bytes")
    async def echo(websocket: WebSocket):
        await websocket.accept()
        async for data in websocket.iter_bytes():
            await websocket.send_bytes(data)

    @app.websocket("/close")
    async def close(websocket: WebSocket):
        await websocket.accept()
        await websocket.close(4001, "go away")

    @app.websocket("/deny")
    async def deny(websocket: WebSocket):
        raise WebSocketException(1008)

    @app.websocket("/raise")
    async def fail(websocket: WebSocket):
        await websocket.accept()
        raise RuntimeError("the handler has a bug")
    """
QUART = """
    import trio
    from quart import websocket
    from quart_trio import QuartTrio

    app = QuartTrio(__name__)

    @app.websocket("/echo")
    async def echo():
        try:
            while True:
                await websocket.send(await websocket.receive())
        finally:
            print("echo has ended", flush=True)

    @app.websocket("/ticks")
    async def ticks():
        try:
            while True:
                await websocket.send("tick")
                await trio.sleep(0.01)
        finally:
            print("ticks have ended", flush=True)
    """


def closed(url: str) -> tuple[int, str]:
    """The code and the reason with which a WebSocket is closed at once."""
    with connect(url) as client, pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=20)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_fastapi(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(textwrap.dedent(FASTAPI))
    with Supervisor.start(tmp_path) as server:
        url = server.url.replace("http", "ws", 1)
        with connect(f"{url}/chat/1", subprotocols=["other", "chat"]) as one:
            assert one.subprotocol == "chat"
            assert one.response is not None
            assert one.response.headers["x-number"] == "1"
            with connect(f"{url}/chat/2") as two:
                assert two.subprotocol is None
                one.send("grüße")
                assert one.recv(timeout=20) == two.recv(timeout=20) == "1 says grüße"
                two.close(4321, "tschüss")
            server.wait_log("2 left with 4321 tsch")
        server.wait_log("1 left with 1000")
        with connect(f"{url}/bytes", max_size=None) as client:
            for size in (0, 1, 70_000, 900_000):
                data = os.urandom(size)
                client.send(data)
                assert client.recv(timeout=20) == data
        assert closed(f"{url}/close") == (4001, "go away")
        assert closed(f"{url}/raise")[0] == 1011
        server.wait_log("the handler has a bug")
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url}/deny").__enter__()
        assert refused.value.response.status_code == 403


def test_all_are_closed_when_the_server_stops(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(textwrap.dedent(FASTAPI))
    with Supervisor.start(tmp_path) as server:
        with connect(server.url.replace("http", "ws", 1) + "/chat/1") as client:
            client.send("here")
            assert client.recv(timeout=20) == "1 says here"
            server.send_signal(15)
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(timeout=40)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
        assert server.wait() == 0
        server.wait_log("1 left with 1001")


def test_quart_on_trio(tmp_path: Path) -> None:
    """Also a handler that only sends ends with its client."""
    (tmp_path / "app.py").write_text(textwrap.dedent(QUART))
    with Supervisor.start(tmp_path, "--loop", "trio") as server:
        url = server.url.replace("http", "ws", 1)
        with connect(f"{url}/echo") as client:
            for message in ("text", b"bytes", b"x" * 70_000):
                client.send(message)
                assert client.recv(timeout=20) == message
        server.wait_log("echo has ended")
        with connect(f"{url}/ticks") as client:
            assert client.recv(timeout=20) == "tick"
        server.wait_log("ticks have ended")
