"""Fault 22, ED11: WebSockets on an unlimited path take no place from ordinary requests, however many they are.

Starts the command: its limit of descriptors is the subject.
"""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from faces_tools import write_app

from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

APP = """
import asyncio, os

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message["text"]})
    if scope["path"] == "/gate":
        while not os.path.exists(scope["query_string"].decode()):
            await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""
MANY, LIMIT = 600, 100


def open_websocket(client: RawClient) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    client.send(
        f"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.receive(1)
    assert head.startswith(b"HTTP/1.1 101 ")


def says(client: RawClient, text: bytes) -> bytes:
    """What the echo answers to a text of less than 126 bytes (masked with zeros)."""
    client.send(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
    answer = b""
    while len(answer) < len(text) + 2:
        answer += client.receive()
    return answer[2:]


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_600_websockets_beside_ordinary_requests(tmp_path: Path, method: str) -> None:
    """Fault 22, ED11."""
    write_app(tmp_path, APP, "passenger_asgi.py")
    gate = tmp_path / "gate"
    options = ["--unlimited-concurrency-paths", "/ws", "--max-pool-size", "1", "--spawn-method", method]
    with (
        Supervisor.start(tmp_path, *options, prefix=("prlimit", "--nofile=8192")) as server,
        ExitStack() as opened,
        ThreadPoolExecutor(LIMIT + 5) as threads,
    ):
        clients = [opened.enter_context(server.connect()) for _ in range(MANY)]
        for client in clients:
            open_websocket(client)
        [process] = server.group()["processes"]
        assert (process["sessions"], process["concurrency"]) == (MANY, LIMIT)
        assert server.get("/").body == str(process["pid"]).encode()
        # As many ordinary requests as ever, and no more.
        waiting = [threads.submit(server.get, f"/gate?{gate}") for _ in range(LIMIT + 5)]
        eventually(lambda: server.group()["processes"][0]["sessions"] == MANY + LIMIT)
        eventually(lambda: server.status()["pool"]["queue"] == 5)
        assert all(says(client, b"%d" % number) == b"%d" % number for number, client in enumerate(clients))
        gate.touch()
        assert {one.result().status for one in waiting} == {200}
