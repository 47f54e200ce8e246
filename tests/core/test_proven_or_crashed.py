"""Whether a process that came and went is a failed start."""

from __future__ import annotations

import pytest
from driven_pool import FAILURE, SHOP, DrivenPool, granted, refused, retired, spawns

from passenger_trio.core.backoff_and_circuit import CRASHES_TOLERATED
from passenger_trio.core.commands import Reason, Refuse
from passenger_trio.core.model import ProcessId, SessionOutcome, WaiterId
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.proven_or_crashed import UNANSWERED_TOLERATED, explain
from passenger_trio.core.state import GroupState, ProcessState


def failures(pool: DrivenPool) -> int:
    return pool.policy.state.groups[SHOP].backoff.failures


def a_fresh_process(**limits: object) -> DrivenPool:
    pool = DrivenPool(**limits)
    pool.add(min_instances=1)
    pool.spawned()
    return pool


def test_a_process_that_exits_before_it_served_anything_is_a_failed_start() -> None:
    pool = a_fresh_process()
    assert pool.exits(pool.processes()[0]) == []
    assert failures(pool) == 1
    assert spawns(pool.tick_at_deadline()) == [(SHOP, Reason.RETRY)]


def test_a_crash_loop_is_slowed_down_more_and_more() -> None:
    pool = a_fresh_process()
    waits = []
    for _ in range(5):
        pool.exits(pool.processes()[0])
        waits.append(pool.policy.next_deadline() - pool.now)
        pool.tick_at_deadline()
        pool.spawned()
    assert waits == pytest.approx([0.1, 0.3, 0.9, 2.7, 8.1])


def test_a_process_that_has_served_is_replaced_at_once() -> None:
    pool = a_fresh_process()
    pool.close(pool.take().session)
    assert spawns(pool.exits(pool.processes()[0])) == [(SHOP, Reason.REPLACE)]
    assert failures(pool) == 0


def test_a_process_that_has_lived_for_long_is_replaced_at_once() -> None:
    pool = a_fresh_process(backoff_max=30.0)
    pool.now += 30.0
    assert spawns(pool.exits(pool.processes()[0])) == [(SHOP, Reason.REPLACE)]


def test_age_ends_the_troubles_of_the_group() -> None:
    pool = a_fresh_process(backoff_first=0.5, backoff_max=30.0)
    pool.exits(pool.processes()[0])
    pool.tick_at_deadline()
    pool.spawned()
    pool.tick(29.0)
    assert failures(pool) == 1
    pool.tick(1.0)
    assert failures(pool) == 0


def test_the_first_session_ends_the_troubles_of_the_group() -> None:
    pool = a_fresh_process()
    pool.exits(pool.processes()[0])
    pool.tick_at_deadline()
    pool.spawned()
    assert failures(pool) == 1
    pool.close(pool.take().session)
    assert failures(pool) == 0


def test_old_processes_that_serve_prove_nothing_about_new_ones() -> None:
    pool = DrivenPool(backoff_first=10.0)
    pool.add(min_instances=0, warm=1)
    session = pool.take().session
    pool.wait()
    pool.failed()
    [grant] = pool.close(session)
    assert failures(pool) == 1
    assert pool.attempts() == []
    pool.close(grant.session)  # type: ignore[union-attr]
    assert failures(pool) == 1


def test_an_old_process_that_serves_its_first_session_proves_nothing_either() -> None:
    pool = DrivenPool(backoff_first=10.0, max_concurrent_spawns=2)
    pool.add(min_instances=2)
    pool.spawned()
    pool.now += 1.0
    pool.failed()
    pool.close(pool.take().session)
    assert failures(pool) == 1


def test_a_process_that_came_after_a_failure_ends_the_back_off_with_its_first_session() -> None:
    pool = DrivenPool(backoff_first=10.0, max_concurrent_spawns=2)
    pool.add(min_instances=2)
    pool.failed()
    pool.spawned()
    assert pool.attempts() == []
    assert spawns(pool.close(pool.take().session)) == [(SHOP, Reason.MIN_INSTANCES)]


def test_a_process_that_we_retired_is_no_failed_start() -> None:
    pool = DrivenPool(pool_idle_time=1.0, backoff_max=30.0)
    pool.add(min_instances=0)
    pool.abandon(pool.wait())
    pool.spawned()
    [(process, _)] = retired(pool.tick(1.0))
    pool.exits(process)
    assert failures(pool) == 0


