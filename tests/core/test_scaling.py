"""When a process is spawned, and which one is retired."""

from __future__ import annotations

import math

import attrs
import pytest
from driven_pool import BLOG, FIRST, MAIL, SECOND, SHOP, WIKI, DrivenPool, granted, retired, spawns

from passenger_trio.core.commands import PoolEmpty, Reason, RetirePreloader
from passenger_trio.core.model import SessionOutcome


class TestMinimum:
    def test_the_minimum_is_spawned_at_boot(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=4)
        assert spawns(pool.add(min_instances=3)) == [(SHOP, Reason.MIN_INSTANCES)] * 3

    def test_as_many_at_a_time_as_may_be_spawned_together(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=2)
        assert len(spawns(pool.add(min_instances=3))) == 2
        assert spawns(pool.spawned()) == [(SHOP, Reason.MIN_INSTANCES)]
        assert spawns(pool.spawned()) == []

    def test_a_minimum_of_zero_spawns_nothing_at_boot(self) -> None:
        assert DrivenPool().add(min_instances=0) == []

    def test_the_maximum_of_a_group_bounds_its_minimum(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=9)
        assert len(spawns(pool.add(min_instances=5, max_instances=2))) == 2

    def test_the_pool_bounds_all_minima(self) -> None:
        pool = DrivenPool(max_pool_size=3, max_concurrent_spawns=9)
        assert len(spawns(pool.add(SHOP, min_instances=2))) == 2
        assert len(spawns(pool.add(BLOG, min_instances=2))) == 1

    def test_a_minimum_that_found_no_room_is_made_up_for_when_there_is_some(self) -> None:
        pool = DrivenPool(max_pool_size=2, max_concurrent_spawns=9)
        pool.add(SHOP, min_instances=0, warm=2)
        pool.add(BLOG, min_instances=1)
        assert spawns(pool.exits(pool.processes(SHOP)[0])) == [(BLOG, Reason.MIN_INSTANCES)]


