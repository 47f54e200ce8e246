"""FR1: no process is started for a request that the idle slot of another front may serve, for some milliseconds."""

from __future__ import annotations

import pytest
from driven_pool import SHOP, DrivenPool, spawns

from passenger_trio.core.commands import Command, Grant, Reason
from passenger_trio.core.model import SessionId, SessionOutcome, WaiterId
from passenger_trio.core.waitlist import SPAWN_DELAY

FIRST, SECOND = WaiterId(91), WaiterId(92)


SLOT = SessionId(1)


@pytest.fixture
def pool() -> DrivenPool:
    """One process, whose slot is at some front."""
    pool = DrivenPool(max_pool_size=3)
    pool.add(SHOP, min_instances=1)
    pool.spawned()
    grant = pool.policy.checkout_nowait(SHOP, pool.now)
    assert grant is not None
    assert grant.session == SLOT
    return pool


def asks(pool: DrivenPool, waiter: WaiterId, lent: int) -> list[Command]:
    return pool.checked(pool.policy.checkout(waiter, SHOP, pool.now, since=pool.now, lent=lent))


def test_FR1_a_patient_waiter_starts_nothing_until_its_patience_ends(pool: DrivenPool) -> None:
    assert asks(pool, FIRST, 1) == []
    due = pool.policy.next_deadline()
    assert due == pool.now + SPAWN_DELAY
    assert spawns(pool.checked(pool.policy.tick(due - 0.001))) == []
    assert spawns(pool.checked(pool.policy.tick(due))) == [(SHOP, Reason.DEMAND)]
    assert pool.policy.next_deadline() > due


def test_FR1_one_more_than_there_are_slots_does_not_wait(pool: DrivenPool) -> None:
    assert asks(pool, FIRST, 1) == []
    assert spawns(asks(pool, SECOND, 1)) == [(SHOP, Reason.DEMAND)], "one process, and not two"


def test_FR1_the_slot_that_comes_back_serves_it_and_nothing_is_left_to_do(pool: DrivenPool) -> None:
    asks(pool, FIRST, 1)
    (grant,) = pool.checked(pool.policy.session_closed(SLOT, SessionOutcome.NOT_STARTED, pool.now))
    assert isinstance(grant, Grant)
    assert grant.waiter == FIRST
    assert spawns(pool.checked(pool.policy.tick(pool.now + SPAWN_DELAY))) == []


def test_FR1_who_has_left_is_patient_no_more(pool: DrivenPool) -> None:
    asks(pool, FIRST, 1)
    pool.checked(pool.policy.abandon(FIRST, pool.now))
    assert pool.policy.next_deadline() > pool.now + SPAWN_DELAY


def test_FR1_without_a_process_nobody_is_patient() -> None:
    pool = DrivenPool(max_pool_size=3)
    pool.add(SHOP, min_instances=0)
    assert spawns(asks(pool, FIRST, 1)) == [(SHOP, Reason.DEMAND)]


def test_FR6_a_waiter_that_stands_for_another_request_is_in_that_ones_place(pool: DrivenPool) -> None:
    """And for no more time is it patient: whoever it stands for, slots have not come."""
    policy, now = pool.policy, pool.now
    pool.checked(policy.checkout(FIRST, SHOP, now, since=now - 0.3, lent=5))
    pool.checked(policy.checkout(SECOND, SHOP, now, since=now - 0.2, lent=5))
    due = policy.next_deadline()
    policy.renew(FIRST, now - 0.1)
    assert policy.next_deadline() == due
    assert list(policy.state.waiters) == [FIRST, SECOND]
    (grant,) = pool.checked(policy.session_closed(SLOT, SessionOutcome.NOT_STARTED, now))
    assert isinstance(grant, Grant)
    assert grant.waiter == SECOND
    policy.renew(SECOND, now)  # answered meanwhile: nothing happens
    (grant,) = pool.checked(policy.session_closed(grant.session, SessionOutcome.NOT_STARTED, now))
    assert isinstance(grant, Grant)
    assert grant.waiter == FIRST
