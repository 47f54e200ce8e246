"""A recording replays: the same facts to a new policy give the same commands."""

from __future__ import annotations

import json
import random
from typing import Any, ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test
from searches import same_each_time
from test_pool_machine import PoolMachine

from passenger_trio.core import snapshot
from passenger_trio.core.commands import Command, Grant, Retire, StartSpawn
from passenger_trio.core.model import (
    GroupKey,
    ProcessId,
    SessionId,
    SessionOutcome,
    WaiterId,
)
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.recorder import CAPACITY, FACTS, Entry, RecordedPolicy, from_json, replay

SHOP = GroupKey("shop", "test")


def test_whatever_happens_a_dump_gives_the_same_commands_again() -> None:
    class Machine(PoolMachine):
        policy_class = RecordedPolicy
        replayed: ClassVar[int] = 0

        def teardown(self) -> None:
            super().teardown()
            if hasattr(self, "world"):
                policy = self.world.policy
                assert isinstance(policy, RecordedPolicy)
                assert policy.dump()()["whole"]
                for entry, answer in replay(json.loads(json.dumps(policy.dump()()))):
                    assert entry.answer == answer, entry
                    Machine.replayed += 1

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=same_each_time(40, 40),
    )
    assert Machine.replayed > 1000


def lively(policy: RecordedPolicy, facts: int) -> int:
    """So many facts, of a world in which requests come and go and processes start, break and end; how many were answered with something."""
    chance = random.Random(10)
    now = 0.0
    told = 0
    sessions: list[SessionId] = []
    commands: list[Command] = [
        command
        for name in ("shop", "blog")
        for command in policy.add_group(GroupKey(name, "test"), GroupLimits(min_instances=1, max_requests=50), now)
    ]
    while told < facts:
        told += 1
        now += 0.001
        if commands:
            command = commands.pop(0)
            if isinstance(command, Grant):
                sessions.append(command.session)
            elif isinstance(command, StartSpawn):
                commands += policy.spawn_succeeded(command.attempt, ProcessId(told), chance.choice([1, 2, 0]), now)
            elif isinstance(command, Retire):
                commands += policy.process_exited(command.process, now, 0.0)
            continue
        key = GroupKey(chance.choice(["shop", "shop", "blog"]), "test")
        if sessions and chance.random() < 0.5:
            session = sessions.pop(chance.randrange(len(sessions)))
            outcome = SessionOutcome.PROCESS_FAILED if chance.random() < 0.01 else SessionOutcome.DONE
            commands += policy.session_closed(session, outcome, now)
        elif chance.random() < 0.01:
            commands += policy.restart(key, now)
        elif chance.random() < 0.1:
            commands += policy.tick(now)
        elif (grant := policy.checkout_nowait(key, now)) is not None:
            sessions.append(grant.session)
        else:
            commands += policy.checkout(WaiterId(told), key, now)
    return told


@pytest.mark.parametrize("capacity", [1, 6, 40])
def test_a_dump_replays_from_the_middle(capacity: int) -> None:
    """KE10: with a recording that is far too short for what happens, and whatever state it begins in. A field that a snapshot lost would be found here."""

    class Recorded(RecordedPolicy):
        def __init__(self, limits: PoolLimits, **how: Any) -> None:
            super().__init__(limits, capacity, **how)

    class Machine(PoolMachine):
        policy_class = Recorded
        replayed: ClassVar[int] = 0
        cut: ClassVar[int] = 0

        def teardown(self) -> None:
            super().teardown()
            if hasattr(self, "world"):
                policy = self.world.policy
                assert isinstance(policy, RecordedPolicy)
                dump = json.loads(json.dumps(policy.dump()()))
                Machine.cut += not dump["whole"]
                for entry, answer in replay(dump):
                    assert entry.answer == answer, entry
                    Machine.replayed += 1

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=same_each_time(15, 40),
    )
    assert Machine.cut > 5
    assert Machine.replayed > 10


