"""OP14, OP16: processes out of routing, for out-of-band work or by an operator's order."""

from __future__ import annotations

from driven_pool import SHOP, DrivenPool, granted

from passenger_trio.core.commands import Command, Grant, Reason, Retire, RunOobWork, StartSpawn
from passenger_trio.core.model import ProcessId, WaiterId
from passenger_trio.core.oob_work import GIVE_UP_AFTER, TIME


def want(pool: DrivenPool, process: ProcessId) -> list[Command]:
    return pool.checked(pool.policy.oob_work_wanted(process, pool.now))


def ended(pool: DrivenPool, process: ProcessId, succeeded: bool = True) -> list[Command]:
    return pool.checked(pool.policy.oob_work_ended(process, succeeded, pool.now))


def a_pool(warm: int = 2, **limits: int) -> tuple[DrivenPool, list[ProcessId]]:
    pool = DrivenPool(max_pool_size=warm)
    pool.add(warm=warm, **limits)
    return pool, pool.processes()


def test_an_idle_process_works_at_once_and_comes_back() -> None:
    pool, (first, second) = a_pool()
    assert want(pool, first) == [RunOobWork(first, TIME)]
    assert want(pool, first) == []
    assert pool.take().process == second
    assert pool.nowait() is None
    assert ended(pool, first) == []
    assert pool.take().process == first


def test_a_busy_process_finishes_its_sessions_first() -> None:
    pool, (first, second) = a_pool(force_concurrency=2)
    grants = [pool.take() for _ in range(4)]
    of_first = [grant for grant in grants if grant.process == first]
    assert want(pool, first) == []
    pool.close(next(grant.session for grant in grants if grant.process == second))
    pool.close(of_first[0].session)
    assert pool.take().process == second
    assert pool.close(of_first[1].session) == [RunOobWork(first, TIME)]


def test_who_avoids_the_only_other_process_takes_it_when_this_one_goes_out_of_routing() -> None:
    """Else it would wait beside a free process, which it avoids only while there is another one."""
    pool, (first, second) = a_pool()
    pool.take()
    avoiding = WaiterId(777)
    assert not pool.checked(pool.policy.checkout(avoiding, SHOP, pool.now, avoided=second))
    assert granted(want(pool, first)) == [(avoiding, second)]


def test_the_second_waits_for_its_turn() -> None:
    pool, (first, second) = a_pool()
    want(pool, first)
    assert want(pool, second) == []
    assert ended(pool, first) == [RunOobWork(second, TIME)]


def test_the_only_process_is_taken_out_when_it_is_idle() -> None:
    pool, (only,) = a_pool(1)
    session = pool.take().session
    assert want(pool, only) == []
    assert pool.close(session) == [RunOobWork(only, TIME)]
    waiter = pool.wait()
    (grant,) = ended(pool, only)
    assert isinstance(grant, Grant)
    assert grant.waiter == waiter


def test_a_process_that_becomes_the_only_one_comes_back() -> None:
    pool, (first, second) = a_pool()
    sessions = [pool.take().session for _ in range(2)]
    assert want(pool, first) == []
    pool.checked(pool.policy.process_exited(second, pool.now, 0.0))
    assert pool.policy.next_deadline() <= pool.now
    pool.checked(pool.policy.tick(pool.now))
    assert pool.policy.state.groups[SHOP].in_routing == 1
    assert pool.close(sessions[0]) == []


def test_sessions_that_do_not_end_bring_it_back() -> None:
    """OP14: a WebSocket may last for hours, and a place in the pool is not given up for so long."""
    pool, (first, _) = a_pool()
    pool.take()
    assert want(pool, first) == []
    pool.now += GIVE_UP_AFTER
    assert pool.policy.next_deadline() <= pool.now
    pool.checked(pool.policy.tick(pool.now))
    assert pool.policy.state.groups[SHOP].in_routing == 2


def test_work_that_fails_costs_the_process() -> None:
    pool, (first, _) = a_pool(min_instances=2)
    want(pool, first)
    retired, spawn = ended(pool, first, succeeded=False)
    assert retired == Retire(first, Reason.OOB_WORK)
    assert isinstance(spawn, StartSpawn)


def test_a_disabled_process_gets_nothing_until_it_is_enabled() -> None:
    """OP16."""
    pool, (first, second) = a_pool()
    assert pool.checked(pool.policy.disable(first, pool.now)) == []
    session = pool.take()
    assert session.process == second
    waiter = pool.wait()
    (grant,) = pool.checked(pool.policy.enable(first, pool.now))
    assert isinstance(grant, Grant)
    assert (grant.process, grant.waiter) == (first, waiter)


def test_the_last_process_in_routing_is_not_disabled() -> None:
    """OP16: somebody has to serve."""
    pool, (first, second) = a_pool()
    pool.policy.disable(first, pool.now)
    assert not pool.policy.may_disable(second)
    assert pool.checked(pool.policy.disable(second, pool.now)) == []
    assert pool.take().process == second


def test_a_disabled_process_is_not_retired_for_being_idle() -> None:
    """OP16: whoever disabled it wants to look at it."""
    pool, (first, second) = a_pool(min_instances=0)
    pool.policy.disable(first, pool.now)
    pool.now += 10_000
    assert pool.checked(pool.policy.tick(pool.now)) == [Retire(second, Reason.IDLE)]