def test_one_unlucky_request_does_not_cost_those_behind_it_an_error() -> None:
    pool = DrivenPool(max_pool_size=1)
    pool.add(min_instances=1)
    pool.spawned()
    session = pool.take().session
    waiter = pool.wait()
    assert pool.exits(pool.processes()[0]) == []  # it crashed in the very first request
    pool.close(session, SessionOutcome.PROCESS_FAILED)
    pool.wait()
    assert spawns(pool.tick_at_deadline()) == [(SHOP, Reason.RETRY)]
    assert granted(pool.spawned())[0][0] == waiter


def test_a_crash_loop_refuses_fast_when_the_circuit_is_open() -> None:
    pool = a_fresh_process()
    for _ in range(CRASHES_TOLERATED):
        pool.exits(pool.processes()[0])
        pool.tick_at_deadline()
        pool.spawned()
    pool.take()
    waiter = pool.wait()
    pool.failed()  # the attempt that the waiter called for
    commands = pool.exits(pool.processes()[0], FAILURE)
    assert [who for who, _ in refused(commands)] == [waiter]
    [refusal] = pool.checkout()
    assert isinstance(refusal, Refuse)
    assert refusal.failure is FAILURE
    assert refusal.retry_after is not None


def test_a_crash_that_left_no_evidence_refuses_without() -> None:
    pool = a_fresh_process()
    for _ in range(CRASHES_TOLERATED):
        pool.exits(pool.processes()[0])
        pool.tick_at_deadline()
        pool.spawned()
    pool.exits(pool.processes()[0])
    [refusal] = pool.checkout()
    assert isinstance(refusal, Refuse)
    assert (refusal.reason, refusal.failure) == (Reason.SPAWN_FAILED, None)


def test_a_program_that_ends_by_itself_after_each_request_is_no_crash_whatever_is_seen_first() -> None:
    pool = a_fresh_process(max_pool_size=1)
    for _ in range(10):
        session = pool.take().session
        waiter = pool.wait()
        assert pool.exits(pool.processes()[0]) == []
        assert failures(pool) == 1
        assert len(spawns(pool.close(session, SessionOutcome.DONE))) == 1  # it had served after all
        assert failures(pool) == 0
        [grant] = pool.spawned()
        assert granted([grant])[0][0] == waiter
        pool.close(grant.session)  # type: ignore[union-attr]
        assert spawns(pool.exits(pool.processes()[0])) == [(SHOP, Reason.REPLACE)]
        pool.spawned()


def test_a_good_end_that_comes_too_late_does_not_excuse_later_failures() -> None:
    pool = a_fresh_process()
    session = pool.take().session
    pool.exits(pool.processes()[0])
    pool.tick_at_deadline()
    pool.failed()
    assert failures(pool) == 2
    assert pool.close(session, SessionOutcome.DONE) == []
    assert failures(pool) == 2


def test_a_process_that_breaks_its_first_session_is_a_failed_start_and_counts_once() -> None:
    pool = a_fresh_process()
    [process] = pool.processes()
    commands = pool.close(pool.take().session, SessionOutcome.PROCESS_FAILED)
    assert retired(commands) == [(process, Reason.FAILED)]
    assert spawns(commands) == []
    assert failures(pool) == 1
    pool.exits(process)
    assert failures(pool) == 1


def test_the_evidence_may_come_with_the_exit() -> None:
    pool = a_fresh_process()
    [process] = pool.processes()
    pool.close(pool.take().session, SessionOutcome.PROCESS_FAILED)
    pool.exits(process, FAILURE)
    assert pool.policy.statistics().groups[0].last_failure is FAILURE


def test_the_exit_of_a_process_that_is_not_to_blame_is_no_evidence() -> None:
    pool = DrivenPool()
    pool.add(min_instances=0, warm=1)
    [process] = pool.processes()
    pool.close(pool.take().session, SessionOutcome.PROCESS_FAILED)
    pool.exits(process, FAILURE)
    assert pool.policy.statistics().groups[0].last_failure is None


def test_it_is_forgiven_when_another_session_of_it_ends_well() -> None:
    pool = DrivenPool()
    pool.add(min_instances=1)
    pool.spawned(concurrency=2)
    bad, good = pool.take().session, pool.take().session
    pool.close(bad, SessionOutcome.PROCESS_FAILED)
    assert failures(pool) == 1
    assert spawns(pool.close(good, SessionOutcome.CLIENT_GONE)) == [(SHOP, Reason.MIN_INSTANCES)]
    assert failures(pool) == 0


