"""The wait within a turn of the poller: what it saves, and that nobody waits for longer because of it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from passenger_trio.system import poller as module
from passenger_trio.system import turn_wait
from passenger_trio.system.poller import READABLE, Poller
from passenger_trio.system.turn_wait import TurnWait, deadlines_of_trio, epoll_set_that_watches

LONG = 20_000
"""Milliseconds: longer than any test may take."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait lasts until something ends it."""
    monkeypatch.setattr(turn_wait, "_MOST", LONG / 1000)
    monkeypatch.setattr(module, "_TURN_TIME", LONG / 1000)


class Passes(trio.abc.Instrument):
    """Counts the passes of Trio's loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.usefixtures("long_waits")
async def test_an_answer_that_comes_soon_takes_no_pass_of_trio(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    poller = Poller(time.monotonic)
    passes, counted, left = Passes(), 0, 40
    over = trio.Event()

    def asked(events: int) -> None:
        nonlocal left, counted
        ours.recv(1)
        left -= 1
        if left == 20:
            passes.count = 0
        if left:
            poller.answer_expected = True
            ours.send(b"?")
        else:
            counted = passes.count
            over.set()

    def echo() -> None:
        while theirs.recv(1):
            time.sleep(0.001)
            theirs.send(b"!")

    thread = threading.Thread(target=echo)
    thread.start()
    trio.lowlevel.add_instrument(passes)
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(poller.run)
                poller.register(ours.fileno(), READABLE, asked)
                ours.send(b"?")
                await over.wait()
                nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(passes)
        ours.close()
        thread.join()
    assert counted == 0


@pytest.mark.usefixtures("long_waits")
async def test_a_task_that_an_event_wakes_runs_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    poller = Poller(time.monotonic)
    for round_ in range(3):  # the first time in which Trio's set is known is the second turn
        woken = trio.Event()

        def wake(events: int, woken: trio.Event = woken) -> None:
            ours.recv(1)
            woken.set()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(poller.run)
                poller.register(ours.fileno(), READABLE, wake)
                theirs.send(b"x")
                await woken.wait()
                poller.unregister(ours.fileno())
                nursery.cancel_scope.cancel()
        assert woken.is_set(), round_


@pytest.mark.usefixtures("long_waits")
@pytest.mark.parametrize("what", ["a socket", "a thread", "a deadline that a thread moves"])
async def test_what_trio_waits_for_ends_the_wait(pair: tuple[socket.socket, socket.socket], what: str) -> None:
    ours, theirs = pair
    mine, others = socket.socketpair()
    mine.setblocking(False)
    poller = Poller(time.monotonic)
    in_turn = threading.Event()
    token = trio.lowlevel.current_trio_token()
    scope = trio.CancelScope()

    def heard(events: int) -> None:
        ours.recv(1)
        in_turn.set()  # what comes next is the wait

    def from_outside() -> None:
        in_turn.wait()
        time.sleep(0.05)
        if what == "a socket":
            others.send(b"x")
        elif what == "a deadline that a thread moves":
            token.run_sync_soon(scope.cancel)

    async def wait_for_it() -> None:
        with scope:
            if what == "a socket":
                await trio.lowlevel.wait_readable(mine)
            elif what == "a thread":
                await trio.to_thread.run_sync(from_outside)
            else:
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()

    thread = threading.Thread(target=from_outside if what != "a thread" else int)
    thread.start()
    with mine, others, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            poller.register(ours.fileno(), READABLE, heard)
            nursery.start_soon(wait_for_it)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(b"x")
    thread.join()


@pytest.mark.usefixtures("long_waits")
async def test_a_deadline_that_a_step_moves_ends_the_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    """The step belongs to no task, so nothing but the wait itself can see that something is due earlier now."""
    ours, theirs = pair
    poller = Poller(time.monotonic)
    for round_ in range(3):  # the first turn does not wait
        scope = trio.CancelScope(deadline=trio.current_time() + 3600)

        def heard(events: int, scope: trio.CancelScope = scope) -> None:
            ours.recv(1)
            scope.deadline = trio.current_time() + 0.02

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(poller.run)
                poller.register(ours.fileno(), READABLE, heard)
                theirs.send(b"x")
                with scope:
                    await trio.sleep_forever()
                poller.unregister(ours.fileno())
                nursery.cancel_scope.cancel()
        assert scope.cancelled_caught, round_


@pytest.mark.usefixtures("long_waits")
def test_ctrl_c_interrupts_the_main_task_and_not_the_poller(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    in_turn = threading.Event()
    caught: list[str] = []

    def interrupt() -> None:
        in_turn.wait()
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    async def main() -> None:
        poller = Poller(time.monotonic)
        turns = 0

        def heard(events: int) -> None:
            nonlocal turns
            ours.recv(1)
            turns += 1
            if turns == 2:
                in_turn.set()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(poller.run)
                poller.register(ours.fileno(), READABLE, heard)
                try:
                    for _ in range(2):
                        await trio.testing.wait_all_tasks_blocked()
                        theirs.send(b"x")
                    await trio.sleep_forever()
                except KeyboardInterrupt:
                    caught.append("the main task")
                nursery.cancel_scope.cancel()

    thread = threading.Thread(target=interrupt)
    # Trio handles Ctrl-C only where nobody else does; importing a library of another test's (socketio) is enough for that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        trio.run(main)
    finally:
        in_turn.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert caught == ["the main task"]


def test_where_trio_does_not_tell_its_deadlines_there_is_no_wait(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []

    async def look() -> None:
        with select.epoll() as poll:
            wait = TurnWait(poll)
            poll.register(pair[0].fileno(), READABLE)
            pair[1].send(b"x")
            await trio.lowlevel.wait_readable(poll.fileno())
            wait.find_trio()
            found.append(wait._both)

    trio.run(look)
    assert found[0] is not None, "the Trio that is installed tells them"
    monkeypatch.setattr(turn_wait, "deadlines_of_trio", lambda: None)
    trio.run(look)
    assert found[1] is None
    monkeypatch.undo()
    assert deadlines_of_trio() is None, "outside of Trio there is none"


class Counting:
    """The real poll object, and how often it was asked."""

    def __init__(self, wait: TurnWait) -> None:
        assert wait._both is not None
        self._real = wait._both
        self.asked = 0
        self.milliseconds = -1
        wait._both = self  # type: ignore[assignment]

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        self.asked += 1
        self.milliseconds = milliseconds
        return self._real.poll(milliseconds)


async def waiting(poll: select.epoll, pair: tuple[socket.socket, socket.socket]) -> tuple[TurnWait, Counting]:
    """A wait for real epoll sets in which nothing happens."""
    ours, theirs = pair
    poll.register(ours.fileno(), READABLE)
    theirs.send(b"x")
    wait = TurnWait(poll)
    assert not wait.more(True), "Trio's set is not known yet"
    await trio.lowlevel.wait_readable(poll.fileno())
    wait.find_trio()
    ours.recv(1)
    return wait, Counting(wait)


async def test_what_never_comes_is_waited_for_more_and_more_rarely(pair: tuple[socket.socket, socket.socket]) -> None:
    with select.epoll() as poll:
        wait, never = await waiting(poll, pair)
        wait.before_io_wait(1.0)
        waits = []
        for _ in range(400):
            before = never.asked
            assert not wait.more(True)
            waits.append(never.asked > before)
        assert [number for number, waited in enumerate(waits) if waited] == [
            0,
            2,
            6,
            14,
            30,
            62,
            126,
            191,
            256,
            321,
            386,
        ]
        assert not wait.more(False)
        assert never.asked == 12, "what was expected and what was not are told apart"


async def test_a_wait_ends_by_the_next_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    with select.epoll() as poll:
        wait, never = await waiting(poll, pair)
        wait.before_io_wait(0.005)
        assert not wait.more(False)
        assert never.milliseconds == 5, "Trio itself would wait no longer"
        wait.before_io_wait(1.0)
        with trio.CancelScope(deadline=trio.current_time() + 0.02):  # noqa: ASYNC100
            assert not wait.more(False)
            assert never.milliseconds < 20
        assert never.asked == 2, "what ends by a deadline is not waited for in vain"


async def test_what_is_due_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    with select.epoll() as poll:
        wait, never = await waiting(poll, pair)
        wait.before_io_wait(1.0)
        with trio.CancelScope(deadline=trio.current_time() + 0.001):  # noqa: ASYNC100
            time.sleep(0.002)
            assert (wait.more(True), never.asked) == (False, 0)


async def test_where_something_of_trio_comes_first_it_is_waited_for_more_rarely(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    with select.epoll() as poll:
        wait, asked = await waiting(poll, pair)
        wait.before_io_wait(1.0)
        trio.lowlevel.current_trio_token().run_sync_soon(int)  # makes Trio's set ready
        waits = []
        for _ in range(8):
            before = asked.asked
            assert not wait.more(False)
            waits.append(asked.asked > before)
        assert [number for number, waited in enumerate(waits) if waited] == [0, 2, 6]


async def test_events_that_come_together_are_a_crowd_for_a_while() -> None:
    with select.epoll() as poll:
        wait = TurnWait(poll)
        assert [wait.is_crowded(events) for events in (1, 1, 2, *[1] * 9, 3, 1)] == [
            *(False, False, True),
            *[True] * 7,
            *(False, False),
            *(True, True),
        ]


async def test_there_is_no_wait_while_others_are_to_run(pair: tuple[socket.socket, socket.socket]) -> None:
    with select.epoll() as poll:
        wait, never = await waiting(poll, pair)
        wait.before_io_wait(0.0)
        assert not wait.more(False)
        wait.before_io_wait(0.5)
        wait.task_scheduled(trio.lowlevel.current_task())
        assert (wait.more(False), never.asked) == (False, 1), "the poller's own task is no other"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            (other,) = nursery.child_tasks
            wait.task_scheduled(other)
            assert (wait.more(True), never.asked) == (False, 1)


def test_a_guest_does_not_let_its_host_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    """docs/embedding.md: an asyncio program may run Trio as a guest."""
    found: list[object] = []

    async def guest() -> None:
        with select.epoll() as poll:
            wait = TurnWait(poll)
            poll.register(pair[0].fileno(), READABLE)
            pair[1].send(b"x")
            await trio.lowlevel.wait_readable(poll.fileno())
            wait.find_trio()
            found.append(wait._both)

    async def host() -> None:
        over = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=over.set_result,
        )
        (await over).unwrap()

    asyncio.run(host())
    assert found == [None]
    trio.run(guest)
    assert found[1] is not None, "the same code finds it where Trio is the host"


def test_an_epoll_set_is_found_by_what_it_watches(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with select.epoll() as one, select.epoll() as other:
        one.register(ours.fileno(), READABLE)
        other.register(theirs.fileno(), READABLE)
        assert epoll_set_that_watches(ours.fileno()) == one.fileno()
        assert epoll_set_that_watches(theirs.fileno()) == other.fileno()
        one.unregister(ours.fileno())
        assert epoll_set_that_watches(ours.fileno()) is None


def test_without_proc_there_is_none(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(path: str) -> list[str]:
        raise FileNotFoundError(path)

    with select.epoll() as poll:
        poll.register(pair[0].fileno(), READABLE)
        monkeypatch.setattr(os, "listdir", no_proc)
        assert epoll_set_that_watches(pair[0].fileno()) is None
