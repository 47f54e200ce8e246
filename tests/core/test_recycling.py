"""Requests, age, memory and time: for what a process is replaced, and for what it is killed."""

from __future__ import annotations

import math

import pytest
from driven_pool import SHOP, DrivenPool, granted, refused, retired, spawns

from passenger_trio.core import recycling
from passenger_trio.core.commands import Grant, Kill, Reason, Refuse
from passenger_trio.core.model import ProcessId
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.recycling import is_replacement_due
from passenger_trio.core.state import GroupState, ProcessState


class TestWorn:
    def test_after_its_last_request_a_process_is_replaced_but_serves_until_then(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, max_requests=2)
        pool.spawned()
        [old] = pool.processes()
        pool.close(pool.take().session)
        assert spawns(pool.close(pool.take().session)) == [(SHOP, Reason.MAX_REQUESTS)]
        assert pool.take().process == old
        assert old not in [process for process, _ in retired(pool.spawned())]
        assert old not in pool.processes()

    def test_the_jitter_takes_off_requests(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, max_requests=10, max_requests_jitter=5)
        pool.policy.spawn_succeeded(pool.attempts()[0], ProcessId(7), 1, pool.now, 0.99)
        assert pool.policy.state.processes[ProcessId(7)].replace_at == 6

    def test_in_a_full_pool_too(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=1, max_requests=1)
        pool.spawned()
        pool.close(pool.take().session)
        assert [reason for _, reason in retired(pool.spawned())] == [Reason.MAX_REQUESTS]
        assert len(pool.processes()) == 1

    def test_after_its_lifetime(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, max_process_lifetime=60.0)
        pool.spawned()
        assert pool.policy.next_deadline() == pool.now + 60.0
        assert spawns(pool.tick(60.0)) == [(SHOP, Reason.LIFETIME)]
        assert [reason for _, reason in retired(pool.spawned())] == [Reason.LIFETIME]

    def test_one_that_is_too_large(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, memory_limit=100)
        pool.spawned()
        [process] = pool.processes()
        assert pool.checked(pool.policy.sampled(process, 100, pool.now)) == []
        assert spawns(pool.checked(pool.policy.sampled(process, 101, pool.now))) == [(SHOP, Reason.MEMORY)]
        assert pool.checked(pool.policy.sampled(process, 101, pool.now)) == []

    def test_a_replacement_that_fails_is_tried_again_and_what_is_worn_serves_on(self) -> None:
        pool = DrivenPool(backoff_first=5.0)
        pool.add(min_instances=1, max_requests=1)
        pool.spawned()
        [old] = pool.processes()
        pool.close(pool.take().session)
        pool.failed()
        assert pool.processes() == [old]
        assert spawns(pool.tick(5.0)) == [(SHOP, Reason.MAX_REQUESTS)]