def test_processes_that_crash_together_count_once() -> None:
    pool = DrivenPool(max_concurrent_spawns=3)
    pool.add(min_instances=3)
    for _ in range(3):
        pool.spawned()
    pool.now += 1.0
    for process in pool.processes():
        pool.exits(process)
    assert failures(pool) == 1


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("crashes", [False, True])
def test_an_application_that_never_starts_costs_at_most_eight_spawns_a_minute(jitter: float, crashes: bool) -> None:
    """R42, whatever is asked of it meanwhile."""
    pool = DrivenPool()
    pool.add(min_instances=1)
    begun = [pool.now]
    while pool.now < begun[0] + 300.0:
        if pool.attempts() and crashes:
            pool.spawned()
            pool.policy.process_exited(pool.processes()[0], pool.now, jitter)
        elif pool.attempts():
            pool.failed(jitter=jitter)
        pool.checkout()
        before = pool.policy.state.last_attempt
        pool.tick_at_deadline()
        begun += [pool.now] * (pool.policy.state.last_attempt - before)
    for start in begun:
        assert sum(start <= moment < start + 60.0 for moment in begun) <= 8


class TestUnanswered:
    """KE6, fault 10: a process that ends sessions without an answer, and lives."""

    def test_after_a_few_in_a_row_it_is_replaced(self) -> None:
        pool = a_fresh_process()
        pool.close(pool.take().session)
        [process] = pool.processes()
        for _ in range(UNANSWERED_TOLERATED - 1):
            assert pool.close(pool.take().session, SessionOutcome.UNANSWERED) == []
        commands = pool.close(pool.take().session, SessionOutcome.UNANSWERED)
        assert retired(commands) == [(process, Reason.UNANSWERED)]
        assert spawns(commands) == [(SHOP, Reason.REPLACE)]

    def test_an_answer_in_between_begins_a_new_row(self) -> None:
        pool = a_fresh_process()
        for _ in range(4):
            for _ in range(UNANSWERED_TOLERATED - 1):
                assert pool.close(pool.take().session, SessionOutcome.UNANSWERED) == []
            pool.close(pool.take().session)
        assert len(pool.processes()) == 1

    def test_one_that_never_answered_has_failed_to_start(self) -> None:
        """So an application of which every process is like this is not spawned as fast as it is asked for."""
        pool = a_fresh_process()
        for _ in range(UNANSWERED_TOLERATED):
            pool.close(pool.take().session, SessionOutcome.UNANSWERED)
        assert failures(pool) == 1
        assert pool.attempts() == []

    def test_the_second_try_goes_to_another_and_waits_for_it(self) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(min_instances=2)
        pool.spawned()
        pool.spawned()
        bad, well = pool.processes()
        tried, busy = pool.take(), pool.take()
        assert (tried.process, busy.process) == (bad, well)
        pool.close(tried.session, SessionOutcome.UNANSWERED)
        again = WaiterId(99)
        assert pool.checked(pool.policy.checkout(again, SHOP, pool.now, bad)) == []
        assert granted(pool.checkout()) == [(WaiterId(3), bad)], "who does not avoid it need not wait"
        assert granted(pool.close(busy.session)) == [(again, well)]

    @pytest.mark.parametrize("how", ["exit", "detach"])
    def test_it_goes_to_the_same_if_that_is_the_only_one_that_is_left(self, how: str) -> None:
        pool = DrivenPool(max_pool_size=2)
        pool.add(min_instances=2)
        pool.spawned()
        pool.spawned()
        bad, well = pool.processes()
        tried = pool.take()
        pool.take()
        pool.close(tried.session, SessionOutcome.UNANSWERED)
        again = WaiterId(99)
        pool.checked(pool.policy.checkout(again, SHOP, pool.now, bad))
        commands = pool.exits(well) if how == "exit" else pool.checked(pool.policy.detach(well, pool.now))
        assert granted(commands) == [(again, bad)]


def test_an_exit_explains_the_failure_that_its_process_is_blamed_for_and_no_other() -> None:
    group = GroupState(SHOP, GroupLimits())
    process = ProcessState(ProcessId(0), group, 1, 0, 0.0, 0.0)
    process.blamed_at = group.backoff.failed_at = 5.0
    explain(process, FAILURE)
    assert group.backoff.failure is FAILURE
    explain(process, None)
    assert group.backoff.failure is FAILURE, "an exit without evidence takes none away"
    group.backoff.failure, process.blamed_at = None, 4.0
    explain(process, FAILURE)
    assert group.backoff.failure is None, "another one has failed since"


def test_age_is_looked_at_before_a_crash_is_counted() -> None:
    """HO5: nothing ticked since one process became old enough; the crash of another is the first again."""
    pool = DrivenPool(backoff_first=0.5, backoff_max=30.0, max_concurrent_spawns=2)
    pool.add(min_instances=2)
    pool.failed()
    while len(pool.processes()) < 2:
        pool.now += 30.0
        if not pool.attempts():
            pool.tick()
        pool.spawned()
    assert failures(pool) == 1
    pool.exits(pool.processes()[-1])
    assert failures(pool) == 1
