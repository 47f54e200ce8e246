"""What the pool promises to those who borrow a process, and how its end goes."""

from __future__ import annotations

import math

import pytest
from driven_pool import BLOG, FAILURE, FIRST, SHOP, WIKI, DrivenPool, granted, refused, retired, spawns

from passenger_trio.core.commands import AbandonSpawn, Grant, PoolEmpty, Reason, Refuse, Retire, RetirePreloader
from passenger_trio.core.model import AttemptId, ProcessId, SessionId, SessionOutcome, WaiterId
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.scaling import SLOW_AFTER
from passenger_trio.errors import InvariantBroken


class TestBorrowing:
    def test_an_idle_process_is_used_at_once(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        [process] = pool.processes()
        assert pool.take().process == process
        assert pool.nowait() is None

    def test_a_checkout_is_granted_at_once_where_a_place_is_free(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        [command] = pool.checkout()
        assert isinstance(command, Grant)
        assert command.waiter is not None

    def test_checkout_nowait_queues_nothing_and_spawns_nothing(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        assert pool.nowait() is None
        assert pool.attempts() == []
        assert pool.queue() == []

    def test_the_first_request_of_a_cold_group_waits_for_a_spawn(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        waiter = pool.wait()
        assert granted(pool.spawned()) == [(waiter, pool.processes()[0])]

    def test_a_freed_process_goes_to_whoever_waits_longest(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        session = pool.take().session
        first, second = pool.wait(), pool.wait()
        [grant] = pool.close(session)
        assert isinstance(grant, Grant)
        assert grant.waiter == first
        assert pool.queue() == [second]

    def test_nobody_overtakes_a_waiter(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        pool.take()
        pool.wait()
        assert pool.nowait() is None

    def test_whichever_comes_first_serves_a_waiter_a_freed_process(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(warm=1)
        session = pool.take().session
        waiter = pool.wait()
        assert granted(pool.close(session)) == [(waiter, pool.processes()[0])]
        assert granted(pool.spawned()) == []

    def test_whichever_comes_first_serves_a_waiter_a_new_process(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(warm=1)
        session = pool.take().session
        waiter = pool.wait()
        assert granted(pool.spawned()) == [(waiter, pool.processes()[1])]
        assert pool.close(session) == []

    def test_a_process_serves_as_many_waiters_as_its_concurrency_allows(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=0)
        waiters = [pool.wait() for _ in range(4)]
        assert [waiter for waiter, _ in granted(pool.spawned(concurrency=3))] == waiters[:3]

    def test_a_process_without_a_limit_serves_everybody(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=0)
        waiters = [pool.wait() for _ in range(20)]
        assert [waiter for waiter, _ in granted(pool.spawned(concurrency=0))] == waiters

    def test_the_queue_has_a_limit(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1, max_request_queue_size=2)
        pool.take()
        pool.wait()
        pool.wait()
        [refusal] = pool.checkout()
        assert isinstance(refusal, Refuse)
        assert refusal.reason is Reason.QUEUE_FULL

    def test_a_queue_limit_of_zero_is_no_limit(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1, max_request_queue_size=0)
        pool.take()
        for _ in range(200):
            pool.wait()

    def test_groups_have_queues_of_their_own(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(SHOP, warm=1)
        pool.add(BLOG, warm=1)
        pool.take(SHOP)
        pool.wait(SHOP)
        assert pool.nowait(BLOG) is not None


class TestLeaving:
    def test_a_waiter_that_left_is_not_served(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        session = pool.take().session
        first, second = pool.wait(), pool.wait()
        pool.abandon(first)
        assert [waiter for waiter, _ in granted(pool.close(session))] == [second]

    def test_leaving_after_the_answer_changes_nothing(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        [grant] = pool.checkout()
        assert isinstance(grant, Grant)
        assert grant.waiter is not None
        pool.abandon(grant.waiter)  # cancelled in the very step in which it was granted
        assert grant.session in pool.policy.state.sessions
        pool.close(grant.session, SessionOutcome.NOT_STARTED)
        assert pool.nowait() is not None

    def test_leaving_twice_or_unknown_changes_nothing(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=0)
        waiter = pool.wait()
        pool.abandon(waiter)
        pool.abandon(waiter)
        pool.abandon(WaiterId(4711))

    def test_a_spawn_goes_on_when_those_who_wanted_it_have_left(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.abandon(pool.wait())
        assert pool.spawned() == []
        assert pool.nowait() is not None


class TestProcessesThatFail:
    def test_a_process_that_broke_the_protocol_gets_no_more_sessions(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        [process] = pool.processes()
        session = pool.take().session
        assert retired(pool.close(session, SessionOutcome.PROCESS_FAILED)) == [(process, Reason.FAILED)]
        assert pool.nowait() is None

    def test_it_is_replaced_at_once_if_it_had_served_before(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        commands = pool.close(pool.take().session, SessionOutcome.PROCESS_FAILED)
        assert spawns(commands) == [(SHOP, Reason.REPLACE)]

    def test_its_other_sessions_go_on_and_are_closed_in_their_time(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1, concurrency=2)
        one, other = pool.take().session, pool.take().session
        pool.close(one, SessionOutcome.PROCESS_FAILED)
        assert pool.close(other, SessionOutcome.PROCESS_FAILED) == []  # it is not retired twice

    def test_a_session_that_never_reached_the_process_does_not_count_against_it(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        assert pool.close(pool.take().session, SessionOutcome.NOT_STARTED) == []
        assert pool.nowait() is not None

    @pytest.mark.parametrize("outcome", [SessionOutcome.DONE, SessionOutcome.CLIENT_GONE])
    def test_served_sessions_are_counted(self, outcome: SessionOutcome) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        [process] = pool.processes()
        before = pool.policy.state.processes[process].processed
        pool.close(pool.take().session, outcome)
        assert pool.policy.state.processes[process].processed == before + 1


class TestProcessesThatExit:
    def test_a_process_is_replaced_when_the_group_falls_below_its_minimum(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, warm=1)
        assert spawns(pool.exits(pool.processes()[0])) == [(SHOP, Reason.REPLACE)]

    def test_a_process_is_replaced_when_somebody_waits(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=0, warm=1)
        pool.take()
        pool.wait()
        assert spawns(pool.exits(pool.processes()[0])) == [(SHOP, Reason.REPLACE)]

    def test_a_process_above_the_minimum_is_not_replaced(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0, warm=1)
        assert pool.exits(pool.processes()[0]) == []

    def test_its_sessions_stay_open_until_each_is_closed(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1, concurrency=2)
        one, other = pool.take().session, pool.take().session
        pool.exits(pool.processes()[0])
        assert pool.close(one, SessionOutcome.PROCESS_FAILED) == []
        assert pool.close(other, SessionOutcome.DONE) == []
        assert pool.policy.state.sessions == {}

    def test_a_waiter_is_never_given_a_process_that_is_gone(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        session = pool.take().session
        waiter = pool.wait()
        [gone] = pool.processes()
        pool.exits(gone)
        assert pool.close(session) == []
        assert granted(pool.spawned()) == [(waiter, pool.processes()[0])]
        assert pool.processes() != [gone]

    def test_a_retired_process_exits_without_consequences(self) -> None:
        pool = DrivenPool(pool_idle_time=10.0)
        pool.add(min_instances=0, warm=1)
        [(process, _)] = retired(pool.tick(10.0))
        assert pool.exits(process) == []
        assert pool.policy.state.groups[SHOP].backoff.failures == 0


class TestRefusal:
    def test_a_failed_spawn_refuses_those_whom_nobody_can_serve(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        waiters = [pool.wait(), pool.wait()]
        while len(pool.attempts()) > 1:
            assert refused(pool.failed()) == []  # the other attempt may still succeed
        commands = pool.failed()
        assert refused(commands) == [(waiter, Reason.SPAWN_FAILED) for waiter in waiters]
        assert all(c.failure is FAILURE for c in commands if isinstance(c, Refuse))

    def test_a_failed_spawn_refuses_nobody_whom_a_live_process_can_serve(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        session = pool.take().session
        waiter = pool.wait()
        assert pool.failed() == []
        assert granted(pool.close(session)) == [(waiter, pool.processes()[0])]

    def test_while_it_backs_off_a_group_without_processes_refuses_at_once_and_says_until_when(self) -> None:
        pool = DrivenPool(backoff_first=8.0)
        pool.add(min_instances=1)
        pool.failed()
        pool.now += 3.0
        [refusal] = pool.checkout()
        assert isinstance(refusal, Refuse)
        assert (refusal.reason, refusal.failure) == (Reason.SPAWN_FAILED, FAILURE)
        assert refusal.retry_after == pytest.approx(5.0)

    def test_while_it_backs_off_a_group_with_a_busy_process_queues(self) -> None:
        pool = DrivenPool(backoff_first=8.0)
        pool.add(warm=1)
        pool.take()
        pool.wait()
        pool.failed()
        pool.wait()
        assert len(pool.queue()) == 2

    def test_after_the_back_off_a_request_waits_for_the_next_attempt(self) -> None:
        pool = DrivenPool(backoff_first=8.0)
        pool.add(min_instances=0)
        pool.wait()
        pool.failed()
        pool.now += 8.0
        assert spawns(pool.checkout()) == [(SHOP, Reason.RETRY)]

    def test_in_development_a_request_after_a_while_starts_an_attempt_at_once(self) -> None:
        pool = DrivenPool(backoff_first=30.0)
        pool.add(min_instances=1, retry_on_demand_after=1.0)
        pool.failed()
        pool.now += 0.9
        assert len(refused(pool.checkout())) == 1
        pool.now += 0.1
        assert spawns(pool.checkout()) == [(SHOP, Reason.RETRY)]
        assert len(pool.queue()) == 1
        assert pool.policy.next_deadline() == pool.now + SLOW_AFTER

    def test_the_attempt_on_demand_that_fails_refuses_and_backs_off_for_longer(self) -> None:
        pool = DrivenPool(backoff_first=4.0)
        pool.add(min_instances=1, retry_on_demand_after=0.0)
        pool.failed()
        waiter = pool.wait()
        [refusal] = pool.failed()
        assert refusal == Refuse(waiter, Reason.SPAWN_FAILED, FAILURE, 12.0)

    def test_an_attempt_on_demand_waits_for_its_turn_when_all_slots_are_taken(self) -> None:
        pool = DrivenPool(backoff_first=30.0, max_concurrent_spawns=1)
        pool.add(SHOP, min_instances=1, retry_on_demand_after=0.0)
        pool.failed(key=SHOP)
        pool.add(BLOG, min_instances=1)
        pool.add(WIKI, min_instances=1)
        pool.wait(SHOP)
        assert spawns(pool.spawned(key=BLOG)) == [(SHOP, Reason.RETRY)]


class TestShutDown:
    def test_an_empty_pool_is_empty_at_once_and_says_so_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        assert pool.shut_down() == [PoolEmpty()]
        assert pool.shut_down() == []

    def test_new_requests_are_refused(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1, concurrency=2)
        pool.take()
        pool.shut_down()
        assert pool.nowait() is None
        assert [reason for _, reason in refused(pool.checkout())] == [Reason.SHUT_DOWN]

    def test_idle_processes_go_at_once_and_busy_ones_when_they_are_done(self) -> None:
        pool = DrivenPool()
        pool.add(warm=2)
        busy, idle = pool.processes()
        session = pool.take().session
        assert retired(pool.shut_down()) == [(idle, Reason.SHUT_DOWN)]
        assert retired(pool.close(session)) == [(busy, Reason.SHUT_DOWN)]
        assert pool.exits(idle) == []
        assert pool.exits(busy) == [PoolEmpty()]

    def test_those_who_wait_are_served_before_the_process_goes(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        [process] = pool.processes()
        session = pool.take().session
        waiter = pool.wait()
        assert pool.shut_down() == []
        [grant] = pool.close(session)
        assert isinstance(grant, Grant)
        assert grant.waiter == waiter
        assert pool.close(grant.session) == [Retire(process, Reason.SHUT_DOWN)]

    def test_those_whom_nobody_can_serve_are_refused(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        waiter = pool.wait()
        [attempt] = pool.attempts()
        assert pool.shut_down() == [
            AbandonSpawn(SHOP, attempt, Reason.SHUT_DOWN),
            Refuse(waiter, Reason.SHUT_DOWN),
        ]
        assert pool.failed(None) == [PoolEmpty()]

    def test_those_whose_last_process_dies_are_refused(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        pool.take()
        waiter = pool.wait()
        pool.shut_down()
        assert pool.exits(pool.processes()[0]) == [Refuse(waiter, Reason.SHUT_DOWN), PoolEmpty()]

    def test_those_whose_last_process_breaks_the_protocol_are_refused(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1)
        [process] = pool.processes()
        session = pool.take().session
        waiter = pool.wait()
        pool.shut_down()
        commands = pool.close(session, SessionOutcome.PROCESS_FAILED)
        assert commands == [Retire(process, Reason.FAILED), Refuse(waiter, Reason.SHUT_DOWN)]

    def test_a_spawn_that_succeeds_all_the_same_is_retired_at_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        pool.shut_down()
        [(process, reason)] = retired(pool.spawned())
        assert reason is Reason.SHUT_DOWN
        assert pool.exits(process) == [PoolEmpty()]

    def test_nothing_is_spawned_or_due_any_more(self) -> None:
        pool = DrivenPool()
        pool.add(SHOP, warm=1)
        pool.add(BLOG, min_instances=1)
        pool.failed(key=BLOG)
        pool.take(SHOP)
        pool.shut_down()
        assert pool.policy.next_deadline() == math.inf
        assert pool.tick(3600.0) == []
        assert pool.exits(pool.processes(SHOP)[0]) == [PoolEmpty()]
        assert pool.add(type(SHOP)("late", "test")) == []

    def test_preloaders_are_retired_and_waited_for(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.policy.preloader_started(SHOP, 1, FIRST, pool.now)
        assert pool.shut_down() == [RetirePreloader(SHOP, Reason.SHUT_DOWN)]
        assert pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now) == [PoolEmpty()]

    def test_a_preloader_that_starts_too_late_is_retired_at_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        pool.shut_down()
        assert pool.policy.preloader_started(SHOP, 1, FIRST, pool.now) == [RetirePreloader(SHOP, Reason.SHUT_DOWN)]
        assert pool.failed(None) == []
        assert pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now) == [PoolEmpty()]

    def test_a_session_of_a_process_that_is_gone_may_be_closed_after_the_end(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        session = pool.take().session
        pool.shut_down()
        assert pool.exits(pool.processes()[0]) == [PoolEmpty()]
        assert pool.close(session) == []


class TestBugsOfTheShell:
    def test_a_session_is_closed_once(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        session = pool.take().session
        pool.close(session)
        with pytest.raises(InvariantBroken, match="not open"):
            pool.close(session)

    def test_a_process_exits_once(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1)
        [process] = pool.processes()
        pool.exits(process)
        with pytest.raises(InvariantBroken, match="there is none"):
            pool.exits(process)

    def test_an_attempt_ends_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        [attempt] = pool.attempts()
        pool.spawned()
        with pytest.raises(InvariantBroken, match="not under way"):
            pool.spawned(attempt)
        with pytest.raises(InvariantBroken, match="not under way"):
            pool.policy.spawn_failed(AttemptId(99), None, pool.now, 0.0)

    def test_a_process_comes_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=2)
        first, second = pool.attempts()
        pool.policy.spawn_succeeded(first, ProcessId(7), 1, pool.now)
        with pytest.raises(InvariantBroken, match="twice"):
            pool.policy.spawn_succeeded(second, ProcessId(7), 1, pool.now)

    def test_a_group_is_added_once(self) -> None:
        pool = DrivenPool()
        pool.add()
        with pytest.raises(InvariantBroken, match="twice"):
            pool.policy.add_group(SHOP, GroupLimits(), pool.now)

    def test_a_waiter_asks_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        waiter = pool.wait()
        with pytest.raises(InvariantBroken, match="twice"):
            pool.policy.checkout(waiter, SHOP, pool.now)

    def test_a_preloader_ends_once(self) -> None:
        pool = DrivenPool()
        pool.add()
        with pytest.raises(InvariantBroken, match="there is none"):
            pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now)

    def test_an_unknown_session_is_no_session(self) -> None:
        with pytest.raises(InvariantBroken):
            DrivenPool().close(SessionId(1))


def test_a_session_that_becomes_uncounted_leaves_its_place_to_who_waits() -> None:
    pool = DrivenPool(max_pool_size=1)
    pool.add(warm=1)
    session = pool.take().session
    waiter = pool.wait()
    [grant] = pool.checked(pool.policy.session_uncounted(session, pool.now))
    assert isinstance(grant, Grant)
    assert grant.waiter == waiter
    with pytest.raises(InvariantBroken):
        pool.policy.session_uncounted(session, pool.now)
    assert pool.close(session) == []
    assert pool.nowait() is None, "its end makes no room"
    for told in (pool.policy.session_long_lived, pool.policy.session_uncounted):
        with pytest.raises(InvariantBroken):
            told(session, pool.now)


def test_a_process_with_an_uncounted_session_is_not_idle() -> None:
    pool = DrivenPool(max_pool_size=2, pool_idle_time=5)
    pool.add(warm=2)
    sessions = [pool.take().session, pool.take().session]
    for session in sessions:
        pool.checked(pool.policy.session_uncounted(session, pool.now))
    pool.now += 100
    assert retired(pool.checked(pool.policy.tick(pool.now))) == []


def test_a_held_session_may_last() -> None:
    pool = DrivenPool(max_pool_size=1)
    pool.add(warm=1, max_request_time=5.0)
    session = pool.take().session
    assert pool.checked(pool.policy.session_long_lived(session, pool.now)) == []
    pool.now += 100
    assert pool.checked(pool.policy.tick(pool.now)) == []
