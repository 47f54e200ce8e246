"""Restarts: nothing goes before what takes its place is up, a version that does not start changes nothing, none is lost (R43)."""

from __future__ import annotations

import pytest
from driven_pool import BLOG, FAILURE, FIRST, SHOP, DrivenPool, granted, refused, retired, spawns

from passenger_trio.core import scaling
from passenger_trio.core.commands import (
    AbandonSpawn,
    Command,
    Detach,
    EndGeneration,
    Reason,
    RestartEnded,
    Retire,
    RetirePreloader,
    StartSpawn,
)
from passenger_trio.core.model import GroupKey, SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.state import GroupState


def a_pool(processes: int = 2, **limits: int) -> DrivenPool:
    pool = DrivenPool(**limits)
    pool.add(min_instances=processes)
    while pool.attempts():
        pool.spawned()
    for session in [pool.take().session for _ in range(processes)]:
        pool.close(session)  # each has served: its exit is no failure to start
    return pool


def ends(commands: list[Command]) -> list[tuple[int, bool]]:
    return [(command.generation, command.rejected) for command in commands if isinstance(command, RestartEnded)]


class TestRolling:
    def test_one_new_process_is_spawned_and_nothing_is_retired(self) -> None:
        pool = a_pool()
        [command] = pool.restart()
        assert isinstance(command, StartSpawn)
        assert (command.reason, command.generation) == (Reason.RESTART, 2)
        assert pool.generations() == [1, 1]

    def test_each_new_process_takes_the_place_of_the_oldest_old_one(self) -> None:
        pool = a_pool()
        first, second = pool.processes()
        pool.restart()
        commands = pool.spawned()
        assert retired(commands) == [(first, Reason.RESTART)]
        assert spawns(commands) == [(SHOP, Reason.RESTART)]
        assert sorted(pool.generations()) == [1, 2]
        commands = pool.spawned()
        assert retired(commands) == [(second, Reason.RESTART)]
        assert ends(commands) == [(2, False)]
        assert pool.generations() == [2, 2]
        assert not pool.attempts()

    def test_it_works_in_a_pool_that_is_full(self) -> None:
        pool = a_pool(1, max_pool_size=1)
        pool.restart()
        pool.spawned()
        assert pool.generations() == [2]

    def test_a_busy_process_finishes_first(self) -> None:
        pool = a_pool(1)
        [old] = pool.processes()
        session = pool.take().session
        pool.restart()
        assert Detach(old, Reason.RESTART) in pool.spawned()
        assert pool.close(session) == [Retire(old, Reason.RESTART)]

    def test_a_detached_process_that_breaks_its_session_goes_for_that(self) -> None:
        pool = a_pool(1)
        [old] = pool.processes()
        session = pool.take().session
        pool.restart()
        pool.spawned()
        assert pool.close(session, SessionOutcome.PROCESS_FAILED) == [Retire(old, Reason.FAILED)]

    def test_the_newest_generation_is_preferred_and_the_old_one_takes_the_rest(self) -> None:
        pool = a_pool(2)
        _, old = pool.processes()
        pool.restart()
        pool.spawned()
        new = pool.processes()[-1]
        assert [pool.take().process, pool.take().process] == [new, old]

    def test_a_new_process_serves_those_who_wait(self) -> None:
        pool = a_pool(1, max_pool_size=1)
        pool.take()
        waiter = pool.wait()
        pool.restart()
        commands = pool.spawned()
        assert granted(commands) == [(waiter, pool.processes()[0])]

    def test_a_process_that_dies_meanwhile_is_replaced_by_one_of_the_version_that_serves(self) -> None:
        pool = a_pool(2)
        pool.restart()
        [command] = pool.exits(pool.processes()[0])
        assert isinstance(command, StartSpawn)
        assert (command.generation, command.reason) == (1, Reason.REPLACE)

    def test_the_last_old_process_dies_while_its_replacement_is_on_its_way(self) -> None:
        """The replacement finds nothing to replace and no place: it is kept, and the second one is called off."""
        pool = a_pool(1, max_pool_size=1)
        pool.restart()
        pool.exits(pool.processes()[0])
        first, second = pool.attempts()
        assert AbandonSpawn(SHOP, second, Reason.SURPLUS) in pool.spawned(first)
        assert pool.generations() == [2]
        assert [reason for _, reason in retired(pool.spawned(second))] == [Reason.SURPLUS]

    def test_a_second_restart_comes_through_while_an_old_process_hangs(self) -> None:
        """Fault 19: one hung request in a pool of one, and six in a pool of six, kept every further version away."""
        for size in (1, 6):
            pool = a_pool(size, max_pool_size=size)
            for _ in range(size):
                pool.take()
            pool.restart()
            while pool.attempts():
                pool.spawned()
            assert len(pool.policy.state.processes) == 2 * size
            assert spawns(pool.restart()) == [(SHOP, Reason.RESTART)]
            pool.spawned()
            assert pool.generations()[-1] == 3, "the new version serves"
            while 2 in pool.generations():
                for process in set(pool.policy.state.groups[SHOP].detached.values()):
                    if not process.sessions:
                        pool.exits(process.id)
                while pool.attempts():
                    pool.spawned()
            assert pool.generations() == [3] * size

    def test_above_the_ceiling_there_is_one_replacement_and_it_holds_until_an_old_process_has_had_its_time(
        self,
    ) -> None:
        pool = a_pool(1, max_pool_size=1)
        for _ in range(2):
            pool.take()
            pool.restart()
            pool.spawned()
        pool.take()
        assert spawns(pool.restart()) == [], "two hang already, and the third is busy"
        [first, _] = pool.policy.state.groups[SHOP].detached
        assert retired(pool.tick(300.0)) == [(first, Reason.DRAIN_TIME), (_, Reason.DRAIN_TIME)]
        assert spawns(pool.exits(first)) == [(SHOP, Reason.RESTART)]

    def test_processes_of_another_application_that_hang_do_not_delay_a_restart(self) -> None:
        """KE13, fault 19."""
        pool = DrivenPool(max_pool_size=2)
        for key in (SHOP, BLOG):
            pool.add(key, min_instances=1)
            pool.spawned(key=key)
        for _ in range(3):
            pool.take(BLOG)
            pool.restart(BLOG)
            if pool.attempts(BLOG):
                pool.spawned(key=BLOG)
        assert not pool.attempts(BLOG), "its own restart waits for its own processes"
        assert spawns(pool.restart(SHOP)) == [(SHOP, Reason.RESTART)]

    def test_a_group_without_processes_is_restarted_when_one_of_the_new_generation_was_ready(self) -> None:
        """Fault 18: it was told to be restarted at once, although nothing had been tried."""
        pool = DrivenPool()
        pool.add(min_instances=0)
        commands = pool.restart()
        assert ends(commands) == []
        assert spawns(commands) == [(SHOP, Reason.RESTART)]
        assert ends(pool.spawned()) == [(2, False)]
        assert pool.generations() == [2]

    def test_a_group_without_processes_that_does_not_start_is_not_restarted(self) -> None:
        """Fault 18."""
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.restart()
        assert RestartEnded(SHOP, 2, rejected=True, failure=FAILURE, kept=False) in pool.failed()
        group = pool.policy.statistics().groups[0]
        assert (group.restarting, group.rejection is not None and group.rejection.kept) == (False, False)
        pool.now += 60
        pool.wait()
        pool.spawned()
        assert pool.policy.statistics().groups[0].rejection is None, "it starts after all"

    def test_in_a_full_pool_the_first_process_of_an_idle_group_is_tried_and_goes_again(self) -> None:
        """Fault 18: whether a version starts does not depend on a place for it."""
        pool = DrivenPool(max_pool_size=1)
        pool.add(BLOG, min_instances=1)
        pool.spawned(key=BLOG)
        pool.add(min_instances=0)
        assert spawns(pool.restart()) == [(SHOP, Reason.RESTART)]
        commands = pool.spawned()
        assert [reason for _, reason in retired(commands)] == [Reason.SURPLUS]
        assert ends(commands) == [(2, False)]

    def test_an_idle_group_keeps_the_version_that_its_preloader_holds(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.restart()
        assert RestartEnded(SHOP, 2, rejected=True, failure=FAILURE) in pool.failed()
        [command] = pool.checkout()
        assert isinstance(command, StartSpawn)
        assert command.generation == 1

    def test_a_process_that_was_on_its_way_serves_and_is_replaced(self) -> None:
        """Passenger throws it away (PoolTest 72); here those who wait are served by it."""
        pool = DrivenPool()
        pool.add(min_instances=1, warm=0)
        waiter = pool.wait()
        pool.restart()
        commands = pool.spawned(pool.attempts()[0])
        assert granted(commands) == [(waiter, pool.processes()[0])]
        while pool.attempts():
            pool.spawned()
        assert set(pool.generations()) == {2}

    def test_one_replacement_at_a_time_in_each_group(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=4)
        for key in (SHOP, BLOG):
            pool.add(key, min_instances=2)
            while pool.attempts(key):
                pool.spawned(key=key)
        assert spawns(pool.restart(SHOP) + pool.restart(BLOG)) == [(SHOP, Reason.RESTART), (BLOG, Reason.RESTART)]

    def test_nothing_is_restarted_after_the_shut_down(self) -> None:
        pool = a_pool(1)
        pool.shut_down()
        assert pool.restart() == []


class TestDeploymentErrors:
    def test_a_version_that_does_not_start_leaves_the_old_one_serving(self) -> None:
        pool = a_pool(2)
        pool.restart()
        commands = pool.failed()
        assert RestartEnded(SHOP, 2, rejected=True, failure=FAILURE) in commands
        assert pool.generations() == [1, 1]
        assert not pool.attempts()
        group = pool.policy.statistics().groups[0]
        assert group.rejection is not None
        assert group.rejection.failure is FAILURE
        assert not group.restarting
        assert group.failures == 0, "it is no failure of what serves"

    def test_it_refuses_nobody(self) -> None:
        pool = a_pool(1, max_pool_size=1)
        session = pool.take().session
        waiter = pool.wait()
        pool.restart()
        assert refused(pool.failed()) == []
        assert granted(pool.close(session)) == [(waiter, pool.processes()[0])]

    def test_what_serves_is_not_retired_for_being_idle(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(min_instances=0, max_preloader_idle_time=5.0, warm=2)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.restart()
        pool.failed()
        assert pool.tick(3600.0) == []
        pool.restart()
        pool.spawned()
        pool.spawned()
        assert retired(pool.tick(3600.0)) != []

    def test_a_process_that_dies_is_replaced_by_one_of_the_old_version(self) -> None:
        pool = a_pool(2)
        pool.restart()
        pool.failed()
        [command] = pool.exits(pool.processes()[0])
        assert isinstance(command, StartSpawn)
        assert command.generation == 1

    def test_the_next_restart_tries_again(self) -> None:
        pool = a_pool(1)
        pool.restart()
        pool.failed()
        assert spawns(pool.restart()) == [(SHOP, Reason.RESTART)]
        assert ends(pool.spawned()) == [(3, False)]
        assert pool.generations() == [3]
        assert pool.policy.statistics().groups[0].rejection is None

    def test_a_failure_after_the_first_new_process_is_retried(self) -> None:
        pool = a_pool(2, backoff_first=8)
        pool.restart()
        pool.spawned()
        assert spawns(pool.failed()) == []
        assert spawns(pool.tick(8.0)) == [(SHOP, Reason.RESTART)]
        assert ends(pool.spawned()) == [(2, False)]

    def test_a_restart_does_not_wait_for_the_back_off(self) -> None:
        pool = DrivenPool(backoff_first=30.0)
        pool.add(min_instances=1)
        pool.failed()
        assert spawns(pool.restart()) == [(SHOP, Reason.RETRY)]
        assert ends(pool.spawned()) == [(2, False)], "fault 18: and it has not ended before"


class TestRestartsDuringRestarts:
    def test_one_while_the_first_new_process_is_on_its_way_is_done_after_it(self) -> None:
        pool = a_pool(1)
        pool.restart()
        assert pool.restart() == []
        assert pool.policy.restart_target(SHOP) == 3
        assert spawns(pool.spawned()) == [(SHOP, Reason.RESTART)]
        assert ends(pool.spawned()) == [(3, False)]

    def test_one_after_that_begins_at_once(self) -> None:
        pool = a_pool(3)
        pool.restart()
        pool.spawned()
        pool.restart()
        assert pool.policy.restart_target(SHOP) == 3
        while pool.attempts():
            pool.spawned()
        assert pool.generations() == [3, 3, 3]

    def test_a_thousand_cost_two(self) -> None:
        pool = a_pool(1)
        started = [command for _ in range(1000) for command in pool.restart()]
        assert len(started) == 1
        assert len(spawns(pool.spawned())) == 1
        assert spawns(pool.spawned()) == []
        assert pool.generations() == [3]

    def test_it_is_done_also_when_the_first_fails(self) -> None:
        pool = a_pool(1)
        pool.restart()
        pool.restart()
        commands = pool.failed()
        assert ends(commands) == [(2, True)]
        assert spawns(commands) == [(SHOP, Reason.RESTART)]
        assert ends(pool.spawned()) == [(3, False)]

    def test_one_that_waits_for_a_slot_is_the_code_as_it_is_then(self) -> None:
        pool = a_pool(1, max_concurrent_spawns=1)
        pool.add(BLOG, min_instances=1)
        pool.restart()
        assert pool.restart() == []
        assert pool.policy.restart_target(SHOP) == 2


class TestHard:
    def test_everything_goes_at_once_and_new_ones_come(self) -> None:
        pool = a_pool(2)
        commands = pool.restart(hard=True)
        assert [reason for _, reason in retired(commands)] == [Reason.RESTART] * 2
        assert len(spawns(commands)) == 2
        assert pool.generations() == []
        assert ends(commands) == [], "fault 18: nothing of the new version was ready"
        assert ends(pool.spawned()) == [(2, False)]

    def test_a_version_that_does_not_start_is_told(self) -> None:
        """Fault 18: the command said "restarted" of it."""
        pool = a_pool(1)
        pool.restart(hard=True)
        assert RestartEnded(SHOP, 2, rejected=True, failure=FAILURE, kept=False) in pool.failed()

    def test_requests_wait_and_busy_processes_finish(self) -> None:
        pool = a_pool(1)
        [old] = pool.processes()
        session = pool.take().session
        assert Detach(old, Reason.RESTART) in pool.restart(hard=True)
        waiter = pool.wait()
        assert retired(pool.close(session)) == [(old, Reason.RESTART)]
        assert granted(pool.spawned()) == [(waiter, pool.processes()[0])]

    def test_what_was_on_its_way_is_called_off(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        [old] = pool.attempts()
        commands = pool.restart(hard=True)
        assert AbandonSpawn(SHOP, old, Reason.RESTART) in commands
        assert len(spawns(commands)) == 1
        pool.policy.spawn_failed(old, None, pool.now, 0.0)
        assert pool.policy.statistics().groups[0].failures == 0


class TestGenerationsEnd:
    def test_the_old_preloader_goes_when_the_new_version_serves(self) -> None:
        pool = a_pool(1)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.restart()
        pool.policy.preloader_started(SHOP, 2, FIRST, pool.now)
        [old] = pool.processes()
        assert RetirePreloader(SHOP, Reason.RESTART, 1) in pool.spawned()
        assert pool.exits(old) == []
        assert pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now) == [EndGeneration(SHOP, 1)]

    def test_a_generation_lasts_as_long_as_its_processes(self) -> None:
        pool = a_pool(2)
        busy = pool.take()
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.restart()
        while pool.attempts():
            pool.spawned()
        for process in set(pool.policy.state.processes) - set(pool.processes()) - {busy.process}:
            assert pool.exits(process) == []
        assert pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now) == [], "what it started is in use"
        assert pool.close(busy.session) == [Retire(busy.process, Reason.RESTART)]
        assert pool.exits(busy.process) == [EndGeneration(SHOP, 1)]

    def test_it_stays_while_a_process_is_spawned_through_it(self) -> None:
        pool = a_pool(1)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        pool.take()
        pool.wait()
        pool.restart()
        growth, replacement = pool.attempts()
        assert not [c for c in pool.spawned(replacement) if isinstance(c, RetirePreloader)]
        assert RetirePreloader(SHOP, Reason.RESTART, 1) in pool.spawned(growth)

    def test_the_preloader_of_a_rejected_version_goes(self) -> None:
        pool = a_pool(1)
        pool.restart()
        pool.policy.preloader_started(SHOP, 2, FIRST, pool.now)
        assert RetirePreloader(SHOP, Reason.RESTART, 2) in pool.failed()
        assert pool.policy.preloader_ended(SHOP, 2, FIRST, pool.now) == [EndGeneration(SHOP, 2)]

    def test_a_generation_without_a_preloader_ends_with_its_last_process(self) -> None:
        pool = a_pool(1)
        [old] = pool.processes()
        pool.restart()
        assert EndGeneration(SHOP, 1) not in pool.spawned()
        assert pool.exits(old) == [EndGeneration(SHOP, 1)]


class TestManyApplications:
    @pytest.mark.parametrize("hard", [False, True])
    def test_a_restart_of_all_looks_at_each_a_bounded_number_of_times(
        self, monkeypatch: pytest.MonkeyPatch, hard: bool
    ) -> None:
        """KE13: it was the square of their number."""
        looks = 0
        wants = scaling.wants

        def counted(group: GroupState, now: float) -> bool:
            nonlocal looks
            looks += 1
            return wants(group, now)

        pool = DrivenPool(max_concurrent_spawns=2)
        keys = tuple(GroupKey(f"app{number}", "test") for number in range(60))
        for key in keys:
            pool.policy.add_group(key, GroupLimits(min_instances=0), pool.now)
        monkeypatch.setattr(scaling, "wants", counted)
        commands = pool.policy.restart_all(keys, pool.now, hard=hard)
        assert 0 < len(spawns(commands)) <= 3
        assert looks <= 4 * len(keys)
        monkeypatch.undo()
        pool.checked([])