class TestInAdvance:
    """Fault 32: with ``--max-requests 5`` and one process it was 7 to 13 requests forked, 66 to 96 direct."""

    def served(self, most: int, rate: float, spawn_time: float, processes: int = 8) -> list[int]:
        """How many requests each process serves of a steady stream, one at a time."""
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=1, max_requests=most)
        pool.now += spawn_time
        pool.spawned()
        counts: list[int] = []
        begun: float | None = None
        count = 0
        while len(counts) < processes:
            [serves] = pool.processes()
            pool.now += 1 / rate
            count += 1
            if spawns(pool.close(pool.take().session)):
                begun = pool.now
            if begun is not None and pool.now >= begun + spawn_time - 1e-9:
                for process, _ in retired(pool.spawned()):
                    pool.exits(process)
                begun = None
            if pool.processes() != [serves]:
                counts.append(count)
                count = 0
        return counts

    @pytest.mark.parametrize("rate", [1.0, 50.0, 300.0])
    @pytest.mark.parametrize("spawn_time", [0.01, 0.3])
    def test_a_process_serves_about_as_many_as_it_may(self, rate: float, spawn_time: float) -> None:
        for counts in (self.served(200, rate, spawn_time), self.served(1000, rate, spawn_time, 3)):
            most = 200 if len(counts) == 8 else 1000
            assert all(0.9 * most <= count <= 1.05 * most for count in counts), counts

    def test_where_a_spawn_lasts_longer_than_its_requests_it_serves_those_that_come_during_one(self) -> None:
        assert max(self.served(5, 300.0, 0.3)) <= 300 * 0.3 + 2

    def test_a_forked_one_keeps_a_small_number_too(self) -> None:
        counts = self.served(5, 250.0, 0.012)
        assert all(4 <= count <= 6 for count in counts), counts

    def test_a_burst_after_a_quiet_hour_is_seen_in_time(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(min_instances=1, max_requests=1000)
        pool.now += 0.3
        pool.spawned()
        pool.close(pool.take().session)
        pool.tick(3600.0)
        count = 1
        while not pool.attempts():
            pool.now += 1 / 300
            pool.close(pool.take().session)
            count += 1
        assert 890 <= count <= 920

    def test_the_request_for_which_a_process_was_started_does_not_wear_it(self) -> None:
        """Fault 32: it comes at once, and ends soon; that is no rate at which requests come."""
        pool = DrivenPool()
        pool.add(min_instances=0, max_requests=500)
        pool.wait()
        pool.now += 1.0
        [grant] = [command for command in pool.spawned() if isinstance(command, Grant)]
        pool.now += 0.002
        assert pool.close(grant.session) == []

    def test_most_requests_cost_no_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks = 0
        is_time = recycling.is_replacement_due

        def counted(process: ProcessState, now: float) -> bool:
            nonlocal looks
            looks += 1
            return is_time(process, now)

        monkeypatch.setattr(recycling, "is_replacement_due", counted)
        self.served(10_000, 100.0, 0.3, 1)
        assert looks < 40


class TestKilled:
    def test_one_that_is_much_too_large_is_killed_once_and_replaced(self) -> None:
        pool = DrivenPool()
        pool.add(min_instances=1, hard_memory_limit=100)
        pool.spawned()
        [process] = pool.processes()
        pool.take()
        assert pool.checked(pool.policy.sampled(process, 100, pool.now)) == [], "as much as it may have"
        commands = pool.checked(pool.policy.sampled(process, 101, pool.now))
        assert commands[0] == Kill(process, Reason.MEMORY)
        assert spawns(commands) == [(SHOP, Reason.REPLACE)]
        assert pool.checked(pool.policy.sampled(process, 101, pool.now)) == []
        assert pool.exits(process) == []
        assert pool.policy.sampled(process, 101, pool.now) == []

    def test_a_request_that_lasts_too_long(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1, max_request_time=10.0)
        grant = pool.take()
        assert pool.policy.next_deadline() == pool.now + 10.0
        assert pool.tick(9.0) == []
        commands = pool.tick(1.0)
        assert commands[0] == Kill(grant.process, Reason.REQUEST_TIME, grant.session)
        assert spawns(commands) == [(SHOP, Reason.MIN_INSTANCES)]
        assert pool.policy.statistics().groups[0].failures == 0

    def test_one_that_has_ended_is_not_looked_for(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1, max_request_time=10.0)
        pool.close(pool.take().session)
        assert pool.policy.next_deadline() == math.inf or pool.tick(20.0) == []

    def test_after_a_pause_of_ours_it_gets_a_second_more(self) -> None:
        """F52: the response may be there already, and nobody has read it yet."""
        pool = DrivenPool()
        pool.add(warm=1, max_request_time=10.0)
        grant = pool.take()
        assert pool.tick(40.0) == []
        assert pool.policy.next_deadline() == pool.now + 1.0
        assert pool.tick(1.0)[0] == Kill(grant.process, Reason.REQUEST_TIME, grant.session)

    def test_also_while_shutting_down(self) -> None:
        pool = DrivenPool()
        pool.add(warm=1, max_request_time=10.0)
        grant = pool.take()
        pool.shut_down()
        assert pool.tick(10.0) == [Kill(grant.process, Reason.REQUEST_TIME, grant.session)]


class TestQueueTime:
    def test_who_has_waited_for_too_long_is_refused_and_the_others_wait(self) -> None:
        pool = DrivenPool(max_pool_size=1)
        pool.add(warm=1, max_request_queue_time=3.0)
        session = pool.take().session
        first = pool.wait()
        pool.now += 2.0
        second = pool.wait()
        assert pool.policy.next_deadline() == pool.now + 1.0
        assert pool.tick(1.0) == [Refuse(first, Reason.QUEUE_TIME)]
        assert refused(pool.tick(1.0)) == []
        assert [waiter for waiter, _ in granted(pool.close(session))] == [second]


def test_a_forced_concurrency_is_what_counts() -> None:
    pool = DrivenPool()
    pool.add(min_instances=1, force_concurrency=2)
    pool.spawned(concurrency=8)
    pool.take()
    pool.take()
    assert pool.nowait() is None


def test_the_next_look_is_no_further_ahead_than_half_of_the_way() -> None:
    group = GroupState(SHOP, GroupLimits())
    process = ProcessState(ProcessId(0), group, 1, 0, 0.0, 0.0)
    process.processed, process.replace_at = 50, 100
    assert not is_replacement_due(process, 1e6)
    assert process.looks_at == 75
    process.processed = 99
    assert not is_replacement_due(process, 1e6)
    assert process.looks_at == 100, "one request ahead, at the least"
    process.processed = 100
    assert is_replacement_due(process, 1e6)
