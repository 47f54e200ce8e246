"""Each law notices when it is broken."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from driven_pool import BLOG, FIRST, SECOND, SHOP, DrivenPool

from passenger_trio.core.backoff_and_circuit import Backoff
from passenger_trio.core.commands import Reason
from passenger_trio.core.invariants import check
from passenger_trio.core.model import AttemptId, ProcessId, WaiterId
from passenger_trio.core.state import EnabledStatus, GenerationState, GroupState, PoolState
from passenger_trio.errors import InvariantBroken


def a_busy_pool() -> PoolState:
    """One group has a busy process, an idle one, and one that is on its way out; the other waits for a spawn."""
    pool = DrivenPool(max_pool_size=4, pool_idle_time=10.0)
    pool.add(SHOP, min_instances=0, warm=3, max_instances=3)
    pool.add(BLOG, min_instances=0)
    for session in [pool.take(SHOP).session, pool.take(SHOP).session][1:]:
        pool.now += 20.0
        pool.close(session)
    pool.tick()
    pool.wait(BLOG)
    return pool.policy.state


def shop(state: PoolState) -> GroupState:
    return state.groups[SHOP]


def blog(state: PoolState) -> GroupState:
    return state.groups[BLOG]


def limit(state: PoolState, **limits: float) -> None:
    for name, value in limits.items():
        object.__setattr__(state.limits, name, value)


def idle_outlives(state: PoolState) -> None:
    state.open = False


def lose_waiter(state: PoolState) -> None:
    blog(state).waiters.clear()


def wait_beside_a_free_place(state: PoolState) -> None:
    shop(state).waiters[WaiterId(9)] = 0.0
    state.waiters[WaiterId(9)] = shop(state)


def wait_for_nothing(state: PoolState) -> None:
    blog(state).attempts.clear()
    state.attempts.clear()


def out_of_order(state: PoolState) -> None:
    blog(state).waiters[WaiterId(9)] = 0.0
    state.waiters[WaiterId(9)] = blog(state)


def queue_too_long(state: PoolState) -> None:
    object.__setattr__(blog(state).limits, "max_request_queue_size", 1)
    blog(state).waiters[WaiterId(9)] = math.inf
    state.waiters[WaiterId(9)] = blog(state)


def strange_waiter(state: PoolState) -> None:
    state.waiters[next(iter(state.waiters))] = shop(state)


def gone_but_there(state: PoolState) -> None:
    next(iter(state.processes.values())).status = EnabledStatus.GONE


def uncounted_session(state: PoolState) -> None:
    next(iter(state.sessions.values())).sessions = 0


def too_many_sessions(state: PoolState) -> None:
    process = next(iter(state.sessions.values()))
    process.sessions = 2


def stale_rank(state: PoolState) -> None:
    next(iter(shop(state).enabled.values())).rank = (0.0, 0, next(iter(shop(state).enabled.values())))


@pytest.mark.parametrize(
    ("law", "breaks"),
    [
        ("conservation", uncounted_session),
        ("conservation", too_many_sessions),
        ("conservation", gone_but_there),
        ("bookkeeping", lose_waiter),
        ("bookkeeping", strange_waiter),
        ("bookkeeping", lambda state: setattr(state, "enabled_count", 7)),
        ("bookkeeping", lambda state: state.processes.pop(next(iter(state.processes)))),
        ("bookkeeping", lambda state: state.attempts.pop(AttemptId(state.last_attempt))),
        ("bookkeeping", lambda state: shop(state).generations[1].preloaders.update({FIRST: False, SECOND: False})),
        ("bookkeeping", lambda state: setattr(next(iter(shop(state).detached.values())), "leaving", Reason.IDLE)),
        ("generations", lambda state: setattr(shop(state), "generation", 2)),
        ("generations", lambda state: setattr(next(iter(shop(state).enabled.values())), "generation", 2)),
        ("generations", lambda state: shop(state).to_replace.update({ProcessId(99): Reason.RESTART})),
        ("generations", lambda state: setattr(next(iter(blog(state).attempts.values())), "counts", False)),
        ("generations", lambda state: shop(state).generations.update({7: GenerationState(7)})),
        ("within_limits", lambda state: limit(state, max_pool_size=2)),
        ("within_limits", lambda state: limit(state, max_pool_size=1)),
        ("within_limits", lambda state: limit(state, max_concurrent_spawns=0)),
        ("within_limits", lambda state: object.__setattr__(shop(state).limits, "max_instances", 1)),
        ("routing_index", lambda state: shop(state).free.clear()),
        ("routing_index", stale_rank),
        ("queues", queue_too_long),
        ("queues", out_of_order),
        ("progress", wait_beside_a_free_place),
        ("progress", wait_for_nothing),
        ("quiet", wait_for_nothing),
        ("deadlines", lambda state: setattr(shop(state), "idle_due", math.inf)),
        ("drained", idle_outlives),
        ("drained", lambda state: setattr(state, "emptied", True)),
    ],
)
def test_a_law_that_is_broken_is_named(law: str, breaks: Callable[[PoolState], object]) -> None:
    state = a_busy_pool()
    check(state)
    breaks(state)
    with pytest.raises(InvariantBroken, match=law):
        check(state)


def test_an_empty_pool_has_to_say_so() -> None:
    pool = DrivenPool()
    pool.policy.state.open = False
    with pytest.raises(InvariantBroken, match="did not say so"):
        check(pool.policy.state)


def test_a_waiter_may_wait_for_a_retry() -> None:
    pool = DrivenPool()
    pool.add(min_instances=0)
    pool.wait()
    pool.failed(None)
    check(pool.policy.state)
    pool.policy.state.groups[SHOP].backoff = Backoff()
    with pytest.raises(InvariantBroken, match="nothing will come of it"):
        check(pool.policy.state)


def test_a_bug_is_reported_with_every_law_that_it_breaks() -> None:
    pool = DrivenPool()
    pool.add(warm=1)
    pool.take()
    pool.policy.state.enabled_count = 5
    pool.policy.state.processes[ProcessId(99)] = next(iter(pool.policy.state.processes.values()))
    with pytest.raises(InvariantBroken, match=r"bookkeeping.*bookkeeping"):
        check(pool.policy.state)
