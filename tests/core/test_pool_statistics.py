"""What the pool tells about itself."""

from __future__ import annotations

import attrs
import pytest
from driven_pool import BLOG, FAILURE, SHOP, DrivenPool

from passenger_trio.core.commands import Reason
from passenger_trio.core.model import PreloaderId
from passenger_trio.core.state import EnabledStatus


def test_a_pool_tells_about_its_groups_and_processes() -> None:
    pool = DrivenPool(max_pool_size=2, pool_idle_time=10.0)
    pool.add(min_instances=0, warm=2)
    first, second = pool.processes()
    pool.now += 20.0
    pool.take()
    pool.tick()
    statistics = pool.policy.statistics()
    assert (statistics.capacity_used, statistics.detached) == (1, 1)
    [group] = statistics.groups
    assert group.key == SHOP
    assert [(p.id, p.state, p.sessions, p.processed) for p in group.processes] == [
        (first, EnabledStatus.ENABLED, 1, 1),
        (second, EnabledStatus.DETACHED, 0, 1),
    ]
    assert group.processes[0].since == pool.now - 20.0
    assert group.processes[0].last_used == pool.now


def test_a_group_tells_about_its_queue_and_its_attempts() -> None:
    pool = DrivenPool()
    pool.add(min_instances=0)
    pool.wait()
    [group] = pool.policy.statistics().groups
    assert group.queue_length == 1
    assert [(attempt.reason, attempt.begun) for attempt in group.attempts] == [(Reason.DEMAND, pool.now)]
    assert (group.preloader, group.failures, group.backing_off_until, group.last_failure) == (False, 0, None, None)


def test_a_group_tells_about_its_troubles_until_it_is_well_again() -> None:
    pool = DrivenPool(backoff_first=4.0)
    pool.add(min_instances=1)
    pool.failed()
    [group] = pool.policy.statistics().groups
    assert (group.failures, group.backing_off_until, group.last_failure) == (1, pool.now + 4.0, FAILURE)
    pool.tick_at_deadline()
    pool.spawned()
    pool.close(pool.take().session)
    [group] = pool.policy.statistics().groups
    assert (group.failures, group.backing_off_until, group.last_failure) == (0, None, None)


def test_statistics_do_not_change_when_the_pool_does() -> None:
    pool = DrivenPool()
    pool.add(warm=1)
    before = pool.policy.statistics()
    pool.take()
    assert before.groups[0].processes[0].sessions == 0
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before.capacity_used = 9  # type: ignore[misc]


def test_a_preloader_of_any_generation_is_one() -> None:
    pool = DrivenPool()
    pool.add(min_instances=1)
    pool.spawned()
    assert not pool.policy.statistics().groups[0].preloader
    pool.policy.preloader_started(SHOP, 1, PreloaderId(1), pool.now)
    pool.restart()
    assert len(pool.policy.state.groups[SHOP].generations) == 2, "the new one has none yet"
    assert pool.policy.statistics().groups[0].preloader


def test_a_restart_that_waits_for_a_slot_is_not_held_up_by_the_ceiling() -> None:
    pool = DrivenPool(max_concurrent_spawns=1)
    pool.add(min_instances=1)
    pool.spawned()
    pool.add(BLOG, min_instances=1)
    pool.restart()
    assert [attempt.reason for attempt in pool.policy.statistics().groups[0].attempts] == []
    assert pool.policy.statistics().groups[0].restarting
    assert not pool.policy.statistics().groups[0].waits_for_room


def test_a_restart_is_held_up_by_the_ceiling_and_only_a_restart_is() -> None:
    """HO5: the pool is full of processes that are to go. That holds nothing up before a restart wants one more."""
    pool = DrivenPool(max_pool_size=1)
    pool.add(min_instances=1)
    pool.spawned()
    for _ in range(2):
        pool.take()
        pool.restart()
        pool.spawned()
    assert len(pool.policy.statistics().groups[0].processes) == 3
    assert not pool.policy.statistics().groups[0].waits_for_room
    pool.restart()
    assert pool.policy.statistics().groups[0].waits_for_room
