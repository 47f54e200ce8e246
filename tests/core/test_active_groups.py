"""OP5: thousands of groups without a process cost nothing, because only those that are active are looked at; and none of them starves."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import FrameType

from driven_pool import SHOP, DrivenPool, retired

from passenger_trio.core import active_groups, capacity, scaling, waitlist
from passenger_trio.core.commands import Command, Grant, Reason
from passenger_trio.core.model import GroupKey, PreloaderId, ProcessId, SessionOutcome, WaiterId
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits

MANY = [GroupKey(f"app{number}", "test") for number in range(1000)]
CROWD = MANY[:100]


def test_a_group_that_was_never_asked_for_is_still_and_one_with_a_minimum_is_not() -> None:
    pool = DrivenPool(max_pool_size=3)
    pool.add(min_instances=0)
    assert not pool.policy.state.active
    assert pool.policy.next_deadline() == math.inf
    pool.add(MANY[0], min_instances=1)
    assert list(pool.policy.state.active) == [MANY[0]]


def test_a_group_comes_to_rest_when_its_last_process_is_gone_and_is_started_by_the_next_request() -> None:
    pool = DrivenPool(max_pool_size=3, pool_idle_time=5.0)
    pool.add(min_instances=0, warm=1)
    [process] = pool.processes()
    assert retired(pool.tick(5.0)) == [(process, Reason.IDLE)]
    pool.exits(process)
    pool.tick(1.0)
    assert not pool.policy.state.active
    pool.wait()
    assert list(pool.policy.state.active) == [SHOP]
    assert len(pool.attempts()) == 1


def test_a_preloader_that_comes_late_is_looked_at() -> None:
    pool = DrivenPool(max_pool_size=3)
    pool.add(min_instances=0, preloads=True, max_preloader_idle_time=2.0)
    pool.policy.preloader_started(SHOP, 1, PreloaderId(1), pool.now)
    assert list(pool.policy.state.active) == [SHOP]
    assert pool.policy.next_deadline() <= pool.now + 2.0


def test_groups_that_are_still_are_taken_out_although_nothing_ever_becomes_due() -> None:
    """A server without an idle time, whose visitors leave before anything starts, has no ticks."""
    pool = PoolPolicy(PoolLimits(max_pool_size=1, pool_idle_time=0.0))
    for key in MANY:
        pool.add_group(key, GroupLimits(min_instances=0), 0.0)
    pool.checkout(WaiterId(0), MANY[0], 0.0)  # has the only place, and hangs while it starts
    most = 0
    for number, key in enumerate(MANY[1:], 1):
        pool.checkout(WaiterId(number), key, 0.0)
        pool.abandon(WaiterId(number), 0.0)
        most = max(most, len(pool.state.active))
    assert most < 50


def test_a_crowd_is_served_by_a_pool_of_three() -> None:
    """None starves: each is asked once, all in the same moment, and what is served makes room for the next."""
    pool = PoolPolicy(PoolLimits(max_pool_size=3, max_concurrent_spawns=3))
    for key in CROWD:
        pool.add_group(key, GroupLimits(min_instances=0), 0.0)
    commands: list[Command] = []
    for number, key in enumerate(CROWD):
        commands += pool.checkout(WaiterId(number), key, 0.0)
    served: list[WaiterId | None] = []
    now, processes = 0.0, 0
    while len(served) < len(CROWD) and now < 1000.0:
        now += 0.5
        commands = []
        for attempt in list(pool.state.attempts):
            processes += 1
            commands += pool.spawn_succeeded(attempt, ProcessId(processes), 1, now, 0.0)
        for session in list(pool.state.sessions):
            commands += pool.session_closed(session, SessionOutcome.DONE, now)
        for id in [id for group in pool.state.active.values() for id in group.detached]:
            commands += pool.process_exited(id, now, 0.0)
        commands += pool.tick(now)
        served += [command.waiter for command in commands if isinstance(command, Grant)]
    assert sorted(waiter for waiter in served if waiter is not None) == list(range(len(CROWD)))


def test_the_least_recently_used_gives_way() -> None:
    pool = DrivenPool(max_pool_size=3)
    for key in MANY[:4]:
        pool.add(key, min_instances=0)
    for key in MANY[:3]:
        pool.wait(key)
        [grant] = [command for command in pool.spawned(key=key) if isinstance(command, Grant)]
        pool.now += 1.0
        pool.close(grant.session)
    pool.close(pool.take(MANY[0]).session)  # used again: now the second one is the longest idle
    [second] = pool.processes(MANY[1])
    assert retired(pool.checkout(MANY[3])) == [(second, Reason.MAKE_ROOM)]


def looks(step: Callable[[], object]) -> int:
    """How many groups a step of the policy looks at."""
    count = 0
    asked = {one.__code__ for one in (scaling.wants, waitlist.overdue, capacity.is_starved, active_groups.only_waits)}

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code in asked

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return count


def test_OP5_while_others_load_a_thousand_that_wait_are_not_looked_at_with_each_step() -> None:
    """A step costs what changes by it: the start of a process looks at each group once, every other step at a few."""
    pool = PoolPolicy(PoolLimits(max_pool_size=3, max_concurrent_spawns=2))
    for key in MANY:
        pool.add_group(key, GroupLimits(min_instances=0), 0.0)
    arrivals = [
        looks(lambda n=number, key=key: pool.checkout(WaiterId(n), key, 0.0)) for number, key in enumerate(MANY)
    ]
    assert sum(arrivals) < 3 * len(MANY)
    assert len(pool.state.attempts) == 3
    assert looks(lambda: pool.enable(ProcessId(99), 0.1)) == 0
    [first, *_] = pool.state.attempts
    starts = looks(lambda: pool.spawn_succeeded(first, ProcessId(1), 1, 0.2, 0.0))
    assert starts <= len(MANY) + 10  # the slot is free for one of them: each is looked at once
    [session] = pool.state.sessions
    served = looks(lambda: pool.session_closed(session, SessionOutcome.DONE, 0.3))
    assert served <= len(MANY) + 10


def test_OP5_a_step_looks_at_as_many_groups_with_a_thousand_that_wait_as_with_ten() -> None:
    """A served application looked at all that waited: 24 ms of the loop with 1 000 of them, 96 with 4 000."""
    few, many = (looks_of_a_served_one(MANY[:count]) for count in (10, 1000))
    assert many == few
    assert max(many.values()) <= 20


def looks_of_a_served_one(keys: list[GroupKey]) -> dict[str, int]:
    """How many groups are looked at by each step in the life of a process in a full pool for which all of them wait."""
    pool = PoolPolicy(PoolLimits(max_pool_size=3, max_concurrent_spawns=2))
    for key in keys:
        pool.add_group(key, GroupLimits(min_instances=0), 0.0)
    found = {
        "asked": max(looks(lambda n=n, key=key: pool.checkout(WaiterId(n), key, 0.0)) for n, key in enumerate(keys))
    }
    first = next(iter(pool.state.attempts))
    found["started"] = looks(lambda: pool.spawn_succeeded(first, ProcessId(1), 1, 0.2, 0.0))
    [session] = pool.state.sessions
    found["tick"] = looks(lambda: pool.tick(0.25))
    found["deadline"] = looks(pool.next_deadline)
    found["served"] = looks(lambda: pool.session_closed(session, SessionOutcome.DONE, 0.3))
    found["exited"] = looks(lambda: pool.process_exited(ProcessId(1), 0.4, 0.0))
    found["left"] = looks(lambda: pool.abandon(WaiterId(len(keys) - 1), 0.5))
    found["late"] = looks(lambda: pool.tick(1.5))
    assert len(pool.state.waiting) >= len(keys) - 5
    return found
