"""A recording replays: the same facts to a new policy give the same commands."""

from __future__ import annotations

import json
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from test_pool_machine import PoolMachine

from passenger_trio.core.model import GroupKey, GroupLimits, PoolLimits
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.recorder import FACTS, RecordedPolicy, replay

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
                assert policy.is_whole
                for entry, answer in replay(json.loads(json.dumps(policy.dump()()))):
                    assert entry.answer == answer, entry
                    Machine.replayed += 1

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Machine.replayed > 1000


def test_the_oldest_goes_first_and_then_it_is_not_whole() -> None:
    policy = RecordedPolicy(PoolLimits(), capacity=2)
    policy.add_group(SHOP, GroupLimits(), 0.0)
    assert policy.is_whole
    policy.tick(1.0)
    policy.tick(2.0)
    assert [arguments for _, arguments, _, _ in policy.recording] == [(1.0,), (2.0,)]
    assert not policy.dump()()["whole"]


def test_every_fact_is_recorded() -> None:
    asks = {"has_queue", "is_timed", "next_deadline", "restart_target", "statistics"}
    assert {name for name in vars(PoolPolicy) if not name.startswith("_")} == {*FACTS, *asks}
