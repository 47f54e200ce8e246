"""What programs may write against the public faces: read by mypy only, never run."""

from __future__ import annotations

from typing import assert_type

import trio

import passenger_trio
from passenger_trio import AppOptions, Config, PassengerError, PoolOptions, RunningServer, ServerOptions
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
