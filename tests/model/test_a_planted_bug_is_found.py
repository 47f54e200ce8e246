"""The model test is itself tested: policies that are subtly wrong do not get past it."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test
from searches import same_each_time
from test_pool_machine import PoolMachine

from passenger_trio.core.commands import Command, Grant, Reason, Refuse
from passenger_trio.core.model import AttemptId, GroupKey, SessionId, SessionOutcome, SpawnFailure, WaiterId
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.errors import InvariantBroken

# No shrinking and no database: the question is whether it is found, and the answer is the same each time.
search = same_each_time(50, 50)
"""Each planted bug is found by one of the first fourteen examples. (``test_pool_machine`` searches at length.)"""


class AGrantIsNotCounted(PoolPolicy):
    """The family of bugs that other pools have had: what was handed out is still seen as free."""

    def checkout_nowait(self, key: GroupKey, now: float) -> Grant | None:
        grant = super().checkout_nowait(key, now)
        if grant is not None:
            self.state.processes[grant.process].sessions -= 1
        return grant


class AWaiterIsForgotten(PoolPolicy):
    """An answer gets lost."""

    def session_closed(self, session: SessionId, outcome: SessionOutcome, now: float) -> list[Command]:
        commands = super().session_closed(session, outcome, now)
        return [command for command in commands if not isinstance(command, Grant)]


class AFailureRefusesEverybody(PoolPolicy):
    """As Passenger does: a failed spawn is told to all who wait, although a live process could serve them."""

    def spawn_failed(
        self, attempt: AttemptId, failure: SpawnFailure | None, now: float, jitter: float
    ) -> list[Command]:
        group = self.state.attempts[attempt].group
        commands = super().spawn_failed(attempt, failure, now, jitter)
        refused: list[WaiterId] = list(group.waiters)
        for waiter in refused:
            self.abandon(waiter, now)
        return [*commands, *(Refuse(waiter, Reason.SPAWN_FAILED, failure, 1.0) for waiter in refused)]


class WhoHangsKeepsItsSlot(PoolPolicy):
    """Fault 14: what loads for ever keeps others from being loaded."""

    def tick(self, now: float) -> list[Command]:
        for attempt in self.state.attempts.values():
            attempt.slow_at = 1e9
        return super().tick(now)


@pytest.mark.parametrize(
    "policy", [AGrantIsNotCounted, AWaiterIsForgotten, AFailureRefusesEverybody, WhoHangsKeepsItsSlot]
)
def test_a_planted_bug_is_found(policy: type[PoolPolicy]) -> None:
    class Machine(PoolMachine):
        policy_class = policy

    with pytest.raises((InvariantBroken, AssertionError, KeyError)):
        # It ends with the first example that finds it.
        run_state_machine_as_test(Machine, settings=same_each_time(2000, 50))  # type: ignore[no-untyped-call]


def test_the_search_finds_nothing_in_the_policy_itself() -> None:
    run_state_machine_as_test(PoolMachine, settings=search)  # type: ignore[no-untyped-call]
