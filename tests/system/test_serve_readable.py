"""A task whose stream the poller serves: who is called when, and what is left when it is over."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from passenger_trio.system.poller import READABLE, Poller, Ready, Registration
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.serve_readable import serve_readable


@pytest.fixture
def pair() -> Iterator[tuple[RawStream, RawStream]]:
    ours, theirs = (RawStream(sock) for sock in socket.socketpair())
    for stream in (ours, theirs):
        stream.socket.setblocking(False)
    yield ours, theirs
    ours.socket.close()
    theirs.socket.close()


class Steps(trio.abc.Instrument):
    """Counts the steps of one task."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.count = 0
        self._task = task

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


async def run(
    poller: Poller,
    pair: tuple[RawStream, RawStream],
    step: Callable[[], bool],
    pieces: int = 1,
    during: Callable[[trio.CancelScope], None] = lambda scope: None,
) -> int:
    """Serve while so many pieces come. Returns the steps of the task until it went on."""
    ours, theirs = pair
    scope = trio.CancelScope()
    steps: Steps | None = None

    async def task() -> None:
        nonlocal steps
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        try:
            with scope:
                await serve_readable(poller, ours, step)
        finally:
            trio.lowlevel.remove_instrument(steps)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            for _ in range(pieces):
                await trio.testing.wait_all_tasks_blocked()
                theirs.send_nowait(b"x")
            await trio.testing.wait_all_tasks_blocked()
            during(scope)
    assert steps is not None
    return steps.count


async def test_the_task_is_woken_when_the_step_says_so(pair: tuple[RawStream, RawStream]) -> None:
    poller, left = Poller(trio.current_time), 20

    def step() -> bool:
        nonlocal left
        left -= len(pair[0].recv_nowait())
        return not left

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        assert await run(poller, pair, step, 20) == 1
        assert (left, pair[0].registration) == (0, None)
        nursery.cancel_scope.cancel()


async def test_what_a_step_raises_is_raised_in_the_task(pair: tuple[RawStream, RawStream]) -> None:
    poller = Poller(trio.current_time)

    def step() -> bool:
        raise KeyError("the test's")

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        with pytest.raises(BaseExceptionGroup) as raised:
            await run(poller, pair, step)
        assert raised.group_contains(KeyError, match="the test's")
        assert pair[0].registration is None
        nursery.cancel_scope.cancel()


async def test_after_a_cancellation_no_step_is_called_and_no_byte_is_lost(pair: tuple[RawStream, RawStream]) -> None:
    poller, calls = Poller(trio.current_time), 0

    def step() -> bool:
        nonlocal calls
        calls += 1
        pair[0].recv_nowait(1)
        return False

    def during(scope: trio.CancelScope) -> None:
        pair[1].send_nowait(b"yz")
        scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        await run(poller, pair, step, 1, during)
        await trio.testing.wait_all_tasks_blocked()
        assert (calls, pair[0].registration, pair[0].recv_nowait()) == (1, None, b"yz")
        nursery.cancel_scope.cancel()


async def test_a_stream_that_a_step_gives_away_stays_its_new_owners(pair: tuple[RawStream, RawStream]) -> None:
    poller = Poller(trio.current_time)
    ours, theirs = pair
    heard: list[bytes] = []

    def step() -> bool:
        ours.recv_nowait()
        assert ours.registration is not None
        ours.registration.on_ready = lambda events: heard.append(ours.recv_nowait())
        return True

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        await run(poller, pair, step)
        theirs.send_nowait(b"later")
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [b"later"]
        assert ours.registration is not None
        assert ours.registration.failed is None, "the task that has gone on is not woken for it"
        nursery.cancel_scope.cancel()


async def test_a_step_may_close_the_stream(pair: tuple[RawStream, RawStream]) -> None:
    poller = Poller(trio.current_time)

    def step() -> bool:
        pair[0].close()
        return True

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        assert await run(poller, pair, step) == 1
        nursery.cancel_scope.cancel()


class Full(Poller):
    """The kernel watches no socket for it."""

    def register(self, fd: int, events: int, ready: Ready, failed: Callable[[], None] | None = None) -> Registration:
        raise OSError("no")


async def test_where_the_poller_takes_no_socket_the_task_waits_by_itself(pair: tuple[RawStream, RawStream]) -> None:
    got: list[bytes] = []

    def step() -> bool:
        got.append(pair[0].recv_nowait())
        return False

    await run(Full(trio.current_time), pair, step)
    assert got == [b"x"], "and is woken after each step"


async def test_the_task_goes_on_when_the_poller_has_lost_the_stream(pair: tuple[RawStream, RawStream]) -> None:
    poller = Poller(trio.current_time)

    def lose(_: trio.CancelScope) -> None:
        registration = pair[0].registration
        assert registration is not None
        assert registration.failed is not None
        registration.unregister()
        registration.failed()

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        await run(poller, pair, lambda: False, 0, lose)
        assert pair[0].registration is None
        pair[0].registration = poller.register(pair[0].fd, READABLE, print)
        nursery.cancel_scope.cancel()
