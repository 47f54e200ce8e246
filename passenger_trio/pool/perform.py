"""Command -> effect. Synchronous and total: a command never waits, and every kind of command has a
case here.

Only this module starts tasks in a group task. Only this module turns a refusal, which is a value,
into the error that the waiter gets.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, assert_never

from passenger_trio import events
from passenger_trio.core.commands import (
    AbandonSpawn,
    Command,
    Detach,
    EndGeneration,
    EndGroup,
    Grant,
    Kill,
    PoolEmpty,
    Reason,
    Refuse,
    RestartEnded,
    Retire,
    RetirePreloader,
    RunOobWork,
    StartSpawn,
    StillDraining,
    reason_word,
)
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.metric_counts import PoolTally
from passenger_trio.core.model import ErrorCategory, GroupKey, ProcessId, SpawnFailure, WaiterId
from passenger_trio.errors import (
    ApplicationRemoved,
    CheckoutError,
    PoolShutDown,
    RequestQueueFull,
    RequestQueueTimeout,
    SpawnError,
)
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.events import Events
from passenger_trio.pool.group_task import GroupTask

__all__ = ["Effects", "perform"]


class Effects(Protocol):
    """The parts of the pool that performing commands needs: one method for each kind of effect."""

    @property
    def current_time(self) -> Callable[[], float]:
        """The time, in monotonic seconds."""

    @property
    def events(self) -> Events: ...

    @property
    def tally(self) -> PoolTally: ...

    @property
    def group_tasks(self) -> Mapping[GroupKey, GroupTask]: ...

    def grant(self, grant: Grant, now: float) -> None: ...

    def refuse(self, id: WaiterId, error: CheckoutError) -> None: ...

    def detached(self, id: ProcessId, why: str) -> None: ...

    def retire(self, id: ProcessId, reason: Reason) -> None: ...

    def run_oob_work(self, command: RunOobWork) -> None: ...

    def tell_draining(self, draining: StillDraining) -> None: ...

    def kill(self, kill: Kill) -> None: ...

    def notify_changed(self) -> None: ...

    @property
    def on_spawn(self) -> Callable[[], None]: ...

    def end_group(self, key: GroupKey) -> None: ...

    def pool_empty(self) -> None: ...


def perform(pool: Effects, commands: Iterable[Command]) -> None:
    """Perform every command, in order."""
    for command in commands:
        match command:
            case Grant():
                pool.grant(command, pool.current_time())
            case Refuse():
                if command.reason is Reason.QUEUE_FULL:
                    pool.events.publish(events.QueueFull())
                pool.refuse(command.waiter, refusal(command))
            case StartSpawn():
                lines.spawn_begins(group=command.group, reason=command.reason.value)
                pool.tally.spawns_started[command.group, reason_word(command.reason.value)] += 1
                pool.group_tasks[command.group].start_attempt(command.attempt, command.generation)
                pool.on_spawn()
                pool.notify_changed()
            case AbandonSpawn():
                pool.group_tasks[command.group].abandon_attempt(command.attempt)
            case Detach():
                pool.detached(command.process, command.reason.value)
            case Retire():
                pool.retire(command.process, command.reason)
            case RunOobWork():
                pool.run_oob_work(command)
            case StillDraining():
                pool.tell_draining(command)
            case Kill():
                pool.kill(command)
            case RetirePreloader():
                lines.preloader_retired(group=command.group, reason=command.reason.value)
                pool.group_tasks[command.group].retire_preloader(command.generation)
            case EndGeneration():
                pool.group_tasks[command.group].end_generation(command.generation)
            case RestartEnded():
                _tell_restart(pool, command)
                pool.notify_changed()
            case EndGroup():
                pool.end_group(command.group)
            case PoolEmpty():
                pool.pool_empty()
            case _:
                assert_never(command)


def _tell_restart(pool: Effects, command: RestartEnded) -> None:
    kind = events.RestartRejected if command.rejected else events.RestartEnded
    outcome = "done" if not command.rejected else "rejected" if command.kept else "failed"
    pool.tally.restarts[command.group, outcome] += 1
    pool.events.publish(kind(group=str(command.group), generation=command.generation))
    if not command.rejected:
        lines.restart_ended(group=command.group, generation=command.generation)
        return
    write = lines.restart_rejected if command.kept else lines.restart_failed
    summary, error_id = (command.failure.summary, command.failure.error_id) if command.failure else ("", "")
    write(group=command.group, generation=command.generation, summary=summary, error_id=error_id)


def refusal(command: Refuse) -> CheckoutError:
    """The error for a refused waiter."""
    if command.reason is Reason.QUEUE_FULL:
        return RequestQueueFull()
    if command.reason is Reason.QUEUE_TIME:
        return RequestQueueTimeout()
    if command.reason is Reason.REMOVED:
        return ApplicationRemoved()
    if command.reason is Reason.SPAWN_FAILED:
        error = SpawnError(command.failure or _unexplained(command.group))
        if command.retry_after is not None:
            error.retry_after = max(1, math.ceil(command.retry_after))
        return error
    if command.reason is Reason.NO_STREAM:
        return CheckoutError(command.reason.value)
    return PoolShutDown()


def _unexplained(group: GroupKey | None) -> SpawnFailure:
    """The failure for processes that start and then break the session protocol: no spawn failed,
    and no process exited.
    """
    failure = SpawnFailure(
        error_id=secrets.token_hex(4),
        category=ErrorCategory.LOADER,
        summary="The application's processes start, but do not serve",
        problem="Each of them broke the session protocol, or could not be reached, before it had served a request.",
        solution="Look at the log and the output of the processes for what is wrong with their connections.",
        journey=Journey.begin(JourneyType.SPAWN_DIRECTLY),
    )
    lines.spawn_unexplained(group=group, summary=failure.summary, problem=failure.problem, error_id=failure.error_id)
    return failure
