"""The budget of the fast lane, counted and not timed: task steps, tasks and nurseries of one warm keep-alive request.

The guard is exact. Whoever adds a checkpoint, a task or a nursery to the fast lane has to change the numbers here, with a measurement.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio

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

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.spawned += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task.name] += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == "the connection":
            self.nurseries += len(task.child_nurseries)


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


SPAWNERS = {"session": (worker, SESSION), "http": (http_worker, HTTP)}


async def measure(kind: str = "session") -> Meter:
    serve, dialect = SPAWNERS[kind]
    meter = Meter()
    pool = Pool(PoolLimits())
    key = GroupKey("hello", "test")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(key, GroupLimits(), DummySpawner(serve=serve, dialect=dialect), 1.0)
        while not pool.processes:
            await pool.changed.wait()
        front = Front(ServerOptions(), pool, [Route(key, AppOptions())], None)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        pairs = b"SERVER_NAME\0localhost\0"
        nursery.start_soon(Connection(front, RawStream(ours), "127.0.0.1", True, pairs).run, name="the connection")
        nursery.start_soon(front.timekeeper.run)
        client = RawStream(theirs)
        for number in range(WARM + MEASURED):
            if number == WARM:
                trio.lowlevel.add_instrument(meter)
            client.send_nowait(REQUEST)
            assert (await client.recv()).endswith(b"\r\n\r\nok")
        trio.lowlevel.remove_instrument(meter)
        client.close()
        pool.shut_down()
        await pool.empty.wait()
        nursery.cancel_scope.cancel()
    return meter


@pytest.mark.parametrize("kind", SPAWNERS)
async def test_a_warm_request_keeps_the_budget(kind: str) -> None:
    meter = await measure(kind)
    assert meter.steps["the connection"] == STEPS * MEASURED
    assert meter.spawned == 0
    assert meter.nurseries == 0


def with_checkpoint(stage: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    async def slower(*arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return await stage(*arguments)

    return slower


def with_task(stage: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    async def slower(*arguments: object) -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
        return await stage(*arguments)

    return slower


@pytest.mark.parametrize("change", [with_checkpoint, with_task])
async def test_the_guard_sees_what_is_added(
    change: Callable[[Callable[..., Awaitable[object]]], Callable[..., Awaitable[object]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "send_request", change(connection_module.send_request))
    meter = await measure()
    assert meter.steps["the connection"] > STEPS * MEASURED
