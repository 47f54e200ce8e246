"""A policy with a clock and short words, for tests that tell a story. It holds every law after every step."""

from __future__ import annotations

import math
from typing import Any

from passenger_trio.core.commands import Command, Grant, Reason, Refuse, Retire, StartSpawn
from passenger_trio.core.health import Facts, ask, has_capacity
from passenger_trio.core.invariants import check
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import (
    AttemptId,
    ErrorCategory,
    GroupKey,
    PreloaderId,
    ProcessId,
    SessionId,
    SessionOutcome,
    SpawnFailure,
    WaiterId,
)
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupGauges

SHOP = GroupKey("shop", "test")
BLOG = GroupKey("blog", "test")
WIKI = GroupKey("wiki", "test")
MAIL = GroupKey("mail", "test")

FIRST, SECOND = PreloaderId(1), PreloaderId(2)

FAILURE = SpawnFailure(
    error_id="e1",
    category=ErrorCategory.APPLICATION,
    summary="it does not start",
    problem="",
    solution="",
    journey=Journey.begin(JourneyType.SPAWN_DIRECTLY),
)


class DrivenPool:
    """``pool.now`` is the clock; it moves when a test says so."""

    def __init__(self, **limits: Any) -> None:
        self.policy = PoolPolicy(PoolLimits(**limits))
        self.now = 1000.0
        self._last = 0

    def _next(self) -> int:
        self._last += 1
        return self._last

    def checked(self, commands: list[Command]) -> list[Command]:
        check(self.policy.state)
        self.check_gauges()
        return commands

    def check_gauges(self) -> None:
        """The numbers of the metrics are those of ``status``, and of the checks of health (OB1, OB3)."""
        for group in self.policy.statistics().groups:
            gauges = self.policy.gauges([group.key], self.now)[group.key]
            serving = [process for process in group.processes if process.state is EnabledStatus.ENABLED]
            busy = sum(process.sessions > 0 for process in serving)
            assert gauges == GroupGauges(
                waiting=group.queue_length,
                queue_limit=group.limits.max_request_queue_size,
                oldest_wait=max(
                    0.0, self.now - next(iter(self.policy.state.groups[group.key].waiters.values()), self.now)
                ),
                generation=group.generation,
                failures=group.failures,
                failed=group.last_failure is not None,
                circuit_open=group.backing_off_until is not None and group.backing_off_until > self.now,
                rejected=group.rejection is not None,
                busy=busy,
                idle=len(serving) - busy,
                spawning=len(group.attempts),
                leaving=len(group.processes) - len(serving),
            )
            [app] = [
                one
                for one in ask("readyz", Facts(True, False, self.policy.statistics([group.key]))).checks
                if one.is_app
            ]
            assert has_capacity(gauges) == (not app.reason)

    def add(self, key: GroupKey = SHOP, *, warm: int = 0, concurrency: int = 1, **limits: Any) -> list[Command]:
        """A group; with ``warm`` processes that came because somebody waited and left again."""
        commands = self.checked(self.policy.add_group(key, GroupLimits(**limits), self.now))
        if warm:
            for _ in range(warm):
                while self.nowait(key):
                    pass
                self.wait(key)
                self.spawned(self.attempts(key)[0], concurrency)
            assert len(self.processes(key)) == warm
            assert not self.attempts(key)
            for session in list(self.policy.state.sessions):
                self.close(session)
        return commands

    def attempts(self, key: GroupKey = SHOP) -> list[AttemptId]:
        return list(self.policy.state.groups[key].attempts)

    def processes(self, key: GroupKey = SHOP) -> list[ProcessId]:
        """Those that serve, oldest first."""
        return list(self.policy.state.groups[key].enabled)

    def queue(self, key: GroupKey = SHOP) -> list[WaiterId]:
        return list(self.policy.state.groups[key].waiters)

    def nowait(self, key: GroupKey = SHOP) -> Grant | None:
        grant = self.policy.checkout_nowait(key, self.now)
        check(self.policy.state)
        return grant

    def take(self, key: GroupKey = SHOP) -> Grant:
        grant = self.nowait(key)
        assert grant is not None
        return grant

    def checkout(self, key: GroupKey = SHOP) -> list[Command]:
        return self.checked(self.policy.checkout(WaiterId(self._next()), key, self.now))

    def wait(self, key: GroupKey = SHOP) -> WaiterId:
        """Check out and be queued."""
        commands = self.checkout(key)
        assert not any(isinstance(command, Grant | Refuse) for command in commands)
        return WaiterId(self._last)

    def abandon(self, waiter: WaiterId) -> None:
        assert self.checked(self.policy.abandon(waiter, self.now)) == []

    def close(self, session: SessionId, outcome: SessionOutcome = SessionOutcome.DONE) -> list[Command]:
        return self.checked(self.policy.session_closed(session, outcome, self.now))

    def spawned(
        self, attempt: AttemptId | None = None, concurrency: int = 1, key: GroupKey = SHOP, size: int = 0
    ) -> list[Command]:
        attempt = self.attempts(key)[0] if attempt is None else attempt
        process = ProcessId(self._next())
        return self.checked(self.policy.spawn_succeeded(attempt, process, concurrency, self.now, size=size))

    def failed(
        self,
        failure: SpawnFailure | None = FAILURE,
        key: GroupKey = SHOP,
        jitter: float = 0.0,
        attempt: AttemptId | None = None,
    ) -> list[Command]:
        attempt = self.attempts(key)[0] if attempt is None else attempt
        return self.checked(self.policy.spawn_failed(attempt, failure, self.now, jitter))

    def unsafe(self, key: GroupKey = SHOP, generation: int = 1) -> list[Command]:
        return self.checked(self.policy.found_unsafe(key, generation, self.now))

    def exits(self, process: ProcessId, failure: SpawnFailure | None = None) -> list[Command]:
        return self.checked(self.policy.process_exited(process, self.now, 0.0, failure))

    def tick(self, seconds: float = 0.0) -> list[Command]:
        self.now += seconds
        commands = self.checked(self.policy.tick(self.now))
        assert self.policy.next_deadline() > self.now
        return commands

    def tick_at_deadline(self) -> list[Command]:
        deadline = self.policy.next_deadline()
        assert deadline < math.inf
        return self.tick(max(0.0, deadline - self.now))

    def restart(self, key: GroupKey = SHOP, *, hard: bool = False) -> list[Command]:
        return self.checked(self.policy.restart(key, self.now, hard=hard))

    def detach(self, process: ProcessId) -> list[Command]:
        return self.checked(self.policy.detach(process, self.now))

    def generations(self, key: GroupKey = SHOP) -> list[int]:
        """Of the processes that serve, oldest process first."""
        return [process.generation for process in self.policy.state.groups[key].enabled.values()]

    def shut_down(self) -> list[Command]:
        return self.checked(self.policy.shut_down(self.now))


def spawns(commands: list[Command]) -> list[tuple[GroupKey, Reason]]:
    return [(command.group, command.reason) for command in commands if isinstance(command, StartSpawn)]


def retired(commands: list[Command]) -> list[tuple[ProcessId, Reason]]:
    return [(command.process, command.reason) for command in commands if isinstance(command, Retire)]


def refused(commands: list[Command]) -> list[tuple[WaiterId, Reason]]:
    return [(command.waiter, command.reason) for command in commands if isinstance(command, Refuse)]


def granted(commands: list[Command]) -> list[tuple[WaiterId | None, ProcessId]]:
    return [(command.waiter, command.process) for command in commands if isinstance(command, Grant)]
