"""What programs may write against the public faces: read by mypy and pyright (``test_typed_programs.py``), never run."""

from __future__ import annotations

import socket
from typing import assert_type

import trio

import passenger_trio
from passenger_trio import (
    AppOptions,
    AppProcess,
    AppResponse,
    BorrowedProcess,
    Config,
    PassengerError,
    PoolOptions,
    RunningServer,
    ServerOptions,
)
from passenger_trio.events import Event, ProcessExited
from passenger_trio.testing import RawClient, Response, Supervisor, eventually


async def embeds() -> None:
    config = Config(
        server=ServerOptions(port=0, access_log="off"),
        pool=PoolOptions(max_pool_size=2),
        apps=(AppOptions(root="shop"),),
    )
    async with passenger_trio.open_server(config) as server:
        assert_type(server, RunningServer)
        assert_type(server.addresses, list[str])
        assert_type(server.admin_socket, str)
        async for event in server.events():
            assert_type(event, Event)
            if isinstance(event, ProcessExited):
                assert_type(event.pid, int)
        server.stop()
        await server.wait_stopping()
    async with trio.open_nursery() as nursery:
        started: RunningServer = await nursery.start(passenger_trio.serve, config)
        assert_type(started.stopping, bool)


async def does_more(config: Config) -> None:
    async with passenger_trio.open_server(config, listeners=[socket.socket()]) as server:
        app = server.app("shop")
        assert_type(app.processes, tuple[AppProcess, ...])
        await app.wait_restarted(app.restart(hard=True))
        async with app.request("POST", "/", headers={"A": "b"}, body=[b"piece"]) as response:
            assert_type(response, AppResponse)
            assert_type(await response.read(), bytes)
            async for piece in response:
                assert_type(piece, bytes)
    async with passenger_trio.open_pool(config) as pool, pool.checkout("shop") as process:
        assert_type(process, BorrowedProcess)
        assert_type(process.open_stream(), trio.SocketStream)
        async with process.request("GET", "/") as answer:
            assert_type(answer.status, int)


def in_a_thread(config: Config) -> None:
    with passenger_trio.run_in_thread(config) as server:
        assert_type(server.call(lambda running: running.app().processes), tuple[AppProcess, ...])
        assert_type(server.wait(lambda running: running.app().wait_ready()), None)


def handles() -> int:
    try:
        trio.run(embeds)
    except PassengerError as error:
        return assert_type(error.exit_code, int)
    return 0


def tests() -> None:
    with Supervisor.start("shop", "--thread-count", "2", env={"A": "b", "C": None}) as server:
        assert_type(server.get("/", Accept="text/html"), Response)
        assert_type(server.get("/").header("Content-Type"), str | None)
        assert_type(server.pids, list[int])
        with server.connect() as client:
            assert_type(client, RawClient)
            assert_type(client.receive_all(), bytes)
        assert_type(eventually(lambda: server.pids), list[int])
        assert_type(server.stop(), int)


def refuses() -> None:
    Config(ServerOptions())  # type: ignore[call-arg]  # names only
    ServerOptions(port="3000")  # type: ignore[arg-type]
    AppOptions(roof="shop")  # type: ignore[call-arg]
    Config().apps = ()  # type: ignore[misc]  # frozen
