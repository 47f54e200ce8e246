"""OP13: which process a request of a sticky session gets, and for which it waits."""

from __future__ import annotations

from driven_pool import SHOP, DrivenPool

from passenger_trio.core.commands import Command, Grant, Reason, Refuse
from passenger_trio.core.model import ProcessId, WaiterId


def ask(pool: DrivenPool, waiter: int, wanted: ProcessId, avoided: ProcessId | None = None) -> list[Command]:
    commands = pool.policy.checkout(WaiterId(waiter), SHOP, pool.now, avoided, wanted)
    return pool.checked(commands)


def a_pool(**limits: int) -> tuple[DrivenPool, ProcessId, ProcessId]:
    pool = DrivenPool(max_pool_size=2)
    pool.add(warm=2, **limits)
    first, second = pool.processes()
    return pool, first, second


def test_the_wanted_process_is_chosen_before_a_less_busy_one() -> None:
    pool, _, second = a_pool(force_concurrency=5)
    for number in range(3):
        (grant,) = ask(pool, 100 + number, second)
        assert isinstance(grant, Grant)
        assert grant.process == second


def test_a_request_waits_for_its_process_while_another_is_idle() -> None:
    """And whoever takes any process is not kept waiting by it, nor refused because it fills the queue."""
    pool, first, second = a_pool(max_request_queue_size=1)
    (held,) = ask(pool, 100, second)
    assert isinstance(held, Grant)
    assert ask(pool, 101, second) == []
    (other,) = pool.checkout()
    assert isinstance(other, Grant)
    assert other.process == first
    (full,) = ask(pool, 102, second)
    assert isinstance(full, Refuse)
    assert full.reason is Reason.QUEUE_FULL
    (grant,) = pool.close(held.session)
    assert isinstance(grant, Grant)
    assert (grant.waiter, grant.process) == (101, second)


def test_waiting_for_a_process_starts_no_other() -> None:
    pool = DrivenPool(max_pool_size=3)
    pool.add(warm=2)
    _, second = pool.processes()
    ask(pool, 100, second)
    assert ask(pool, 101, second) == []
    assert pool.attempts() == []


def test_when_the_process_leaves_any_other_will_do() -> None:
    pool, first, second = a_pool()
    ask(pool, 100, second)
    ask(pool, 101, second)
    commands = pool.checked(pool.policy.detach(second, pool.now))
    grants = [command for command in commands if isinstance(command, Grant)]
    assert [(grant.waiter, grant.process) for grant in grants] == [(101, first)]


def test_a_process_that_left_the_request_unanswered_is_avoided_although_it_is_wanted() -> None:
    """R30 comes before the cookie."""
    pool, first, second = a_pool()
    (grant,) = ask(pool, 100, second, avoided=second)
    assert isinstance(grant, Grant)
    assert grant.process == first


def test_a_process_that_is_unknown_or_of_another_group_is_no_wish() -> None:
    pool, first, _ = a_pool()
    (grant,) = ask(pool, 100, ProcessId(999))
    assert isinstance(grant, Grant)
    assert grant.process == first
