"""KE13, faults 14 and 15: applications do not wait for each other, neither for slots to load in nor for places in a full pool."""

from __future__ import annotations

import pytest
from driven_pool import BLOG, MAIL, SHOP, WIKI, DrivenPool, granted, retired, spawns
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.core import capacity
from passenger_trio.core.commands import AbandonSpawn, Grant, Reason
from passenger_trio.core.making_room import FAIR_WAIT, SPARE_AFTER
from passenger_trio.core.model import GroupKey, SessionId, SessionOutcome
from passenger_trio.core.retiring import abandon
from passenger_trio.core.scaling import GRACE, SLOW_AFTER, has_enough
from passenger_trio.core.state import GroupState


class TestSlots:
    def test_who_has_no_process_is_replaced_beside_one_that_hangs_also_on_one_core(self) -> None:
        """Fault 14: it took 14 s on two cores, 19 s on one."""
        pool = DrivenPool(max_concurrent_spawns=1)
        pool.add(BLOG, min_instances=1)
        pool.spawned(key=BLOG)
        pool.add(SHOP, min_instances=3)
        assert len(pool.attempts(SHOP)) == 1
        assert spawns(pool.exits(pool.processes(BLOG)[0])) == []  # it was no success: it backs off
        assert spawns(pool.tick_at_deadline()) == [(BLOG, Reason.RETRY)]

    def test_a_new_application_starts_beside_one_that_hangs(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=1)
        pool.add(SHOP, min_instances=1)
        assert spawns(pool.add(BLOG, min_instances=1)) == [(BLOG, Reason.MIN_INSTANCES)]
        assert pool.add(WIKI, min_instances=1) == []
        assert spawns(pool.tick_at_deadline()) == [(WIKI, Reason.MIN_INSTANCES)]

    def test_a_restart_waits_for_another_that_hangs_no_longer_than_its_patience(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=1)
        for key in (SHOP, BLOG):
            pool.add(key, min_instances=1)
            pool.spawned(key=key)
        assert spawns(pool.restart(SHOP)) == [(SHOP, Reason.RESTART)]
        assert spawns(pool.restart(BLOG)) == []
        assert pool.policy.next_deadline() == pool.now + SLOW_AFTER
        assert pool.tick(SLOW_AFTER - 0.001) == []
        assert spawns(pool.tick(0.001)) == [(BLOG, Reason.RESTART)]

    def test_restarts_of_all_do_not_come_down_at_once(self) -> None:
        """R43: as many at a time as there are slots; and the more are slow, the slower others follow."""
        pool = DrivenPool(max_pool_size=40, max_concurrent_spawns=2)
        keys = [GroupKey(f"app{number}", "test") for number in range(40)]
        for key in keys:
            pool.add(key, min_instances=1)
            while pool.attempts(key):
                pool.spawned(key=key)
        begun = [len(spawns(pool.restart(key))) for key in keys]
        assert sum(begun) == 2
        loading = [2]
        for _ in range(10):
            pool.tick(SLOW_AFTER)
            loading.append(len(pool.policy.state.attempts))
        assert loading[1] == 4
        assert loading[-1] <= 10, loading

    def test_who_waits_for_one_preloader_takes_one_slot(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=3, preloads=True)
        assert len(pool.attempts(SHOP)) == 2, "more could not be forked at a time"
        assert spawns(pool.add(BLOG, min_instances=1, preloads=True)) == [(BLOG, Reason.MIN_INSTANCES)]
        assert spawns(pool.add(WIKI, min_instances=1)) == [(WIKI, Reason.MIN_INSTANCES)], "who has nobody has one more"
        assert spawns(pool.add(MAIL, min_instances=1)) == []

    def test_what_turns_out_unsafe_to_fork_takes_one_each(self) -> None:
        """KE13: with ``--spawn-method auto`` three programs loaded an application at a time, and one slot was counted for them."""
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=3, preloads=True)
        pool.add(BLOG, min_instances=1, warm=1)
        first, second = pool.attempts(SHOP)
        pool.restart(BLOG)
        assert pool.policy.state.slots_used == 2
        assert pool.unsafe() == [AbandonSpawn(SHOP, second, Reason.NO_SLOT)]
        pool.failed(None, attempt=second)
        assert pool.attempts(SHOP) == [first], "the other slot has the restart"
        assert spawns(pool.spawned(key=BLOG)) == [(SHOP, Reason.MIN_INSTANCES)]
        assert pool.policy.state.slots_used == 2
        assert spawns(pool.restart(BLOG)) == [], "each of the two has one"
        assert pool.policy.statistics().groups[0].failures == 0

    def test_what_turns_out_unsafe_to_fork_goes_on_where_slots_are_free(self) -> None:
        """KE13: nobody who waits for the preloader begins anew for nothing; the next generation is looked at again."""
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=2, preloads=True)
        assert pool.policy.state.slots_used == 1
        assert pool.unsafe() == []
        assert pool.policy.state.slots_used == 2
        pool.restart()
        assert pool.policy.state.groups[SHOP].generations[2].forks

    def test_what_turns_out_unsafe_to_fork_after_a_restart_has_given_it_up(self) -> None:
        """KE13: an attempt that was given up, and has not ended yet, waits for no preloader any more either."""
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=2, preloads=True)
        _, second = pool.attempts()
        given_up = pool.policy.state.attempts[second]
        abandon(given_up, Reason.SURPLUS)
        pool.unsafe()
        assert not given_up.waits
        assert not given_up.has_slot

    def test_the_next_who_waits_for_a_preloader_has_the_slot_of_the_first(self) -> None:
        """KE13: it loads the application when the first was given up."""
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=2, preloads=True)
        first, second = pool.attempts()
        pool.spawned(first)
        assert pool.policy.state.attempts[second].has_slot
        assert pool.policy.state.slots_used == 1

    def test_who_hangs_under_the_ceiling_keeps_nobody_from_being_replaced(self) -> None:
        """KE13: restarts of applications without a process hang, and as many as the pool may have at all kept another from being replaced for ``start_timeout``."""
        pool = DrivenPool(max_pool_size=1, max_concurrent_spawns=2)
        pool.add(SHOP, warm=1)
        for key in (BLOG, WIKI):
            pool.add(key, min_instances=0)
            pool.restart(key)
        while not pool.attempts(WIKI):
            pool.tick_at_deadline()
        pool.tick(60.0)
        assert spawns(pool.exits(pool.processes()[0])) == [(SHOP, Reason.REPLACE)]

    def test_a_restart_takes_the_place_of_one_that_hangs_where_nothing_serves(self) -> None:
        """KE13: the version that was to mend it waited for the ``start_timeout`` of the one that hangs."""
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.restart()
        [hangs] = pool.attempts()
        commands = pool.restart()
        assert AbandonSpawn(SHOP, hangs, Reason.RESTART) in commands
        assert spawns(commands) == [(SHOP, Reason.RESTART)]
        assert pool.policy.restart_target(SHOP) == 3
        pool.failed(None)
        pool.spawned()
        assert pool.generations() == [3]

    def test_without_a_preloader_each_takes_one(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=3)
        assert len(pool.attempts(SHOP)) == 2
        assert len(spawns(pool.add(BLOG, min_instances=2))) == 1
        assert spawns(pool.add(WIKI, min_instances=1)) == []

    def test_who_has_nobody_is_first_and_who_is_asked_for_before_others(self) -> None:
        pool = DrivenPool(max_pool_size=9, max_concurrent_spawns=1)
        pool.add(SHOP, min_instances=3)
        pool.add(BLOG, min_instances=1)
        pool.add(WIKI, min_instances=1)
        pool.add(MAIL, min_instances=0)
        pool.wait(MAIL)
        started = [[group for group, _ in spawns(pool.spawned(key=key))] for key in (SHOP, BLOG, MAIL, WIKI)]
        assert started == [[MAIL], [WIKI], [], [SHOP]]

    @settings(deadline=None, max_examples=50)
    @given(hanging=st.integers(0, 8), slots=st.integers(1, 4), preloads=st.booleans())
    def test_however_many_hang_an_honest_one_starts_when_they_are_slow(
        self, hanging: int, slots: int, preloads: bool
    ) -> None:
        """A law: its wait is bounded by the patience with those that began just before it, never by a start timeout."""
        pool = DrivenPool(max_pool_size=30, max_concurrent_spawns=slots)
        for number in range(hanging):
            pool.add(GroupKey(f"hangs{number}", "test"), min_instances=2, preloads=preloads)
        pool.tick(60.0)
        pool.tick(60.0)
        begun = pool.now
        pool.add(BLOG, min_instances=1)
        while not pool.attempts(BLOG):
            pool.tick_at_deadline()
        assert pool.now - begun <= SLOW_AFTER * (1 + 2 * hanging / slots)


