"""What the policy decides when a spawn ends, and when a process or a preloader starts or exits.

``policy`` has the contract of each function, under the same name.
"""

from __future__ import annotations

from passenger_trio.core import (
    active_groups,
    follow_up,
    group_restarts,
    oob_work,
    processes_by_memory,
    proven_or_crashed,
    recycling,
    retiring,
    routing,
    scaling,
    waitlist,
)
from passenger_trio.core.commands import Command, Reason, Retire
from passenger_trio.core.model import AttemptId, GroupKey, PreloaderId, ProcessId, SpawnFailure
from passenger_trio.core.state import EnabledStatus, PoolState, ProcessState
from passenger_trio.errors import InvariantBroken


def spawn_succeeded(
    state: PoolState,
    attempt: AttemptId,
    process: ProcessId,
    concurrency: int,
    now: float,
    jitter: float = 0.0,
    size: int = 0,
) -> list[Command]:
    """``PoolPolicy.spawn_succeeded``."""
    if process in state.processes:
        raise InvariantBroken(f"process {process} comes twice")
    ended = follow_up.end_attempt(state, attempt, now)
    group = ended.group
    processes_by_memory.estimated(group, size)
    state.last_order += 1
    if group.limits.force_concurrency >= 0:
        concurrency = group.limits.force_concurrency
    new = ProcessState(process, group, concurrency, state.last_order, now, now, generation=ended.generation)
    if not state.open:
        routing.attach_detached(state, new)
        return [Retire(process, Reason.SHUT_DOWN)]
    commands = group_restarts.admit(state, ended, new, now)
    if new.status is EnabledStatus.ENABLED:
        group.expected_concurrency = concurrency
        group.grace = scaling.GRACE
        group.spawn_time = now - ended.begun
        recycling.attached(new, now, jitter)
        retiring.watch_idleness(state, group, now)
        commands += waitlist.serve(state, group, now)
        commands += oob_work.begin(state, group, now)
    commands += group_restarts.conclude(group) + follow_up.let_go(state, now)
    return commands + scaling.start_spawns(state, now)


def spawn_failed(
    state: PoolState, attempt: AttemptId, failure: SpawnFailure | None, now: float, jitter: float
) -> list[Command]:
    """``PoolPolicy.spawn_failed``."""
    ended = follow_up.end_attempt(state, attempt, now)
    if not state.open:
        return follow_up.empty(state)
    group = ended.group
    commands: list[Command] = []
    if ended.generation == group.candidate:
        commands += group_restarts.reject(group, failure, now)
        retiring.watch_idleness(state, group, now)
    elif not ended.abandoned:
        proven_or_crashed.look_at_age(group, now, state.limits)
        group.backoff.record(now, jitter, state.limits, failure=failure, crash=False)
        if ended.generation == group.generation:
            commands += group_restarts.give_up(group, failure, now)
            commands += follow_up.retire_suspect_preloader(state, group)
    commands += group_restarts.conclude(group)
    commands += waitlist.refuse_if_unservable(state, group, now) + follow_up.let_go(state, now)
    return commands + scaling.start_spawns(state, now)


def process_exited(
    state: PoolState, process: ProcessId, now: float, jitter: float, failure: SpawnFailure | None = None
) -> list[Command]:
    """``PoolPolicy.process_exited``."""
    gone = state.processes.get(process)
    if gone is None:
        raise InvariantBroken(f"process {process} exits, but there is none")
    by_itself = gone.is_attached
    if not by_itself:
        proven_or_crashed.explain(gone, failure)
    elif state.open:
        proven_or_crashed.record_crash(gone, now, jitter, state.limits, failure)
    routing.forget(state, gone)
    if by_itself and state.open:
        distrusted = follow_up.retire_suspect_preloader(state, gone.group)
        return distrusted + follow_up.left(state, gone, now, lost=gone.group)
    return follow_up.left(state, gone, now, lost=gone.group if by_itself else None)


def sampled(state: PoolState, process: ProcessId, size: int, now: float) -> list[Command]:
    """``PoolPolicy.sampled``."""
    measured = state.processes.get(process)
    if measured is None:
        return []
    commands = recycling.sampled(state, measured, size)
    if commands:
        return commands + follow_up.left(state, measured, now, lost=measured.group)
    return scaling.start_spawns(state, now, (measured.group,))


def preloader_started(
    state: PoolState, key: GroupKey, generation: int, preloader: PreloaderId, now: float
) -> list[Command]:
    """``PoolPolicy.preloader_started``."""
    group = state.groups[key]
    of = group.generations.get(generation)
    if of is None or preloader in of.preloaders:
        raise InvariantBroken(f"generation {generation} of {key} has preloader {preloader}, but has it, or has ended")
    of.preloaders[preloader] = False
    active_groups.set_active(state, group)
    of.preloader_used = now
    if not state.open:
        return [group_restarts.retire_preloader(group, of, Reason.SHUT_DOWN)]
    return group_restarts.conclude(group) + follow_up.let_go(state, now)


def found_unsafe(state: PoolState, key: GroupKey, generation: int, now: float) -> list[Command]:
    """``PoolPolicy.found_unsafe``."""
    group = state.groups[key]
    of = group.generations.get(generation)
    if of is None:
        raise InvariantBroken(f"generation {generation} of {key} is unsafe to fork, but has ended")
    commands = scaling.fork_apart(state, group, of, now)
    return commands + scaling.start_spawns(state, now)


def preloader_ended(
    state: PoolState, key: GroupKey, generation: int, preloader: PreloaderId, now: float
) -> list[Command]:
    """``PoolPolicy.preloader_ended``."""
    group = state.groups[key]
    of = group.generations.get(generation)
    if of is None or preloader not in of.preloaders:
        raise InvariantBroken(f"preloader {preloader} of {key} ends, but there is none")
    del of.preloaders[preloader]
    if not state.open:
        return follow_up.empty(state)
    return group_restarts.conclude(group) + follow_up.let_go(state, now)
