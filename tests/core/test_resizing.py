"""OP1, OP3: groups come and go and limits change, as stories; ``tests/model`` has every order of them."""

from __future__ import annotations

from driven_pool import BLOG, SHOP, WIKI, DrivenPool, granted, refused, retired, spawns

from passenger_trio.core.commands import EndGroup, Reason
from passenger_trio.core.model import WaiterId
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits


def test_a_removed_group_serves_what_it_has_and_is_forgotten() -> None:
    """OP1: removed is drained, and then gone."""
    pool = DrivenPool(max_pool_size=2)
    pool.add(SHOP, min_instances=2)
    for attempt in pool.attempts():
        pool.spawned(attempt)
    grant = pool.take()
    idle = next(iter(set(pool.policy.state.processes) - {grant.process}))
    assert retired(pool.checked(pool.policy.remove_group(SHOP, pool.now))) == [(idle, Reason.REMOVED)]
    assert pool.exits(idle) == []
    assert retired(pool.close(grant.session)) == [(grant.process, Reason.REMOVED)]
    assert pool.exits(grant.process) == [EndGroup(SHOP)]
    assert SHOP not in pool.policy.state.groups
    assert refused(pool.checkout()) == [(WaiterId(pool._last), Reason.REMOVED)]
    assert pool.policy.checkout_nowait(SHOP, pool.now) is None


def test_who_waits_for_a_removed_group_is_served_first() -> None:
    pool = DrivenPool(max_pool_size=2)
    pool.add(SHOP, min_instances=0)
    waiter = pool.wait()
    assert pool.checked(pool.policy.remove_group(SHOP, pool.now)) == []
    answered = granted(pool.spawned())
    assert [who for who, _ in answered] == [waiter]
    assert pool.policy.remove_group(SHOP, pool.now) == [], "twice is once"


def test_the_last_who_waited_leaves_and_the_group_goes() -> None:
    pool = DrivenPool(max_pool_size=2)
    pool.add(SHOP, min_instances=0)
    waiter = pool.wait()
    pool.checked(pool.policy.remove_group(SHOP, pool.now))
    pool.checked(pool.policy.abandon(waiter, pool.now))
    assert pool.failed(None) == [EndGroup(SHOP)]


def test_a_group_that_comes_back_while_it_leaves_stays() -> None:
    """LI2: and it is restarted, for it may be another application."""
    pool = DrivenPool(max_pool_size=2)
    pool.add(SHOP, min_instances=1)
    pool.spawned()
    grant = pool.take()
    pool.checked(pool.policy.remove_group(SHOP, pool.now))
    commands = pool.checked(pool.policy.add_group(SHOP, GroupLimits(min_instances=1), pool.now))
    assert spawns(commands)
    pool.spawned()
    assert pool.generations() == [2]
    pool.close(grant.session)
    pool.exits(grant.process)
    assert SHOP in pool.policy.state.groups


def test_a_smaller_pool_is_reached_by_idle_processes_first() -> None:
    """OP3: who serves a request is never ended for it."""
    pool = DrivenPool(max_pool_size=4)
    pool.add(SHOP, min_instances=1)
    pool.add(BLOG, min_instances=1)
    for _ in range(2):
        pool.wait()
    while pool.attempts() or pool.attempts(BLOG):
        pool.spawned((pool.attempts() or pool.attempts(BLOG))[0])
    before = pool.policy.state
    busy = {process.id for process in before.processes.values() if process.sessions}
    commands = pool.checked(pool.policy.change_pool_limits(PoolLimits(max_pool_size=2), pool.now))
    assert all(reason is Reason.SHRINK and process not in busy for process, reason in retired(commands))
    assert before.capacity_used <= 2
    assert all(before.groups[key].enabled for key in (SHOP, BLOG)), "the minimums stay"


def test_a_larger_pool_starts_what_waits() -> None:
    pool = DrivenPool(max_pool_size=1)
    pool.add(SHOP, min_instances=1)
    pool.spawned()
    pool.take()
    pool.wait()
    assert pool.attempts() == []
    assert spawns(pool.checked(pool.policy.change_pool_limits(PoolLimits(max_pool_size=2), pool.now))) == [
        (SHOP, Reason.DEMAND)
    ]


def test_a_group_that_comes_allows_a_replacement_that_had_no_headroom() -> None:
    """Above the hard ceiling there is room for one replacement for each group: also for a group's that was there before."""
    pool = DrivenPool(max_pool_size=2)
    for key in (SHOP, BLOG):
        pool.add(key, min_instances=1)
        pool.spawned(key=key)
        pool.take(key)
        pool.restart(key)
        pool.spawned(key=key)  # the busy process before it is on its way out
        pool.take(key)
    pool.checked(pool.policy.change_pool_limits(PoolLimits(max_pool_size=1), pool.now))
    pool.restart(SHOP)
    pool.restart(BLOG)
    before = len(pool.attempts(SHOP)) + len(pool.attempts(BLOG))
    came = spawns(pool.add(WIKI))
    assert before + len(came) == 1
    assert came, "there was no headroom before, or it is not used now"


def test_limits_change_for_processes_that_run() -> None:
    """OP3: without a restart; a lifetime counts from its start, a time to drain from when it was detached."""
    pool = DrivenPool(max_pool_size=2)
    pool.add(SHOP, min_instances=1)
    pool.spawned()
    pool.tick(50)

    def change(**limits: object) -> list[object]:
        new = GroupLimits(min_instances=1, **limits)  # type: ignore[arg-type]
        return list(pool.checked(pool.policy.change_group_limits(SHOP, new, pool.now, 0.0)))

    assert change(max_process_lifetime=60) == []
    assert spawns(pool.tick(11)) == [(SHOP, Reason.LIFETIME)]
    pool.spawned()
    for process in [p.id for p in pool.policy.state.processes.values() if p.status.value == "detached"]:
        pool.exits(process)
    grant = pool.take()
    assert change(max_requests=1) == []
    assert spawns(pool.close(grant.session)) == [(SHOP, Reason.MAX_REQUESTS)]
    pool.spawned()
    grant = pool.take()
    pool.detach(grant.process)
    change(max_drain_time=5)
    assert (grant.process, Reason.DRAIN_TIME) in retired(pool.tick(5.5))


def test_a_request_time_that_is_lifted_kills_nobody() -> None:
    pool = DrivenPool(max_pool_size=2)
    pool.add(SHOP, min_instances=1, max_request_time=5)
    pool.spawned()
    pool.take()
    pool.checked(pool.policy.change_group_limits(SHOP, GroupLimits(), pool.now, 0.0))
    assert pool.tick(100) == []
