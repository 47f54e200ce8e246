"""WebSockets with real processes, a real client of another library, and the real clock."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

import pytest
import trio
import trio_websocket
from websocket_server import websocket_server
from websocket_world import close, handshake, masked
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("nothing_left")]

T = TypeVar("T")
SOON = 10.0


async def in_thread(work: Callable[[], T]) -> T:
    """The client is as foreign to the server as any."""
    with trio.fail_after(30):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def opened(address: str, path: str = "/echo", **more: object) -> ClientConnection:
    # Entered here: the connection outlives this function, and is a context of its own.
    return connect(address + path, proxy=None, open_timeout=SOON, close_timeout=SOON, **more).__enter__()  # type: ignore[arg-type]


def code_of(client: ClientConnection) -> int | None:
    """The code with which it is closed; messages before it are dropped."""
    try:
        while True:
            client.recv(timeout=SOON)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else None


async def test_a_conversation(nothing_left: Path) -> None:
    async with websocket_server(nothing_left) as server:

        def talk() -> None:
            with opened(server.address) as client:
                for message in ("", "grüße", b"\0\1", "x" * 100_000, os.urandom(900_000)):
                    client.send(message)
                    assert client.recv(timeout=SOON) == message
                client.send(["a", "b", "c" * 70_000])
                assert client.recv(timeout=SOON) == "ab" + "c" * 70_000
                assert client.ping().wait(SOON)

        await in_thread(talk)
        await in_thread(talk)
        await server.until(lambda: not (server.sessions))
        [process] = server.pool.processes.values()
        assert len(process.idle_streams) == 1


async def test_a_rejection_and_plain_http_beside_it(nothing_left: Path) -> None:
    async with websocket_server(nothing_left) as server:

        def talk() -> None:
            with pytest.raises(InvalidStatus) as refused:
                opened(server.address, "/reject")
            assert refused.value.response.status_code == 403
            with opened(server.address), urlopen(server.address.replace("ws", "http", 1), timeout=SOON) as answer:
                assert int(answer.read()) == server.pids[0]

        await in_thread(talk)


async def test_the_applications_close_and_a_message_that_is_too_big(nothing_left: Path) -> None:
    async with websocket_server(nothing_left, websocket_max_message_size=1000) as server:

        def talk() -> None:
            client = opened(server.address, "/late")
            client.send("now")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=SOON)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "late")
            client = opened(server.address)
            client.send("x" * 1001)
            assert code_of(client) == 1009

        await in_thread(talk)


@pytest.mark.parametrize("how", ["exit", "kill"])
async def test_a_process_that_dies_closes_with_1012(nothing_left: Path, how: str) -> None:
    """F50."""
    async with websocket_server(nothing_left) as server:
        pid = server.pids[0]

        def talk() -> list[int | None]:
            clients = [opened(server.address) for _ in range(5)]
            if how == "exit":
                clients[0].send("die")
            else:
                os.kill(pid, signal.SIGKILL)
            return [code_of(client) for client in clients]

        assert await in_thread(talk) == [1012] * 5

        def again() -> object:
            with opened(server.address) as client:
                client.send("again")
                return client.recv(timeout=SOON)

        assert await in_thread(again) == "again"
        assert server.pids != [pid]


async def test_a_restart_closes_with_1012_when_the_new_process_is_there(nothing_left: Path) -> None:
    async with websocket_server(nothing_left, websocket_drain=1.0) as server:
        before = server.pids
        clients = await in_thread(lambda: [opened(server.address) for _ in range(3)])
        server.restart()
        assert await in_thread(lambda: [code_of(client) for client in clients]) == [1012] * 3
        assert not set(server.pids) & set(before) or len(server.pids) == 2
        await server.until(lambda: before[0] not in server.pids)


async def test_a_server_that_stops_closes_with_1001_in_time(nothing_left: Path) -> None:
    async with websocket_server(nothing_left) as server:
        clients = await in_thread(lambda: [opened(server.address) for _ in range(20)])
        silent = await in_thread(lambda: raw_client(server.address))  # it answers no close
        began = trio.current_time()
        server.stop()
        assert await in_thread(lambda: [code_of(client) for client in clients]) == [1001] * 20
        assert trio.current_time() - began < 5.0
    assert trio.current_time() - began < 11.0
    silent.close()


def raw_client(address: str, path: str = "/echo") -> socket.socket:
    """A socket behind a good handshake."""
    host, port = address.removeprefix("ws://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=SOON)
    sock.sendall(handshake(path))
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return sock


async def test_a_reader_that_stops_and_one_that_resets(nothing_left: Path) -> None:
    async with websocket_server(nothing_left, write_timeout=1.0) as server:
        slow = await in_thread(lambda: raw_client(server.address, "/flood"))
        gone = await in_thread(lambda: raw_client(server.address, "/flood"))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        await server.until(lambda: not (server.sessions))
        slow.close()


async def test_closed_at_every_point_nothing_is_left(nothing_left: Path) -> None:
    wire = handshake("/echo") + masked(1, b"hello") + masked(9, b"p") + masked(2, bytes(200)) + close(1000, b"bye")
    async with websocket_server(nothing_left) as server:
        host, port = server.address.removeprefix("ws://").split(":")

        def attack() -> None:
            for at in range(0, len(wire) + 1, 3):
                for reset in (False, True):
                    sock = socket.create_connection((host, int(port)), timeout=SOON)
                    sock.sendall(wire[:at])
                    if reset:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    sock.close()

        await in_thread(attack)
        await server.until(lambda: not (server.sessions or server.front.connections))
        assert not server.front.rejected["internal_error"]
        assert len(server.pids) == 1


async def test_a_client_of_trio_websocket(nothing_left: Path) -> None:
    async with (
        websocket_server(nothing_left) as server,
        trio_websocket.open_websocket_url(server.address + "/echo", subprotocols=None) as client,
    ):
        with trio.fail_after(SOON):
            for message in ("hello", b"\0", "ü" * 100_000):
                await client.send_message(message)
                assert await client.get_message() == message
            await client.ping(b"there?")
            await client.aclose(4002, "enough")
        assert client.closed is not None
        assert client.closed.code == 4002
