"""Whom routing chooses."""

from __future__ import annotations

import bisect

import pytest
from driven_pool import SHOP, DrivenPool
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core import routing
from passenger_trio.core.invariants import check
from passenger_trio.core.model import ProcessId, SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import GroupState, PoolState, ProcessState


def a_group(*concurrencies: int) -> GroupState:
    """A group of processes that are attached in this order and numbered from 0."""
    pool = PoolState(PoolLimits(max_pool_size=1000))
    pool.groups[SHOP] = group = GroupState(SHOP, GroupLimits())
    for number, concurrency in enumerate(concurrencies):
        process = ProcessState(ProcessId(number), group, concurrency, number, 0.0, 0.0)
        routing.attach(pool, process)
    return group


def takes(group: GroupState, times: int) -> list[int | None]:
    taken = [routing.take_least_busy(group) for _ in range(times)]
    return [process and process.id for process in taken]


def test_of_equally_busy_processes_the_oldest_is_chosen() -> None:
    assert takes(a_group(1, 1, 1), 4) == [0, 1, 2, None]


def test_the_least_busy_process_is_chosen() -> None:
    group = a_group(2, 2, 2)
    assert takes(group, 5) == [0, 1, 2, 0, 1]
    routing.give_back(group.enabled[ProcessId(1)])
    routing.give_back(group.enabled[ProcessId(1)])
    assert takes(group, 3) == [1, 1, 2]


def test_busyness_is_relative_to_concurrency() -> None:
    assert takes(a_group(1, 4), 5) == [0, 1, 1, 1, 1]


def test_a_process_without_a_limit_is_never_totally_busy_and_preferred_when_others_work() -> None:
    assert takes(a_group(2, 0), 6) == [0, 1, 1, 1, 1, 1]


def test_no_process_is_chosen_when_all_are_totally_busy_or_there_is_none() -> None:
    assert takes(a_group(1), 2) == [0, None]
    assert takes(a_group(), 1) == [None]


def test_a_process_that_gets_free_again_has_its_old_place() -> None:
    group = a_group(1, 1)
    takes(group, 2)
    routing.give_back(group.enabled[ProcessId(1)])
    routing.give_back(group.enabled[ProcessId(0)])
    assert takes(group, 2) == [0, 1]


@pytest.mark.parametrize("sessions", [0, 1, 2])
def test_a_detached_process_is_not_chosen_however_busy_it_was(sessions: int) -> None:
    pool = DrivenPool()
    pool.add(min_instances=0, warm=1, concurrency=2)
    open_sessions = [pool.take().session for _ in range(sessions)]
    process = next(iter(pool.policy.state.processes.values()))
    routing.detach(pool.policy.state, process)
    assert pool.policy.checkout_nowait(SHOP, pool.now) is None
    for session in open_sessions:
        pool.close(session, SessionOutcome.DONE)
    assert pool.policy.checkout_nowait(SHOP, pool.now) is None
    check(pool.policy.state)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(0, 20), max_size=60))
def test_the_choice_is_that_of_a_pool_that_looks_at_everyone(concurrencies: list[int], steps: list[int]) -> None:
    group = a_group(*concurrencies)
    processes = list(group.enabled.values())
    for step in steps:
        if step < 12:
            free = [p for p in processes if not p.concurrency or p.sessions < p.concurrency]
            naive = min(free, key=lambda p: (p.sessions / (p.concurrency or 2**31), p.order), default=None)
            assert routing.take_least_busy(group) is naive
        else:
            process = processes[step % len(processes)]
            if process.sessions:
                routing.give_back(process)


def test_a_choice_looks_at_few_processes_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counted(process: ProcessState) -> float:
        nonlocal looked
        looked += 1
        return process.sessions / (process.concurrency or 2**31)

    group = a_group(*[4] * 1000)
    monkeypatch.setattr(routing, "busyness", counted)
    for _ in range(100):
        process = routing.take_least_busy(group)
        assert process is not None
        routing.give_back(process)
    assert looked == 200
    assert bisect.bisect_left(group.free, group.free[-1]) == 999


def test_an_uncounted_session_takes_no_room_and_makes_none() -> None:
    group = a_group(1, 1)
    assert takes(group, 1) == [0]
    routing.set_uncounted(group.enabled[ProcessId(0)])
    # Equally busy but for that: the other one comes first.
    assert takes(group, 3) == [1, 0, None]
    routing.give_back_uncounted(group.enabled[ProcessId(0)])
    assert takes(group, 1) == [None]
    routing.give_back(group.enabled[ProcessId(0)])
    assert takes(group, 2) == [0, None]


def test_room_is_counted_without_uncounted_sessions() -> None:
    """Also where more of them are open than the process takes of others."""
    group = a_group(2)
    process = group.enabled[ProcessId(0)]
    for _ in range(3):
        assert takes(group, 1) == [0]
        routing.set_uncounted(process)
    assert takes(group, 3) == [0, 0, None]
    routing.give_back_uncounted(process)
    assert takes(group, 1) == [None]
    routing.give_back(process)
    routing.give_back_uncounted(process)
    assert takes(group, 2) == [0, None]


def test_uncounted_sessions_are_spread() -> None:
    group = a_group(1, 1, 1)
    chosen = []
    for _ in range(6):
        chosen += takes(group, 1)
        routing.set_uncounted(group.enabled[ProcessId(chosen[-1] or 0)])
    assert chosen == [0, 1, 2, 0, 1, 2]
