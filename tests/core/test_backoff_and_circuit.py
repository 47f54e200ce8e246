"""How long a group that does not start is left alone."""

from __future__ import annotations

import math

import pytest
from driven_pool import BLOG, FAILURE, SHOP, WIKI, DrivenPool, refused, spawns

from passenger_trio.core.backoff_and_circuit import CRASHES_TOLERATED, Backoff
from passenger_trio.core.commands import Reason
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.scaling import SLOW_AFTER

LIMITS = PoolLimits(backoff_first=0.1, backoff_factor=2.0, backoff_max=30.0)


def fail(backoff: Backoff, now: float, jitter: float = 0.0, crash: bool = False) -> float:
    """Let it fail; the seconds that it then waits."""
    backoff.record(now, jitter, LIMITS, failure=None if crash else FAILURE, crash=crash)
    return backoff.until - now


def test_each_failure_in_a_row_doubles_the_wait_up_to_the_longest() -> None:
    backoff = Backoff()
    waits = [fail(backoff, 100.0 * n) for n in range(11)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0])


def test_failures_for_weeks_do_not_overflow() -> None:
    backoff = Backoff()
    for n in range(5000):
        assert fail(backoff, 100.0 * n) <= 30.0 + 1e-6


def test_a_first_wait_longer_than_the_longest_is_the_longest() -> None:
    backoff = Backoff()
    backoff.record(0.0, 0.0, PoolLimits(backoff_first=60.0, backoff_max=5.0), failure=None, crash=True)
    assert backoff.until == 5.0


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_the_jitter_shortens_a_wait_by_a_quarter_at_most(jitter: float) -> None:
    wait = fail(Backoff(), 0.0, jitter)
    assert 0.075 < wait <= 0.1


def test_a_crash_loop_is_spawned_at_most_three_times_a_minute_in_the_end() -> None:
    backoff = Backoff()
    now = 0.0
    for _ in range(20):
        now += fail(backoff, now, jitter=0.999, crash=True)
    assert fail(backoff, now, jitter=0.999, crash=True) > 20.0


def test_a_failure_says_whether_it_counted() -> None:
    backoff = Backoff()
    assert backoff.record(10.0, 0.0, LIMITS, failure=None, crash=True)
    assert not backoff.record(10.05, 0.0, LIMITS, failure=None, crash=True), "the same trouble"
    assert backoff.record(backoff.until, 0.0, LIMITS, failure=None, crash=True)


def test_who_lifts_it_tries_again_and_the_next_failure_waits_for_longer() -> None:
    backoff = Backoff()
    fail(backoff, 10.0)
    backoff.lift()
    assert not backoff.in_force(10.0)
    assert math.isinf(backoff.until), "it is a deadline no more"
    assert fail(backoff, 10.0) == pytest.approx(0.2)


def test_what_fails_while_a_failure_is_waited_for_is_the_same_trouble() -> None:
    backoff = Backoff()
    fail(backoff, 10.0)
    until = backoff.until
    fail(backoff, 10.05)
    assert (backoff.failures, backoff.until) == (1, until)


def test_what_fails_when_the_back_off_is_over_counts() -> None:
    backoff = Backoff()
    fail(backoff, 10.0)
    fail(backoff, 11.0)
    assert backoff.failures == 2


def test_a_process_that_was_there_before_the_failure_proves_nothing() -> None:
    backoff = Backoff()
    fail(backoff, 10.0)
    assert not backoff.proven(since=9.0)
    assert backoff.failures == 1
    assert backoff.proven(since=12.0)
    assert (backoff.failures, backoff.until, backoff.failure) == (0, -math.inf, None)
    assert not backoff.proven(since=13.0)


def test_a_failed_spawn_opens_the_circuit_and_crashes_open_it_when_they_are_many() -> None:
    assert fail(spawn := Backoff(), 0.0) > 0
    assert spawn.opened
    crashes = Backoff()
    for n in range(CRASHES_TOLERATED):
        fail(crashes, 100.0 * n, crash=True)
        assert not crashes.opened
    fail(crashes, 1000.0, crash=True)
    assert crashes.opened


class TestInThePool:
    def test_a_failed_spawn_is_tried_again_when_the_wait_is_over(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        assert pool.failed() == []
        assert pool.policy.next_deadline() == pytest.approx(pool.now + 0.1)
        assert pool.tick(0.05) == []
        assert spawns(pool.tick_at_deadline()) == [(SHOP, Reason.RETRY)]

    def test_a_group_that_needs_nothing_is_not_tried_again(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.wait()
        pool.failed()
        assert pool.tick_at_deadline() == []
        assert pool.policy.next_deadline() == math.inf

    def test_one_probe_at_a_time_until_it_is_well_again(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=4)
        pool.add(min_instances=3)
        for _ in range(3):
            pool.failed()
        assert len(spawns(pool.tick(1.0))) == 1
        assert len(spawns(pool.spawned())) == 1
        assert len(spawns(pool.close(pool.take().session))) == 1  # well again: beside the one that is under way

    def test_a_bad_group_does_not_hold_up_another(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=1)
        for key in (SHOP, BLOG, WIKI):
            pool.add(key, min_instances=1)
        assert not pool.attempts(WIKI)
        assert spawns(pool.failed(key=SHOP)) == [(WIKI, Reason.MIN_INSTANCES)]

    def test_a_retry_that_finds_no_slot_is_no_deadline(self) -> None:
        pool = DrivenPool(max_concurrent_spawns=1)
        for key in (SHOP, BLOG, WIKI):
            pool.add(key, min_instances=1)
        pool.failed(key=SHOP)
        assert pool.tick_at_deadline() == []
        assert pool.policy.next_deadline() == 1000.0 + SLOW_AFTER
        assert spawns(pool.spawned(key=BLOG)) == [(SHOP, Reason.RETRY)]

    def test_an_attempt_that_was_abandoned_unasked_does_not_come_back_at_once(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        assert pool.failed(None) == []
        assert spawns(pool.tick_at_deadline()) == [(SHOP, Reason.RETRY)]

    def test_an_attempt_that_was_abandoned_unasked_refuses_nobody(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=0)
        pool.wait()
        assert refused(pool.failed(None)) == []
        pool.tick_at_deadline()
        pool.spawned()
        assert pool.queue() == []

    def test_an_attempt_that_was_abandoned_unasked_takes_no_evidence_away(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1)
        pool.failed()
        pool.tick_at_deadline()
        pool.failed(None)
        assert pool.policy.statistics().groups[0].last_failure is FAILURE
