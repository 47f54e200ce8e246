"""A process that is to go has a time for the requests in hand, and not for ever (fault 19)."""

from __future__ import annotations

import math

from driven_pool import SHOP, DrivenPool, retired

from passenger_trio.core.commands import Command, Reason, Retire, StillDraining
from passenger_trio.core.drain_time import LATE, NOTICE
from passenger_trio.core.model import SessionOutcome


def a_draining_pool(**limits: float) -> tuple[DrivenPool, int, int]:
    """With a process that was detached while it was busy; its id and its session's."""
    pool = DrivenPool()
    pool.add(min_instances=1, **limits)
    pool.spawned()
    grant = pool.take()
    pool.detach(grant.process)
    return pool, grant.process, grant.session


def told(commands: list[Command]) -> list[StillDraining]:
    return [command for command in commands if isinstance(command, StillDraining)]


def test_at_the_end_of_its_time_it_is_told_to_go_although_it_is_busy() -> None:
    """Fault 19."""
    pool, old, _ = a_draining_pool(max_drain_time=60.0)
    assert retired(pool.tick(59.9)) == []
    assert pool.policy.next_deadline() == 1060.0
    assert retired(pool.tick_at_deadline()) == [(old, Reason.DRAIN_TIME)]
    assert retired(pool.tick(3600.0)) == [], "once"


def test_what_ends_in_time_goes_with_its_last_session() -> None:
    pool, old, session = a_draining_pool(max_drain_time=60.0)
    pool.tick(59.0)
    assert pool.close(session) == [Retire(old, Reason.DETACHED)]
    assert retired(pool.tick(3600.0)) == []


def test_a_session_that_ends_after_that_retires_nothing_twice() -> None:
    for outcome in SessionOutcome:
        pool, old, session = a_draining_pool(max_drain_time=60.0)
        assert retired(pool.tick(60.0)) == [(old, Reason.DRAIN_TIME)]
        assert retired(pool.close(session, outcome)) == []
        pool.exits(old)


def test_people_are_told_once_that_it_takes_long() -> None:
    pool, old, _ = a_draining_pool(max_drain_time=60.0)
    assert told(pool.tick(NOTICE - 1)) == []
    assert told(pool.tick_at_deadline()) == [StillDraining(old, 1, 50.0)]
    assert told(pool.tick(10.0)) == []


def test_without_a_limit_it_is_waited_for_and_told_of() -> None:
    pool, old, _ = a_draining_pool(max_drain_time=0.0)
    assert told(pool.tick(NOTICE)) == [StillDraining(old, 1, math.inf)]
    assert retired(pool.tick(1e6)) == []


def test_of_our_own_pause_it_does_not_die() -> None:
    """F52: its response may be there to be read."""
    pool, old, _ = a_draining_pool(max_drain_time=60.0)
    pool.tick(5.0)
    assert retired(pool.tick(60.0)) == []
    assert retired(pool.tick(LATE)) == [(old, Reason.DRAIN_TIME)]


def test_one_pause_is_forgiven() -> None:
    pool, old, _ = a_draining_pool(max_drain_time=60.0)
    pool.tick(5.0)
    assert retired(pool.tick(60.0)) == []
    assert retired(pool.tick(10 * LATE)) == [(old, Reason.DRAIN_TIME)]


def test_it_holds_while_the_pool_shuts_down() -> None:
    pool, old, _ = a_draining_pool(max_drain_time=60.0)
    while pool.attempts():
        pool.spawned()
    pool.shut_down()
    assert retired(pool.tick(60.0)) == [(old, Reason.DRAIN_TIME)]


def test_statistics_say_until_when() -> None:
    pool, old, _ = a_draining_pool(max_drain_time=60.0)
    [process] = [p for p in pool.policy.statistics().groups[0].processes if p.id == old]
    assert (process.leaving, process.drained_by) == (Reason.DETACHED, 1060.0)
    assert pool.policy.statistics().groups[0].key == SHOP
