"""The budget of the fast path, counted and not timed: task steps, tasks, nurseries, cancel scopes and thread hops of one warm keep-alive request. The same of
one piece of a stream, and its system calls.

The guard is exact. Whoever adds one of these to the fast path has to change the numbers here, with a measurement. Steps and tasks are told by an
instrument; nurseries, cancel scopes and threads are counted where they are made, so that one that is gone by the end of a step is counted, too.
What the deadline scanner does is not of a request: it wakes by the clock, and its own scopes are left out.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

import pytest
import trio
from trio.lowlevel import start_thread_soon

from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.codecs.session_protocol import BODY_END
from passenger_trio.codecs.worker_protocol import SESSION
from passenger_trio.core import metric_counts as tally_module
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.server.http import fast_path as fast_path_module
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.fast_path import FastPath
from passenger_trio.server.http.pass_through import PassThrough
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system import poller as poller_module
from passenger_trio.system.raw_stream import RawStream

STEPS = 2
"""Turns of the poller for one warm request that is alone: its head has come, its response has come. The connection's task has none. The plan allows 4 checkpoints."""
TASKS = ("the connection", "the poller")
"""Whose doings are a request's."""

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
            self.scopes += trio.lowlevel.current_task().name in TASKS
            scopes(scope, *arguments, **named)

        def entered(manager: object) -> Awaitable[trio.Nursery]:
            self.nurseries += trio.lowlevel.current_task().name in TASKS
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
"""Application type -> its worker, the worker protocol, the requests that it takes at a time."""


async def measure(kind: str = "wsgi, rack") -> Meter:
    serve, worker_protocol, concurrency = SPAWNERS[kind]
    meter = Meter()
    pool = Pool(PoolLimits())
    key = GroupKey("hello", "test")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(
            key, GroupLimits(), DummySpawner(serve=serve, worker_protocol=worker_protocol, concurrency=concurrency), 1.0
        )
        while not pool.processes:
            await pool.changed.wait()
        front = Front(ServerOptions(), pool, [Route(key, AppOptions())], None)
        await nursery.start(front.poller.run, name="the poller")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        pairs = b"SERVER_NAME\0localhost\0"
        nursery.start_soon(
            Connection(front, RawStream(ours), Peer("127.0.0.1", True, pairs)).run, name="the connection"
        )
        nursery.start_soon(front.deadline_scanner.run)
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
    assert {name: meter.steps[name] for name in TASKS} == {"the connection": 0, "the poller": STEPS * MEASURED}
    assert (meter.spawned, meter.nurseries, meter.scopes, meter.threads) == (0, 0, 0, 0)


class SystemCalls:
    """Counts those of the poller's task, by the names of the methods that make them."""

    NAMES = frozenset({"recv", "recv_into", "send", "sendmsg", "poll", "register", "modify", "unregister", "sendfile"})

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    @contextmanager
    def counting(self) -> Iterator[None]:
        def count(frame: FrameType, event: str, called: object) -> None:
            name = getattr(called, "__name__", "")
            if event == "c_call" and name in self.NAMES and trio.lowlevel.in_trio_task():
                self.count[name] += trio.lowlevel.current_task().name == "the poller"

        sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(None)


PIECE_STEPS = 1
"""Turns of the poller for a piece of a stream whose client keeps up; none if its turn waits for the next piece. The connection's task has none."""
PIECE_CALLS = {"poll": 1, "recv": 1, "send": 1, "modify": 1}
"""System calls of the poller for it. The last is to wait in Trio; a turn that waits has a second ``poll`` in its place."""


async def measure_pieces(body: bytes = b"a line of some text\n") -> tuple[Meter, SystemCalls]:
    meter, calls = Meter(), SystemCalls()
    ask, asked = trio.open_memory_channel[bytes](0)

    async def stream_of_pieces(process: DummyProcess, stream: RawStream) -> None:
        while await stream.recv():
            stream.send_nowait(RESPONSE[: 5 + len(HEAD)])
            async for piece in asked:
                stream.send_nowait(piece)
                if piece == BODY_END:
                    break

    key = GroupKey("hello", "test")
    pool = Pool(PoolLimits())
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(key, GroupLimits(), DummySpawner(serve=stream_of_pieces), 1.0)
        while not pool.processes:
            await pool.changed.wait()
        front = Front(ServerOptions(), pool, [Route(key, AppOptions())], None)
        await nursery.start(front.poller.run, name="the poller")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = Connection(front, RawStream(ours), Peer("127.0.0.1", True, b"SERVER_NAME\0localhost\0"))
        nursery.start_soon(connection.run, name="the connection")
        nursery.start_soon(front.deadline_scanner.run)
        client = RawStream(theirs)
        client.send_nowait(REQUEST)
        assert (await client.recv()).endswith(b"\r\n\r\n")
        framed = b"%x\r\n%b\r\n" % (len(body), body)
        for count, counting, system_calls in (
            (WARM, nullcontext(), nullcontext()),
            (MEASURED, meter.counting(), calls.counting()),
        ):
            with counting, system_calls:
                for _ in range(count):
                    await ask.send(b"D" + len(body).to_bytes(4, "big") + body)
                    assert await client.recv() == framed
                    await trio.sleep(0.02)  # sooner it is a flood
        await ask.send(BODY_END)
        assert await client.recv() == b"0\r\n\r\n"
        client.close()
        pool.shut_down()
        await pool.empty.wait()
        nursery.cancel_scope.cancel()
    return meter, calls


