"""The poller: one task, many sockets."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.system.poller import HUNG_UP, READABLE, WRITABLE, Poller
from passenger_trio.system.raw_stream import RawStream


def pair() -> tuple[RawStream, RawStream]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return RawStream(ours), RawStream(theirs)


async def a_moment() -> None:
    """Long for a kernel, and enough for several turns."""
    await trio.sleep(0.02)


async def test_it_tells_as_long_as_it_is_so_and_of_what_is_listened_for() -> None:
    poller = Poller(trio.current_time)
    ours, theirs = pair()
    told: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        line = ours.registration = poller.register(ours.fd, READABLE, told.append)
        await a_moment()
        assert told == []
        theirs.send_nowait(b"x")
        await a_moment()
        assert len(told) > 1
        assert set(told) == {READABLE}
        line.modify(0)
        told.clear()
        await a_moment()
        assert told == []
        line.modify(WRITABLE)
        await a_moment()
        assert set(told) == {WRITABLE}
        line.modify(0)
        told.clear()
        theirs.close()
        await a_moment()
        assert all(events & HUNG_UP for events in told)
        assert told
        ours.close()
        told.clear()
        await a_moment()
        assert told == [], "closing a stream disconnects its line"
        nursery.cancel_scope.cancel()


async def test_who_hangs_up_hears_nothing_more_also_not_in_the_same_turn() -> None:
    poller = Poller(trio.current_time)
    pairs = [pair() for _ in range(10)]
    told: list[int] = []

    def unregister_all(number: int) -> None:
        told.append(number)
        for ours, _ in pairs:
            ours.unregister()

    for number, (ours, theirs) in enumerate(pairs):
        theirs.send_nowait(b"x")
        del number, ours
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        for number, (ours, _) in enumerate(pairs):
            ours.registration = poller.register(ours.fd, READABLE, lambda events, number=number: unregister_all(number))  # type: ignore[misc]
        await a_moment()
        assert len(told) == 1
        nursery.cancel_scope.cancel()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_whoever_is_called_may_be_another_one_next_time() -> None:
    poller = Poller(trio.current_time)
    ours, theirs = pair()
    told: list[str] = []

    def first(events: int) -> None:
        told.append("first")
        assert ours.registration is not None
        ours.registration.on_ready = second

    def second(events: int) -> None:
        told.append("second")
        ours.unregister()

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        ours.registration = poller.register(ours.fd, READABLE, first)
        theirs.send_nowait(b"x")
        await a_moment()
        assert told == ["first", "second"]
        nursery.cancel_scope.cancel()
    ours.close()
    theirs.close()


async def test_others_have_their_turn_while_sockets_are_never_silent() -> None:
    poller = Poller(trio.current_time)
    ours, theirs = pair()
    calls = 0

    def busy(events: int) -> None:
        nonlocal calls
        calls += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        ours.registration = poller.register(ours.fd, WRITABLE, busy)
        for _ in range(10):
            before = calls
            await trio.lowlevel.checkpoint()
            assert calls - before <= 1000
        assert calls
        nursery.cancel_scope.cancel()
    ours.close()
    theirs.close()


async def test_nothing_can_be_connected_while_it_does_not_run() -> None:
    poller = Poller(trio.current_time)
    ours, theirs = pair()
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            poller.register(ours.fd, READABLE, print)
        assert caught.value.errno == errno.EBADF
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            ours.registration = poller.register(ours.fd, READABLE, print)
            nursery.cancel_scope.cancel()
        ours.unregister()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("error", [OSError(24, "no"), RuntimeError("no"), ExceptionGroup("some", [ValueError("no")])])
async def test_what_raises_costs_its_own_socket_and_its_owner_is_told(error: Exception) -> None:
    """KE1."""
    kernel = ErrorKernel()
    poller = Poller(trio.current_time, kernel)
    ours, theirs = pair()
    other, their_other = pair()
    told: list[str] = []

    def fail(events: int) -> None:
        raise error

    def hear(events: int) -> None:
        other.recv_nowait()
        told.append("heard")

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        ours.registration = poller.register(ours.fd, READABLE, fail, lambda: told.append("failed"))
        other.registration = poller.register(other.fd, READABLE, hear)
        theirs.send_nowait(b"x")
        await a_moment()
        assert told == ["failed"]
        their_other.send_nowait(b"x")
        await a_moment()
        assert told == ["failed", "heard"]
        assert kernel.total == 1
        nursery.cancel_scope.cancel()
    for stream in (ours, theirs, other, their_other):
        stream.close()


async def test_when_it_has_failed_and_is_run_again_who_was_connected_is() -> None:
    """KE1: no event is lost, and no socket."""
    kernel = ErrorKernel()
    fails = False

    def now() -> float:
        nonlocal fails
        if fails:
            fails = False
            raise RuntimeError("no")
        return trio.current_time()

    poller = Poller(now, kernel)
    ours, theirs = pair()
    quiet, theirs_too = pair()
    told: list[bytes] = []
    heard = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(kernel.supervise_started, "the poller", poller.run)

        def hear(events: int) -> None:
            told.append(ours.recv_nowait())
            heard.set()

        ours.registration = poller.register(ours.fd, READABLE, hear)
        quiet.registration = poller.register(quiet.fd, READABLE, lambda events: told.append(quiet.recv_nowait()))
        quiet.registration.modify(0)
        fails = True
        theirs.send_nowait(b"while it fails")
        theirs_too.send_nowait(b"not to be heard")
        with trio.fail_after(10):
            await heard.wait()
        assert told == [b"while it fails"]
        assert kernel.faults["the poller"].count == 1
        quiet.registration.modify(READABLE)
        await a_moment()
        assert told[1:] == [b"not to be heard"]
        nursery.cancel_scope.cancel()
    for stream in (ours, theirs, quiet, theirs_too):
        stream.close()


async def test_KE7_a_turn_has_a_time_and_who_was_passed_over_comes_first() -> None:
    """Each call takes the whole time of a turn: so each turn has one call, and all get theirs before anybody gets a second one."""
    clock = [0.0]
    poller = Poller(lambda: clock[0])
    pairs = [pair() for _ in range(5)]
    told: list[int] = []
    most = 0

    def answer(number: int) -> None:
        told.append(number)
        clock[0] += 1.0

    async def count() -> None:
        nonlocal most
        while True:
            before = len(told)
            await trio.lowlevel.checkpoint()
            most = max(most, len(told) - before)

    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        for number, (ours, theirs) in enumerate(pairs):
            theirs.send_nowait(b"x")
            ours.registration = poller.register(ours.fd, READABLE, lambda _, number=number: answer(number))  # type: ignore[misc]
        nursery.start_soon(count)
        with trio.fail_after(10):
            while len(told) < 20:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert most <= 2  # the order of tasks within a turn of the event loop is not told
    for first in range(0, 20, 5):
        assert set(told[first : first + 5]) == set(range(5))
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
