"""The switchboard: one task, many sockets."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing

from passenger_trio.system.sockets import RawStream
from passenger_trio.system.switchboard import HUNG_UP, READABLE, WRITABLE, Switchboard


def pair() -> tuple[RawStream, RawStream]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return RawStream(ours), RawStream(theirs)


async def a_moment() -> None:
    """Long for a kernel, and enough for several turns."""
    await trio.sleep(0.02)


async def test_it_tells_as_long_as_it_is_so_and_of_what_is_listened_for() -> None:
    switchboard = Switchboard(trio.current_time)
    ours, theirs = pair()
    told: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(switchboard.run)
        line = ours.line = switchboard.connect(ours.fd, READABLE, told.append)
        await a_moment()
        assert told == []
        theirs.send_nowait(b"x")
        await a_moment()
        assert len(told) > 1
        assert set(told) == {READABLE}
        line.listen(0)
        told.clear()
        await a_moment()
        assert told == []
        line.listen(WRITABLE)
        await a_moment()
        assert set(told) == {WRITABLE}
        line.listen(0)
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
    switchboard = Switchboard(trio.current_time)
    pairs = [pair() for _ in range(10)]
    told: list[int] = []

    def hang_up_all(number: int) -> None:
        told.append(number)
        for ours, _ in pairs:
            ours.hang_up()

    for number, (ours, theirs) in enumerate(pairs):
        theirs.send_nowait(b"x")
        del number, ours
    async with trio.open_nursery() as nursery:
        await nursery.start(switchboard.run)
        for number, (ours, _) in enumerate(pairs):
            ours.line = switchboard.connect(ours.fd, READABLE, lambda events, number=number: hang_up_all(number))  # type: ignore[misc]
        await a_moment()
        assert len(told) == 1
        nursery.cancel_scope.cancel()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_whoever_is_called_may_be_another_one_next_time() -> None:
    switchboard = Switchboard(trio.current_time)
    ours, theirs = pair()
    told: list[str] = []

    def first(events: int) -> None:
        told.append("first")
        assert ours.line is not None
        ours.line.ready = second

    def second(events: int) -> None:
        told.append("second")
        ours.hang_up()

    async with trio.open_nursery() as nursery:
        await nursery.start(switchboard.run)
        ours.line = switchboard.connect(ours.fd, READABLE, first)
        theirs.send_nowait(b"x")
        await a_moment()
        assert told == ["first", "second"]
        nursery.cancel_scope.cancel()
    ours.close()
    theirs.close()


async def test_others_have_their_turn_while_sockets_are_never_silent() -> None:
    switchboard = Switchboard(trio.current_time)
    ours, theirs = pair()
    calls = 0

    def busy(events: int) -> None:
        nonlocal calls
        calls += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(switchboard.run)
        ours.line = switchboard.connect(ours.fd, WRITABLE, busy)
        for _ in range(10):
            before = calls
            await trio.lowlevel.checkpoint()
            assert calls - before <= 1000
        assert calls
        nursery.cancel_scope.cancel()
    ours.close()
    theirs.close()


async def test_nothing_can_be_connected_while_it_does_not_run() -> None:
    switchboard = Switchboard(trio.current_time)
    ours, theirs = pair()
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            switchboard.connect(ours.fd, READABLE, print)
        assert caught.value.errno == errno.EBADF
        async with trio.open_nursery() as nursery:
            await nursery.start(switchboard.run)
            ours.line = switchboard.connect(ours.fd, READABLE, print)
            nursery.cancel_scope.cancel()
        ours.hang_up()
    ours.close()
    theirs.close()