class TestDemand:
    def test_a_busy_process_alone_is_no_reason_to_spawn(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        pool.take()
        assert pool.attempts() == []

    def test_a_request_that_has_to_wait_is(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        pool.take()
        assert spawns(pool.checkout()) == [(SHOP, Reason.DEMAND)]

    def test_no_more_attempts_than_those_who_wait_call_for(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=9)
        pool.add(min_instances=0)
        pool.wait()
        assert len(pool.attempts()) == 1
        pool.wait()
        assert len(pool.attempts()) == 2

    def test_an_attempt_is_expected_to_serve_as_many_as_the_last_process_did(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=9)
        pool.add(warm=1, concurrency=4)
        while pool.nowait():
            pass
        for _ in range(4):
            pool.wait()
        assert len(pool.attempts()) == 1
        pool.wait()
        assert len(pool.attempts()) == 2

    def test_one_process_without_a_limit_is_enough(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=9)
        pool.add(min_instances=0)
        pool.wait()
        pool.spawned(concurrency=0)
        pool.exits(pool.processes()[0])
        pool.now += 60.0
        for _ in range(5):
            pool.wait()
        assert len(pool.attempts()) == 1

    @pytest.mark.parametrize(
        ("limits", "most"),
        [({"max_pool_size": 3}, 3), ({"max_pool_size": 9, "max_concurrent_spawns": 4}, 4)],
    )
    def test_demand_keeps_the_limits_of_the_pool(self, limits: dict[str, int], most: int) -> None:
        pool = DrivenPool(**{"max_concurrent_spawns": 9, **limits})
        pool.add(min_instances=0)
        for _ in range(12):
            pool.wait()
        assert len(pool.attempts()) == most

    def test_demand_keeps_the_limit_of_the_group(self) -> None:
        pool = DrivenPool(max_pool_size=9, max_concurrent_spawns=9)
        pool.add(min_instances=0, max_instances=2)
        for _ in range(12):
            pool.wait()
        assert len(pool.attempts()) == 2

    def test_a_process_that_finds_no_room_any_more_is_retired_at_once(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(min_instances=2)
        pool.spawned()
        group = pool.policy.state.groups[SHOP]
        group.limits = attrs.evolve(group.limits, max_instances=1)  # as a reload of the options would
        [(_, reason)] = retired(
            pool.policy.spawn_succeeded(pool.attempts()[0], 77, 1, pool.now)  # type: ignore[arg-type]
        )
        assert reason is Reason.SURPLUS


class TestFairness:
    def test_groups_take_turns_when_slots_get_free(self) -> None:
        pool = DrivenPool(max_pool_size=9, max_concurrent_spawns=1)
        pool.add(SHOP, min_instances=3)
        pool.add(BLOG, min_instances=3)
        pool.spawned(key=BLOG)
        started = []
        while pool.policy.state.attempts:
            [attempt] = pool.policy.state.attempts
            started += spawns(pool.spawned(attempt))
        assert [group for group, _ in started] == [SHOP, BLOG, SHOP, BLOG]

    def test_who_has_nobody_at_all_comes_first(self) -> None:
        pool = DrivenPool(max_pool_size=9, max_concurrent_spawns=1)
        pool.add(SHOP, min_instances=1)
        pool.add(BLOG, min_instances=1)
        pool.add(WIKI, min_instances=0)
        pool.wait(WIKI)
        assert spawns(pool.spawned(key=SHOP)) == [(WIKI, Reason.DEMAND)]


class TestMakingRoom:
    def test_a_group_without_processes_takes_the_place_of_the_one_idle_the_longest(self) -> None:
        pool = DrivenPool(max_pool_size=3)
        pool.add(SHOP, min_instances=0, warm=2)
        pool.add(WIKI, min_instances=0, warm=1)
        pool.now += 5.0
        first, _ = pool.processes(SHOP)
        pool.close(pool.take(SHOP).session)
        pool.close(pool.take(WIKI).session)
        pool.add(BLOG, min_instances=0)
        commands = pool.checkout(BLOG)
        [(victim, reason)] = retired(commands)
        assert reason is Reason.MAKE_ROOM
        assert victim not in pool.processes(SHOP)
        assert pool.processes(SHOP) == [first]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]

    def test_nobody_is_sent_away_while_there_is_room(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0)
        assert retired(pool.checkout(BLOG)) == []

    def test_a_group_keeps_its_minimum(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=1, warm=1)
        pool.add(BLOG, min_instances=0)
        assert pool.checkout(BLOG) == []

    def test_a_busy_process_is_taken_when_it_becomes_idle(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0)
        session = pool.take(SHOP).session
        assert pool.checkout(BLOG) == []
        commands = pool.close(session)
        assert [reason for _, reason in retired(commands)] == [Reason.MAKE_ROOM]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]

    def test_its_own_waiters_come_before_another_group(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0)
        session = pool.take(SHOP).session
        pool.wait(BLOG)
        waiter = pool.wait(SHOP)
        assert [who for who, _ in granted(pool.close(session))] == [waiter]

    def test_a_fresh_process_that_nobody_needs_any_more_makes_room(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=0)
        pool.add(BLOG, min_instances=0)
        pool.abandon(pool.wait(SHOP))
        pool.wait(BLOG)
        commands = pool.spawned(key=SHOP)
        assert [reason for _, reason in retired(commands)] == [Reason.MAKE_ROOM]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]

    def test_nobody_is_sent_away_for_a_group_that_backs_off(self) -> None:
        pool = DrivenPool(max_pool_size=1, backoff_first=10.0)
        pool.add(BLOG, min_instances=0)
        pool.wait(BLOG)
        pool.failed(key=BLOG)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.checkout(BLOG)
        assert len(pool.processes(SHOP)) == 1

    def test_nobody_is_sent_away_before_a_slot_for_the_spawn_is_free(self) -> None:
        pool = DrivenPool(max_pool_size=3, max_concurrent_spawns=1)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(WIKI, min_instances=1)
        pool.add(BLOG, min_instances=1)
        pool.add(MAIL, min_instances=0)
        assert pool.checkout(MAIL) == []
        assert [reason for _, reason in retired(pool.spawned(key=WIKI))] == [Reason.MAKE_ROOM]

    def test_a_retired_process_gives_its_place_at_once_but_counts_in_the_hard_ceiling(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0)
        pool.add(WIKI, min_instances=0)
        [(first, _)] = retired(pool.checkout(BLOG))
        [grant] = pool.spawned(key=BLOG)
        pool.close(grant.session)  # type: ignore[union-attr]
        assert pool.checkout(WIKI) == []  # two exist already, and none of them is gone
        commands = pool.exits(first)
        assert [reason for _, reason in retired(commands)] == [Reason.MAKE_ROOM]
        assert spawns(commands) == [(WIKI, Reason.DEMAND)]

    def test_the_exit_of_a_retired_process_is_a_chance_and_not_a_loss(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0)
        [(first, _)] = retired(pool.checkout(BLOG))
        pool.spawned(key=BLOG)
        pool.wait(SHOP)
        blogs = pool.processes(BLOG)[0]
        assert spawns(pool.exits(blogs)) == [(SHOP, Reason.DEMAND)]
        pool.failed(None, key=SHOP)
        pool.now += 60.0
        assert spawns(pool.exits(first)) == [(SHOP, Reason.RETRY)]