async def test_a_piece_of_a_stream_keeps_the_budget(autojump_clock: object) -> None:
    meter, calls = await measure_pieces()
    assert {name: meter.steps[name] for name in TASKS} == {"the connection": 0, "the poller": PIECE_STEPS * MEASURED}
    assert (meter.spawned, meter.nurseries, meter.scopes, meter.threads) == (0, 0, 0, 0)
    assert calls.count == {name: count * MEASURED for name, count in PIECE_CALLS.items()}


async def test_the_guard_sees_a_piece_that_wakes_the_task(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_on = PassThrough._pass_on
    monkeypatch.setattr(PassThrough, "_pass_on", lambda self: pass_on(self) or True)
    meter, calls = await measure_pieces()
    assert meter.steps["the connection"] >= MEASURED
    assert calls.count["unregister"] >= MEASURED


async def test_OB2_counting_a_request_calls_nothing() -> None:
    """Its five values are appended where the request ends; of 256 requests the last one has them sorted into histograms."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == tally_module.__file__:
            calls[frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        await measure()
    finally:
        sys.setprofile(None)
    # The rest is of the tallies that the routes begin with, and of sorting.
    assert calls["finished"] == 0
    assert calls["fold"] == (WARM + MEASURED) * 5 // tally_module.FOLD_AT
    assert calls.total() < (WARM + MEASURED) / 4


# -- the guard itself ------------------------------------------------------------------------------------------------


async def nothing() -> None:
    pass


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


# What is added once to each request, and what the guard counts of it at the least. That it can be awaited at all takes a step of the connection's task.
ADDED: dict[Callable[[], Awaitable[None]], tuple[str, ...]] = {
    nothing: ("steps",),
    a_checkpoint: ("steps",),
    a_task: ("steps", "spawned", "nurseries"),
    a_nursery: ("steps", "nurseries"),
    a_scope: ("steps", "scopes"),
    a_thread: ("steps", "threads"),
}


def counted(meter: Meter) -> dict[str, int]:
    steps = sum(meter.steps[name] for name in TASKS) - STEPS * MEASURED
    return {
        "steps": steps,
        "spawned": meter.spawned,
        "nurseries": meter.nurseries,
        "scopes": meter.scopes,
        "threads": meter.threads,
    }


@pytest.mark.parametrize("kind", SPAWNERS)
@pytest.mark.parametrize("added", ADDED, ids=lambda added: added.__name__)
async def test_the_guard_sees_what_is_awaited_for_a_request(
    kind: str, added: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_on_slow_path, check_out = Connection._serve_on_slow_path, FastPath._check_out
    seen: set[Exchange] = set()

    def detour(path: FastPath, exchange: Exchange, now: float) -> None:
        """The request leaves the fast path, and comes back to it."""
        if exchange in seen:
            check_out(path, exchange, now)
        else:
            seen.add(exchange)
            path._leave_to_slow_path()

    async def slower(connection: Connection) -> bool:
        await added()
        return await serve_on_slow_path(connection)

    monkeypatch.setattr(FastPath, "_check_out", detour)
    monkeypatch.setattr(Connection, "_serve_on_slow_path", slower)
    counts = counted(await measure(kind))
    assert {name: counts[name] >= MEASURED for name in ADDED[added]} == dict.fromkeys(ADDED[added], True)


async def test_the_guard_sees_one_checkpoint_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the poller's, which is the only task that has any."""
    wait = poller_module.wait_readable

    async def slower(fd: int) -> None:
        await wait(fd)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(poller_module, "wait_readable", slower)
    assert counted(await measure())["steps"] == STEPS * MEASURED


# What does not have to be awaited.
STARTED: dict[Callable[[], object], str] = {
    lambda: trio.lowlevel.spawn_system_task(trio.lowlevel.checkpoint): "spawned",
    lambda: trio.CancelScope(deadline=5.0): "scopes",
    lambda: trio.lowlevel.start_thread_soon(int, lambda result: None): "threads",
}


@pytest.mark.parametrize("kind", SPAWNERS)
@pytest.mark.parametrize("added", STARTED, ids=STARTED.__getitem__)
async def test_the_guard_sees_what_is_started_for_a_request(
    kind: str, added: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = fast_path_module.send_request

    def slower(exchange: Exchange, peer: Peer, now: float, all_told: float) -> RawStream:
        added()
        return stage(exchange, peer, now, all_told)

    monkeypatch.setattr(fast_path_module, "send_request", slower)
    assert counted(await measure(kind))[STARTED[added]] == MEASURED