class TestSpare:
    def a_full_pool(self) -> tuple[DrivenPool, SessionId]:
        pool = DrivenPool(max_pool_size=6, max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=1, warm=5)
        pool.add(BLOG, min_instances=1, warm=1)
        pool.tick(60.0)
        return pool, pool.take(BLOG).session

    def test_another_s_idle_processes_make_room_for_who_queues_beside_its_own(self) -> None:
        """Fault 15: up to 5 minutes beside five idle ones."""
        pool, _ = self.a_full_pool()
        commands = pool.checkout(BLOG)
        assert [reason for _, reason in retired(commands)] == [Reason.MAKE_ROOM]
        assert spawns(commands) == [(BLOG, Reason.DEMAND)]
        pool.spawned(key=BLOG)
        for _ in range(9):
            pool.wait(BLOG) if not pool.nowait(BLOG) else None
            while pool.attempts(BLOG):
                pool.spawned(key=BLOG)
            for process in list(pool.policy.state.groups[SHOP].detached):
                pool.exits(process)
        assert len(pool.processes(SHOP)) == 1, "never below its minimum"
        assert len(pool.processes(BLOG)) == 5

    def test_what_was_used_just_now_is_not_spare_but_will_be(self) -> None:
        pool, _ = self.a_full_pool()
        busy = [pool.take(SHOP).session for _ in range(5)]
        pool.now += 0.5
        for session in busy:
            pool.close(session)
        assert retired(pool.checkout(BLOG)) == []
        assert pool.policy.next_deadline() == pool.now + SPARE_AFTER
        assert spawns(pool.tick_at_deadline()) == [(BLOG, Reason.DEMAND)]

    def test_what_becomes_idle_meanwhile_is_seen_in_time(self) -> None:
        pool, _ = self.a_full_pool()
        busy = [pool.take(SHOP).session for _ in range(5)]
        pool.wait(BLOG)
        pool.now += 0.3
        for session in busy:
            assert retired(pool.close(session)) == []
        begun = pool.now
        while not pool.attempts(BLOG):
            pool.tick_at_deadline()
        assert pool.now - begun == pytest.approx(SPARE_AFTER)

    def test_a_queue_at_its_own_maximum_is_at_rest_beside_what_is_spare(self) -> None:
        """KE13: whoever queues there costs no look at every process, although one is spare that the group may not have."""
        pool = DrivenPool(max_pool_size=6)
        pool.add(SHOP, min_instances=1, warm=5)
        pool.add(BLOG, min_instances=1, max_instances=1, warm=1)
        pool.tick(60.0)
        pool.take(BLOG)
        pool.wait(BLOG)
        assert has_enough(pool.policy.state, pool.policy.state.groups[BLOG])

    def test_a_request_that_ends_while_somebody_waits_costs_no_look_at_every_application(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """KE13, OP5: one of a thousand applications is loaded, and the others serve."""
        pool = DrivenPool(max_pool_size=6)
        pool.add(SHOP, warm=1)
        for number in range(50):
            pool.add(GroupKey(f"idle{number}", "test"), min_instances=0)
        pool.add(BLOG, min_instances=0)
        pool.wait(BLOG)
        session = pool.take(SHOP).session
        looks = 0
        is_starved = capacity.is_starved

        def counted(group: GroupState) -> bool:
            nonlocal looks
            looks += 1
            return is_starved(group)

        monkeypatch.setattr(capacity, "is_starved", counted)
        pool.policy.session_closed(session, SessionOutcome.DONE, pool.now)
        assert looks == 1

    def test_who_joins_a_queue_silently_never_brings_the_deadline_forward(self) -> None:
        """KE13: the pool does not ask again then (the contract of ``policy``), and would let what is spare pass unseen."""
        pool = DrivenPool(max_pool_size=3, max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=0, warm=1)
        pool.add(BLOG, min_instances=1, warm=1)
        pool.tick(60.0)
        pool.take(BLOG)
        assert spawns(pool.checkout(BLOG)) == [(BLOG, Reason.DEMAND)]
        pool.tick_at_deadline()  # it hangs
        pool.now += 0.5
        pool.close(pool.take(SHOP).session)
        promised = pool.policy.next_deadline()
        assert pool.checkout(BLOG) == []
        assert pool.policy.next_deadline() >= promised

    def test_a_rejected_deployment_s_processes_are_taken_for_who_has_nobody_only(self) -> None:
        pool, session = self.a_full_pool()
        pool.close(session)
        assert pool.attempts(BLOG) == []
        pool.add(WIKI, min_instances=0)
        assert spawns(pool.checkout(WIKI)) == [(WIKI, Reason.DEMAND)]


class TestAttemptsGiveWay:
    """A program that hangs while it loads has a place in the pool; others do not wait for it."""

    def test_a_slow_attempt_above_the_minimum_makes_room(self) -> None:
        pool = DrivenPool(max_pool_size=2, max_concurrent_spawns=2)
        pool.add(SHOP, min_instances=1)
        pool.wait(SHOP)
        pool.wait(SHOP)
        assert len(pool.attempts(SHOP)) == 2
        pool.add(BLOG, min_instances=0)
        waiter = pool.wait(BLOG)
        while not pool.attempts(BLOG):
            commands = pool.tick_at_deadline()
        assert [command.reason for command in commands if isinstance(command, AbandonSpawn)] == [Reason.MAKE_ROOM]
        assert pool.now <= 1000.0 + FAIR_WAIT + SLOW_AFTER
        assert [served for served, _ in granted(pool.spawned(key=BLOG))] == [waiter]

    def test_the_only_hope_of_a_group_is_given_up_after_its_grace_and_the_next_has_twice_as_long(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(SHOP, min_instances=0)
        pool.wait(SHOP)
        pool.add(BLOG, min_instances=0)
        pool.wait(BLOG)
        while not pool.attempts(BLOG):
            pool.tick_at_deadline()
        assert pool.now == 1000.0 + GRACE
        pool.failed(None, key=SHOP)
        commands = pool.spawned(key=BLOG)
        assert spawns(commands) == [(SHOP, Reason.DEMAND)]  # it has waited for long enough
        [grant] = [command for command in commands if isinstance(command, Grant)]
        pool.close(grant.session)
        pool.exits(grant.process)
        begun = pool.now
        pool.wait(BLOG)
        while not pool.attempts(BLOG):
            pool.tick_at_deadline()
        assert pool.now - begun == 2 * GRACE
        assert pool.policy.statistics().groups[0].failures == 0, "it may only be slow"
