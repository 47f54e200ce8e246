"""The pool's clock: it wakes when something is due, not before, not later, and it never spins."""

from __future__ import annotations

import math

import trio
import trio.testing
from trio.testing import MockClock

from passenger_trio.pool.clock import Clock

FLOOR = 0.01


class Due:
    """Something that is due at times that a test sets."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.ticks: list[float] = []
        self.begun = trio.current_time()
        self.asked = 0
        self.clock = Clock(self.next_deadline, self.tick)

    def next_deadline(self) -> float:
        self.asked += 1
        return self.begun + self.times[0] if self.times else math.inf

    def tick(self, now: float) -> None:
        self.ticks.append(round(now - self.begun, 6))
        while self.times and self.begun + self.times[0] <= now:
            self.times.pop(0)
        self.clock.recheck()

    def set(self, *times: float) -> None:
        self.times = list(times)
        self.clock.recheck()


class Stuck(Due):
    """Something that stays due: a bug of the policy, which must not become a busy loop."""

    def tick(self, now: float) -> None:
        self.ticks.append(round(now - self.begun, 6))
        self.clock.recheck()


async def run(due: Due, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await due.clock.run()


async def test_it_ticks_when_something_is_due(autojump_clock: MockClock) -> None:
    due = Due(1.0, 2.5, 100.0)
    await run(due, 50)
    assert due.ticks == [1.0, 2.5]


async def test_when_nothing_is_due_it_sleeps(autojump_clock: MockClock) -> None:
    due = Due()
    await run(due, 1e6)
    assert due.ticks == []
    assert due.asked <= 2


async def test_a_deadline_that_comes_forward_is_heard(autojump_clock: MockClock) -> None:
    due = Due(100.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, due, 50)
        await trio.sleep(1)
        due.set(3.0)
    assert due.ticks == [3.0]


async def test_a_deadline_that_goes_back_is_heard(autojump_clock: MockClock) -> None:
    due = Due(3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, due, 50)
        await trio.sleep(1)
        due.set(20.0)
        await trio.sleep(5)
        due.set(30.0)
        await trio.sleep(5)
        due.set()
    assert due.ticks == []


async def test_a_deadline_that_has_passed_is_now(autojump_clock: MockClock) -> None:
    due = Due()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, due, 50)
        await trio.sleep(5)
        due.set(4.0)
    assert due.ticks == [5.0]


async def test_rechecking_before_it_runs_is_harmless(autojump_clock: MockClock) -> None:
    due = Due(3.0)
    due.clock.recheck()
    await run(due, 5)
    due.clock.recheck()
    assert due.ticks == [3.0]


async def test_what_stays_due_does_not_make_it_spin(autojump_clock: MockClock) -> None:
    due = Stuck(1.0)
    await run(due, 2.0)
    assert 90 <= len(due.ticks) <= 101
    assert all(later - earlier >= FLOOR * 0.99 for earlier, later in zip(due.ticks, due.ticks[1:], strict=False))


async def test_what_stays_due_does_not_make_it_spin_although_it_is_told_to_look_again(
    autojump_clock: MockClock,
) -> None:
    due = Stuck(1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, due, 1.2)
        for _ in range(2000):
            due.clock.recheck()
            await trio.sleep(0.0006)
    assert all(later - earlier >= FLOOR * 0.99 for earlier, later in zip(due.ticks, due.ticks[1:], strict=False))


async def test_two_things_closer_than_the_floor_are_both_seen(autojump_clock: MockClock) -> None:
    due = Due(1.0, 1.001)
    await run(due, 2.0)
    assert due.ticks == [1.0, 1.01]


class Busy(Due):
    """A deadline that takes long to read."""

    def __init__(self, *times: float) -> None:
        super().__init__(*times)
        self.clock = Clock(self.next_deadline, self.tick, lambda: True)


async def test_OP5_a_slow_deadline_is_read_once_for_the_facts_of_one_pass(autojump_clock: MockClock) -> None:
    due = Busy()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(due.clock.run)
        await trio.testing.wait_all_tasks_blocked()
        before = due.asked
        for seconds in range(1000, 0, -1):
            due.set(float(seconds))
        await trio.testing.wait_all_tasks_blocked()
        assert due.asked - before == 1
        await trio.sleep(1.5)
        assert due.ticks == [1.0]
        due.clock.stop()


async def test_OP5_what_is_due_is_done_however_many_facts_come(autojump_clock: MockClock) -> None:
    due = Busy(0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(due.clock.run)
        for _ in range(10):
            due.clock.recheck()
            await trio.lowlevel.checkpoint()
        assert due.ticks
        due.clock.stop()