def test_the_state_is_kept_the_more_seldom_the_larger_it_is() -> None:
    """KE10, OP5: to keep it takes a time for each group, so with thousands of applications each fact would cost more."""
    policy = RecordedPolicy(PoolLimits(max_pool_size=4), capacity=10)
    for number in range(50):
        policy.add_group(GroupKey(f"shop{number}", "test"), GroupLimits(min_instances=0), 0.0)
    longest = 0
    for number in range(400):
        policy.tick(float(number))
        longest = max(longest, policy.length)
    assert longest >= 4 * 50
    dump = json.loads(json.dumps(policy.dump()()))
    assert not dump["whole"]
    assert all(entry.answer == answer for entry, answer in replay(dump))


def test_the_dump_after_twenty_thousand_facts_replays() -> None:
    """KE10: with processes that serve, wait, go and come, and the capacity that a server has."""
    policy = RecordedPolicy(PoolLimits(max_pool_size=4))
    assert lively(policy, 20_000) >= 20_000
    assert CAPACITY // 2 <= policy.length <= CAPACITY
    dump = json.loads(json.dumps(policy.dump()()))
    assert not dump["whole"]
    entries = list(replay(dump))
    assert len(entries) == policy.length
    assert all(entry.answer == answer for entry, answer in entries)


def test_the_oldest_goes_first_and_then_it_is_not_whole() -> None:
    policy = RecordedPolicy(PoolLimits(), capacity=4)
    policy.add_group(SHOP, GroupLimits(), 0.0)
    policy.tick(1.0)
    assert policy.dump()()["whole"]
    for number in range(2, 11):
        policy.tick(float(number))
    dump = policy.dump()()
    assert not dump["whole"]
    kept = [Entry(*from_json(entry)).arguments for entry in dump["entries"]]
    assert 0 < len(kept) < 10
    assert kept == [(float(number),) for number in range(11 - len(kept), 11)]


def test_OP5_no_picture_is_taken_while_thousands_of_groups_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """KE10: at a start the facts of all groups share one, as later ones do. What is kept begins with an empty pool."""
    taken: list[object] = []
    take = snapshot.take

    def count(root: object) -> snapshot.Picture:
        taken.append(root)
        return take(root)

    monkeypatch.setattr(snapshot, "take", count)
    policy = RecordedPolicy(PoolLimits(), capacity=100)
    for number in range(300):
        policy.add_group(GroupKey(f"shop{number}", "test"), GroupLimits(min_instances=0), 0.0)
    assert not taken
    assert policy.dump()()["whole"]
    for number in range(4 * 300):
        policy.tick(float(number))
    assert taken == [policy.state]


def test_a_policy_has_nothing_but_its_state() -> None:
    """KE10: what else it had would be in no snapshot."""
    assert set(vars(PoolPolicy(PoolLimits()))) == {"state"}


def test_every_fact_is_recorded() -> None:
    asks = {"has_queue", "is_alone", "is_timed", "is_troubled", "next_deadline", "restart_target", "statistics"} | {
        "budget",
        "gauges",
        "group_statistics",
        "active_statistics",
        "may_disable",
    }
    assert {name for name in dir(PoolPolicy) if not name.startswith("_")} == {*FACTS, *asks}


def test_a_waiter_of_a_front_that_stands_for_another_request_is_a_fact() -> None:
    """KE10, FR1: who is served first depends on it, so a replay without it would grant another one."""
    policy = RecordedPolicy(PoolLimits())
    [start] = policy.add_group(SHOP, GroupLimits(min_instances=1), 0.0)
    assert isinstance(start, StartSpawn)
    for number in (1, 2):
        policy.checkout(WaiterId(number), SHOP, float(number), None, None, float(number))
    policy.renew(WaiterId(1), 3.0)
    [grant] = policy.spawn_succeeded(start.attempt, ProcessId(1), 1, 4.0)
    assert isinstance(grant, Grant)
    assert grant.waiter == WaiterId(2)
    for entry, answer in replay(json.loads(json.dumps(policy.dump()()))):
        assert entry.answer == answer, entry
