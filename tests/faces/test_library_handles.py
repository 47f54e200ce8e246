"""What an embedding program does with a running server: listeners of its own, handles, requests without TCP (LI1, LI2, LI4)."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from faces_tools import BEHAVIOURS, HELLO, gate, write_app
from test_library_face import config, get, nothing_left

import passenger_trio
from passenger_trio import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.admin.client import fetch_status, order
from passenger_trio.errors import BindError, NotFound, NotPossible, PoolShutDown, RestartFailed, SpawnError
from passenger_trio.status_types import GroupStatus, ProcessStatus, ServerStatus
from passenger_trio.testing import RawClient, eventually

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("runtime")]


class TestListenersOfTheProgram:
    def test_sockets_and_trio_listeners_are_used_and_closed(self, tmp_path: Path) -> None:
        """LI1."""

        async def program() -> None:
            tcp = socket.create_server(("127.0.0.1", 0))
            path = str(tmp_path / "s")
            unix = socket.socket(socket.AF_UNIX)
            unix.bind(path)
            unix.listen()
            [of_trio] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with passenger_trio.open_server(config(), listeners=[tcp, of_trio, unix]) as server:
                assert [url.partition(":")[0] for url in server.addresses] == ["http", "http", "unix"]
                assert server.addresses[0] == f"http://127.0.0.1:{tcp.getsockname()[1]}/"
                assert (await get(server)).status == 200
                for address in (_tcp(server.addresses[1]), path):
                    with RawClient(address) as client:
                        assert (await trio.to_thread.run_sync(client.get, "/pid")).status == 200
            assert tcp.fileno() == unix.fileno() == -1
            assert of_trio.socket.fileno() == -1
            assert await trio.Path(path).exists(), "the file of a Unix socket is the program's"

        async def refused() -> None:
            silent = socket.socket()
            with pytest.raises(BindError, match="does not listen"):
                async with passenger_trio.open_server(config(), listeners=[silent]):
                    raise AssertionError("it was begun")
            assert silent.fileno() == -1
            with pytest.raises(BindError, match="stream socket"):
                await passenger_trio.serve(config(), listeners=[socket.socket(type=socket.SOCK_DGRAM)])

        trio.run(program)
        with nothing_left():
            trio.run(refused)


def _restart(admin_socket: str) -> Any:
    return order(admin_socket, "/v1/restart", {"wait": True}, for_long=True)


def _tcp(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])


class TestHandles:
    def test_processes_restart_and_detach(self, tmp_path: Path) -> None:
        """LI2: the same mechanisms as the commands use."""
        root = write_app(tmp_path / "shop")

        async def program() -> None:
            async with passenger_trio.open_server(config(root, min_instances=2)) as server:
                app = server.app("shop")
                await app.wait_ready()
                before = [process.pid for process in app.processes]
                assert len(before) == 2
                assert {(process.generation, process.serves) for process in app.processes} == {(1, True)}
                generation = app.restart()
                await app.wait_restarted(generation)
                serving = [process for process in app.processes if process.serves]
                assert {process.generation for process in serving} == {generation}
                assert not {process.pid for process in serving} & set(before)
                app.detach(serving[0].pid)
                while serving[0].pid in [process.pid for process in app.processes if process.serves]:
                    await server.pool.changed.wait()
                for order in (app.detach, app.disable, app.enable):
                    with pytest.raises(NotFound, match="no process 1 of shop"):
                        order(1)
                await app.wait_ready()
                first, second = [process.pid for process in app.processes if process.serves]
                assert app.disable(first) == 0
                with pytest.raises(NotPossible, match="no other process"):
                    app.disable(second)
                app.enable(first)
                assert "main thread" in await app.backtrace(second)
                assert server.app_of(first).key == app.key
                assert server.drain() == 0
                server.resume()
                while len(app.processes) > 2:  # the detached one ends between two looks
                    await server.pool.changed.wait()
                status = await server.status()  # LI3
                printed = await trio.to_thread.run_sync(fetch_status, server.admin_socket)
                assert [process["pid"] for process in status["groups"][0]["processes"]] == [
                    process["pid"] for process in printed["groups"][0]["processes"]
                ]
                assert set(status) == set(printed) == set(ServerStatus.__annotations__)
                assert set(status["groups"][0]) == set(GroupStatus.__annotations__)
                assert set(status["groups"][0]["processes"][0]) == set(ProcessStatus.__annotations__)
                assert "passenger_trio_ready" in {family.name for family in await server.metrics()}
                assert app.statistics().generation == generation
                # One mechanism: what the command asks for and what the program asks for are restarts of the same kind.
                [(one, generation)] = server.restart(app, hard=True).items()
                assert (one.name, server.every_app()[0].key) == ("shop", app.key)
                await one.wait_restarted(generation)
                [told] = (await trio.to_thread.run_sync(_restart, server.admin_socket))["groups"]
                assert (told["result"], told["generation"]) == ("restarted", generation + 1)
                assert {process.generation for process in app.processes if process.serves} == {generation + 1}
                write_app(root, "raise ValueError('the moon is full')\n")
                app.restart()
                with pytest.raises(RestartFailed, match="the one before it serves") as failed:
                    await app.wait_restarted()
                assert failed.value.failure is not None
                assert "the moon is full" in failed.value.failure.traceback
                async with app.request("GET", "/") as response:
                    assert await response.read() == b"hello"

        trio.run(program)

    def test_one_is_found_by_its_name(self, tmp_path: Path) -> None:
        broken = write_app(tmp_path / "broken", HELLO + "\nraise ValueError('the moon is full')\n")
        two = Config(
            server=ServerOptions(port=0, access_log="off"),
            pool=PoolOptions(max_pool_size=2),
            apps=(
                AppOptions(root=str(BEHAVIOURS), name="a", base_uri="/a", host_name=("*.example.com",)),
                AppOptions(root=str(broken), base_uri="/b"),
            ),
        )

        async def program() -> None:
            async with passenger_trio.open_server(two) as server:
                assert server.app("a").environment == "development"
                assert server.app("a (development)").name == "a"
                with pytest.raises(NotFound, match="there is no application 'c'; there are: a"):
                    server.app("c")
                with pytest.raises(NotFound, match="name one of the applications"):
                    server.app()
                with pytest.raises(SpawnError, match="the moon is full"):
                    await server.app("broken").wait_ready()
                async with server.app("a").request("GET", "/pid") as response:
                    assert await response.read() == str(server.app("a").processes[0].pid).encode()

        trio.run(program)


class TestRequestsWithoutTCP:
    def test_body_and_response_stream_through_the_buffers(self) -> None:
        """LI4."""

        async def pieces() -> AsyncIterator[bytes]:
            for number in range(100):
                yield b"%d\n" % number

        async def program() -> None:
            async with passenger_trio.open_server(config()) as server:
                app = server.app()
                async with app.request("GET", "/environ?a=b", headers={"X-Mine": "yes"}) as response:
                    assert (response.status, response.header("content-type")) == (200, "application/json")
                    text = (await response.read()).decode()
                    assert "HTTP_X_MINE" in text
                    assert "a=b" in text
                async with app.request("POST", "/echo", body=b"whole") as response:
                    assert await response.read() == b"whole"
                async with app.request("POST", "/echo", body=pieces()) as response:
                    assert await response.read() == b"".join([piece async for piece in pieces()])
                # A reader that does not read holds no process: the response waits in the buffers.
                async with app.request("GET", "/big?8") as response:
                    first = await anext(response)
                    await trio.to_thread.run_sync(eventually, lambda: not app.processes[0].sessions)
                    assert len(first) + len(await response.read()) == 8 * 1024**2
                assert server.front.requests >= 4

        with nothing_left():
            trio.run(program)

    def test_its_errors_are_the_programs(self) -> None:
        async def breaks() -> AsyncIterator[bytes]:
            yield b"begun"
            raise LookupError("mine")

        async def program() -> None:
            with gate() as it:
                async with passenger_trio.open_server(config(env=(("GATE", it.path),))) as server:
                    app = server.app()
                    with pytest.raises(LookupError, match="mine"):
                        async with app.request("POST", "/echo", body=breaks()):
                            raise AssertionError("there is a response")
                    with pytest.raises(ZeroDivisionError):
                        async with app.request("GET", "/pid"):
                            raise ZeroDivisionError
                    with trio.move_on_after(0.1) as scope:
                        async with app.request("GET", "/gate"):
                            raise AssertionError("there is a response")
                    assert scope.cancelled_caught
                    await trio.to_thread.run_sync(it.wait_arrival)
                    it.open()
            with pytest.raises(PoolShutDown):
                async with app.request("GET", "/pid"):
                    raise AssertionError("there is a response")

        with nothing_left():
            trio.run(program)