class TestIdleness:
    def test_an_idle_process_is_retired_exactly_when_it_is_due(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(min_instances=0, warm=1)
        assert pool.policy.next_deadline() == pool.now + 10.0
        assert pool.tick(9.999) == []
        assert [reason for _, reason in retired(pool.tick_at_deadline())] == [Reason.IDLE]
        assert pool.policy.next_deadline() == math.inf

    def test_a_process_that_was_used_in_between_stays(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(min_instances=0, warm=1)
        pool.now += 6.0
        pool.close(pool.take().session)
        assert pool.tick_at_deadline() == []
        assert pool.policy.next_deadline() == pool.now + 6.0
        assert len(retired(pool.tick_at_deadline())) == 1

    def test_a_busy_process_is_not_idle(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(min_instances=0, warm=1)
        session = pool.take().session
        assert pool.tick(100.0) == []
        pool.close(session)
        assert pool.tick(9.9) == []
        assert len(retired(pool.tick_at_deadline())) == 1

    def test_the_minimum_stays_and_the_longest_idle_go_first(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(min_instances=1, warm=3)
        first, second, third = pool.processes()
        sessions = [pool.take().session for _ in range(3)]
        for session in reversed(sessions):
            pool.now += 1.0
            pool.close(session)
        assert [process for process, _ in retired(pool.tick(60.0))] == [third, second]
        assert pool.processes() == [first]
        assert pool.policy.next_deadline() == math.inf

    def test_zero_means_never(self) -> None:
        pool = DrivenPool(pool_idle_time=0.0)
        pool.add(min_instances=0, warm=1)
        assert pool.policy.next_deadline() == math.inf
        assert pool.tick(1e6) == []

    def test_room_that_idleness_makes_is_used_in_the_same_step(self) -> None:
        pool = DrivenPool(max_pool_size=2, pool_idle_time=10.0)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=0, warm=1)
        pool.take(BLOG)
        pool.wait(BLOG)
        commands = pool.tick(10.0)
        assert [reason for _, reason in retired(commands)] == [Reason.IDLE]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]

    def test_a_clock_that_is_late_finds_everything_that_was_due(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(SHOP, min_instances=0, warm=2)
        pool.add(BLOG, min_instances=0, warm=1)
        assert len(retired(pool.tick(1e4))) == 3


class TestPreloaders:
    def test_a_preloader_goes_when_nothing_was_spawned_through_it_for_long(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, max_preloader_idle_time=20.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.now += 5.0
        pool.spawned()
        assert pool.policy.next_deadline() == pool.now + 20.0
        assert pool.tick_at_deadline() == [RetirePreloader(SHOP, Reason.IDLE)]
        assert pool.tick(100.0) == []  # told once
        assert pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now) == []

    def test_not_while_a_spawn_is_under_way(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, max_preloader_idle_time=20.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        assert pool.tick(1.0) == []
        assert pool.policy.next_deadline() == math.inf
        assert pool.tick(100.0) == []

    def test_zero_means_never(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0, max_preloader_idle_time=0.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        assert pool.tick(1e6) == []

    def test_one_that_dies_by_itself_is_not_retired(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0, max_preloader_idle_time=20.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now)
        assert pool.tick(100.0) == []

    def test_a_new_one_may_start_before_the_retired_one_has_ended(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0, max_preloader_idle_time=20.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.tick(20.0)
        pool.policy.preloader_started(SHOP, 1, SECOND, pool.now)
        pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now)
        assert pool.policy.statistics().groups[0].preloader
        assert pool.tick(20.0) == [RetirePreloader(SHOP, Reason.IDLE)]

    def test_and_the_new_one_may_be_the_first_to_end(self) -> None:
        """Fault 35: then what is left was told to go, and nobody takes it for one that is there to fork, nor tells it again."""
        pool = DrivenPool()
        pool.add(min_instances=0, max_preloader_idle_time=20.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.tick(20.0)
        pool.policy.preloader_started(SHOP, 1, SECOND, pool.now)
        pool.policy.preloader_ended(SHOP, 1, SECOND, pool.now)
        assert not pool.policy.statistics().groups[0].preloader
        assert pool.tick(20.0) == []
        assert pool.shut_down() == []  # it is waited for
        assert pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now) == [PoolEmpty()]

    def test_a_retry_that_is_due_comes_before_the_idleness_of_its_preloader(self) -> None:
        pool = DrivenPool(backoff_first=20.0, backoff_max=20.0)
        pool.add(min_instances=1, max_preloader_idle_time=20.0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.failed()
        commands = pool.tick(20.0)
        assert spawns(commands) == [(SHOP, Reason.RETRY)]
        assert len(commands) == 1


def test_a_process_that_fails_makes_room_for_others() -> None:
    pool = DrivenPool(max_pool_size=1)
    pool.add(SHOP, min_instances=0, warm=1)
    pool.add(BLOG, min_instances=0)
    session = pool.take(SHOP).session
    pool.wait(BLOG)
    assert spawns(pool.close(session, SessionOutcome.PROCESS_FAILED)) == [(BLOG, Reason.DEMAND)]
