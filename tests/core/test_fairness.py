"""A greedy group cannot starve another one."""

from __future__ import annotations

import pytest
from driven_pool import BLOG, SHOP, WIKI, DrivenPool, granted, retired, spawns
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.core.commands import Detach, Grant, Reason
from passenger_trio.core.making_room import FAIR_WAIT
from passenger_trio.core.model import GroupKey, SessionId


def a_greedy_pool(size: int, concurrency: int = 1) -> tuple[DrivenPool, list[SessionId]]:
    """Full of busy processes of one group, with more requests of it waiting than will ever be served."""
    pool = DrivenPool(max_pool_size=size)
    pool.add(SHOP, min_instances=0, max_request_queue_size=0)
    pool.add(BLOG, min_instances=0)
    sessions: list[SessionId] = []
    while len(pool.processes()) < size:
        pool.wait()
        while pool.attempts():
            sessions += [c.session for c in pool.spawned(concurrency=concurrency) if isinstance(c, Grant)]
        while grant := pool.nowait():
            sessions.append(grant.session)
    for _ in range(50):
        pool.wait()
    return pool, sessions


def test_it_waits_for_an_idle_process_and_then_takes_a_busy_one_s_place() -> None:
    pool, sessions = a_greedy_pool(3)
    waiter = pool.wait(BLOG)
    assert spawns(pool.close(sessions.pop(0))) == []
    commands = pool.tick(FAIR_WAIT)
    [detached] = [command for command in commands if isinstance(command, Detach)]
    assert detached.reason is Reason.MAKE_ROOM
    assert spawns(commands) == [(BLOG, Reason.DEMAND)]
    assert granted(pool.spawned(key=BLOG)) == [(waiter, pool.processes(BLOG)[0])]


class TestBelowTheMinimum:
    """A group goes below its minimum only for one that has nobody, and has waited."""

    def test_after_the_wait_the_one_that_is_idle_the_longest_goes(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(SHOP, min_instances=1, warm=1)
        pool.add(WIKI, min_instances=1, warm=1)
        pool.add(BLOG, min_instances=0)
        [idle] = pool.processes(SHOP)
        pool.close(pool.take(WIKI).session)
        pool.wait(BLOG)
        assert pool.tick(FAIR_WAIT - 0.001) == []
        commands = pool.tick(0.001)
        assert retired(commands) == [(idle, Reason.MAKE_ROOM)]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]

    def test_a_busy_one_goes_when_it_is_done(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=1, warm=1)
        pool.add(BLOG, min_instances=0)
        busy = pool.take()
        pool.wait(BLOG)
        commands = pool.tick(FAIR_WAIT)
        assert [command.process for command in commands if isinstance(command, Detach)] == [busy.process]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]
        assert retired(pool.close(busy.session)) == [(busy.process, Reason.MAKE_ROOM)]

    def test_what_is_above_a_minimum_goes_first_although_it_is_busy(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(SHOP, min_instances=1, warm=1)
        pool.add(WIKI, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0)
        pool.take(WIKI)
        pool.wait(BLOG)
        pool.tick(FAIR_WAIT)
        assert (len(pool.processes(SHOP)), len(pool.processes(WIKI))) == (1, 0)

    def test_who_was_taken_from_gets_it_back_when_there_is_room(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=1, warm=1)
        pool.add(BLOG, min_instances=0)
        waiter = pool.wait(BLOG)
        [(first, _)] = retired(pool.tick(FAIR_WAIT))
        pool.exits(first)
        [(served, _)] = granted(pool.spawned(key=BLOG))
        assert served == waiter
        assert spawns(pool.exits(pool.processes(BLOG)[0])) == [(SHOP, Reason.MIN_INSTANCES)]

    def test_the_last_one_of_a_rejected_deployment_stays_for_it_could_not_be_had_again(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=1, warm=1)
        pool.restart()
        pool.failed()
        pool.add(BLOG, min_instances=0)
        pool.wait(BLOG)
        assert retired(pool.tick(FAIR_WAIT)) == []


def test_two_greedy_groups_take_turns() -> None:
    pool, _ = a_greedy_pool(1)
    for _ in range(50):
        pool.wait(BLOG)
    served = {SHOP: 0, BLOG: 0}
    for _ in range(200):
        for session, process in list(pool.policy.state.sessions.items()):
            served[process.group.key] += 1
            commands = pool.close(session)
            for process_id, _reason in retired(commands):
                pool.exits(process_id)
        pool.tick(0.1)
        for key in (SHOP, BLOG):
            while pool.attempts(key):
                pool.spawned(key=key)
        for key in (SHOP, BLOG):
            while len(pool.queue(key)) < 50:
                pool.wait(key)
    assert min(served.values()) >= 40, served


@settings(deadline=None)
@given(size=st.integers(1, 5), concurrency=st.integers(1, 3), period=st.sampled_from([0.05, 0.3]))
def test_whoever_is_starved_is_served_within_the_fair_wait_and_a_spawn(
    size: int, concurrency: int, period: float
) -> None:
    pool, _ = a_greedy_pool(size, concurrency)
    begun = pool.now
    waiter = pool.wait(BLOG)
    while not pool.attempts(BLOG):
        for session in list(pool.policy.state.sessions)[:2]:
            pool.close(session)
            if len(pool.queue()) < 50:
                pool.wait()
        pool.tick(period)
        assert pool.now - begun <= FAIR_WAIT + 2 * period
    assert waiter in [served for served, _ in granted(pool.spawned(key=BLOG))]


@pytest.mark.parametrize("is_old", [False, True])
def test_OP5_a_restart_comes_to_its_end_although_others_without_a_process_come_all_the_time(is_old: bool) -> None:
    """On a host of two hundred applications, with three slots and more who waited, a changed application served its old
    version for 83 seconds.
    """
    pool = DrivenPool(max_pool_size=4, max_concurrent_spawns=2)
    pool.add(SHOP, min_instances=0, warm=1)
    if is_old:  # spawns of before are nobody's turn
        for _ in range(10):
            pool.exits(pool.processes()[0])
            pool.now += 1000
            pool.tick()
            pool.wait()
            pool.spawned()
            for session in list(pool.policy.state.sessions):
                pool.close(session)
    busy = pool.take()
    strangers = [GroupKey(f"stranger{number}", "test") for number in range(40)]
    coming = iter(strangers)

    def one_more_waits() -> None:
        key = next(coming)
        pool.add(key, min_instances=0)
        pool.wait(key)

    for _ in range(3):
        one_more_waits()
    assert pool.restart(SHOP) == []
    begun = 0
    while not pool.attempts(SHOP):
        one_more_waits()
        attempt, state = next(iter(pool.policy.state.attempts.items()))
        commands = pool.spawned(attempt, key=state.group.key)
        while made_room := retired(commands):
            commands = [command for process, _ in made_room for command in pool.exits(process)]
        for session in list(pool.policy.state.sessions):
            if session != busy.session:
                for gone, _ in retired(pool.close(session)):
                    pool.exits(gone)
        begun += 1
        assert begun < 10, "it has no turn"
    assert begun > 1, "those who have nobody come first, as far as that goes"
    pool.spawned()
    assert pool.generations() == [2]
