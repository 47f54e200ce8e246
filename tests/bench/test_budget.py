"""The budget of the fast lane, counted and not timed: task steps, tasks, nurseries, cancel scopes and thread hops of one warm keep-alive request.

The guard is exact. Whoever adds one of these to the fast lane has to change the numbers here, with a measurement. Steps and tasks are told by an
instrument; nurseries, cancel scopes and threads are counted where they are made, so that one that is gone by the end of a step is counted, too.
What the timekeeper does is not of a request: it wakes by the clock, and its own scopes are left out.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import trio
from trio.lowlevel import start_thread_soon

from passenger_trio.codecs.dialect import SESSION
from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.codecs.session_protocol import BODY_END
from passenger_trio.core.model import GroupKey, GroupLimits, PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.server import connection as connection_module
from passenger_trio.server.connection import Connection
from passenger_trio.server.front import Front
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.sockets import RawStream

STEPS = 2
"""Checkpoints of a warm request: waiting for the head, waiting for the application. The plan allows 4."""

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"200\0OK\0Content-Type\0text/plain\0"
RESPONSE = b"R" + len(HEAD).to_bytes(4, "big") + HEAD + b"D\0\0\0\x02okE\0\0\0\0"
WARM = 5
MEASURED = 50


class Meter(trio.abc.Instrument):
    """Counts what the tasks of one name do."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.spawned = 0
        self.nurseries = 0
        self.scopes = 0
        self.threads = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.spawned += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task.name] += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is made meanwhile: nurseries are entered, cancel scopes are made, threads are asked for."""
        scopes, nurseries, thread = (
            trio.CancelScope.__init__,
            trio._core._run.NurseryManager.__aenter__,
            start_thread_soon,
        )

        def made(scope: trio.CancelScope, *arguments: object, **named: object) -> None:
            self.scopes += trio.lowlevel.current_task().name == "the connection"
            scopes(scope, *arguments, **named)

        def entered(manager: object) -> Awaitable[trio.Nursery]:
            self.nurseries += trio.lowlevel.current_task().name == "the connection"
            return nurseries(manager)

        def hop(*arguments: object, **named: object) -> None:
            self.threads += 1
            thread(*arguments, **named)

        trio.lowlevel.add_instrument(self)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio.CancelScope, "__init__", made)
            patch.setattr(trio._core._run.NurseryManager, "__aenter__", entered)
            # Under every name by which Trio itself gets a thread.
            patch.setattr("trio._threads.start_thread_soon", hop)
            patch.setattr("trio.lowlevel.start_thread_soon", hop)
            yield
        trio.lowlevel.remove_instrument(self)


async def worker(process: DummyProcess, stream: RawStream) -> None:
    """Answers every request, which comes in one read, with the same response."""
    while data := await stream.recv():
        assert data.endswith(BODY_END)
        stream.send_nowait(RESPONSE)


async def http_worker(process: DummyProcess, stream: RawStream) -> None:
    """The same, over HTTP."""
    while data := await stream.recv():
        assert data.endswith(b"\r\n\r\n")
        stream.send_nowait(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")


SPAWNERS = {"wsgi, rack": (worker, SESSION, 1), "asgi": (worker, SESSION, 100), "http": (http_worker, HTTP, 100)}
"""Application type -> its worker, the dialect, the requests that it takes at a time."""


async def measure(kind: str = "wsgi, rack") -> Meter:
    serve, dialect, concurrency = SPAWNERS[kind]
    meter = Meter()
    pool = Pool(PoolLimits())
    key = GroupKey("hello", "test")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(
            key, GroupLimits(), DummySpawner(serve=serve, dialect=dialect, concurrency=concurrency), 1.0
        )
        while not pool.processes:
            await pool.changed.wait()
        front = Front(ServerOptions(), pool, [Route(key, AppOptions())], None)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        pairs = b"SERVER_NAME\0localhost\0"
        nursery.start_soon(Connection(front, RawStream(ours), "127.0.0.1", True, pairs).run, name="the connection")
        nursery.start_soon(front.timekeeper.run)
        await nursery.start(front.switchboard.run)
        client = RawStream(theirs)
        for count, counting in ((WARM, nullcontext()), (MEASURED, meter.counting())):
            with counting:
                for _ in range(count):
                    client.send_nowait(REQUEST)
                    assert (await client.recv()).endswith(b"\r\n\r\nok")
        client.close()
        pool.shut_down()
        await pool.empty.wait()
        nursery.cancel_scope.cancel()
    return meter


@pytest.mark.parametrize("kind", SPAWNERS)
async def test_a_warm_request_keeps_the_budget(kind: str) -> None:
    meter = await measure(kind)
    assert meter.steps["the connection"] == STEPS * MEASURED
    assert (meter.spawned, meter.nurseries, meter.scopes, meter.threads) == (0, 0, 0, 0)


async def a_checkpoint() -> None:
    await trio.lowlevel.checkpoint()


async def a_task() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)


async def a_nursery() -> None:
    async with trio.open_nursery():
        pass


async def a_scope() -> None:
    with trio.move_on_after(5):
        await trio.lowlevel.checkpoint()


async def a_thread() -> None:
    await trio.to_thread.run_sync(int)


# What is added once to each request, and what the guard counts of it at the least.
ADDED: dict[Callable[[], Awaitable[None]], tuple[str, ...]] = {
    a_checkpoint: ("steps",),
    a_task: ("steps", "spawned", "nurseries"),
    a_nursery: ("nurseries",),
    a_scope: ("steps", "scopes"),
    a_thread: ("steps", "threads"),
}


@pytest.mark.parametrize("kind", SPAWNERS)
@pytest.mark.parametrize("added", ADDED, ids=lambda added: added.__name__)
async def test_the_guard_sees_what_is_added(
    kind: str, added: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = connection_module.send_request

    async def slower(*arguments: Any) -> bool:
        await added()
        return await stage(*arguments)

    monkeypatch.setattr(connection_module, "send_request", slower)
    meter = await measure(kind)
    counted = {
        "steps": meter.steps["the connection"] - STEPS * MEASURED,
        "spawned": meter.spawned,
        "nurseries": meter.nurseries,
        "scopes": meter.scopes,
        "threads": meter.threads,
    }
    assert {name: counted[name] >= MEASURED for name in ADDED[added]} == dict.fromkeys(ADDED[added], True)
