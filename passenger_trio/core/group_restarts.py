"""Restarts: how a group moves from one version of its application to the next without failing a request.

This module knows generations. It never knows files, URLs or how an application is loaded. A
*generation* is "the code as it is when its first process is spawned"; the shell gives each generation
its own spawner (and preloader).

A rolling restart
    1.  ``restart`` names a *candidate*: the next generation. One process of it is spawned as a
        *replacement*, above the limits on enabled processes. The old generation keeps
        serving, and demand still spawns processes of it.
    2.  If the process starts, the candidate is *accepted*. From now on the group spawns this
        generation, and every older process is to be replaced (``group.to_replace``). The new process
        takes the place of the first of them.
        If it does not start, the candidate is *rejected*. The old generation keeps serving. Its idle
        processes and its preloader are kept, because they cannot be started again. Operators are told.
        Only another restart changes this.
    3.  While older processes remain, one replacement at a time is spawned, and retires one of them. The same
        step replaces processes for their age or their size.

Laws:

* No process is retired before its replacement is ready. So capacity never falls, and a group never
  stands empty.
* A group has one replacement at a time. A replacement may exceed the hard ceiling while it starts
  (``capacity.has_headroom``): old processes that hang do not block the next version. They have
  ``max_drain_time`` (``drain_time``).
* A restart requested while the candidate starts follows after it: at most one runs and one is
  remembered, however many are requested. At any other time it begins at once, even while older
  processes still wait for their replacement. If no process serves, it replaces the attempt under way, which may hang.
* The failure of a candidate is not a failure of the group: the group does not back off, and no waiter
  is refused for it.
* A generation ends when it neither serves nor is tried, and it has no attempt, no preloader and no
  process left. (Helpers that an application started while it was loaded end with its spawner; its
  processes use them until then.)

If no process serves that could be kept (the group is idle or does not start, or the restart is hard),
the group spawns the new generation from then on. That generation is *on trial*: one process of it is
always spawned, even with a minimum of zero and in a full pool. So every restart has a definite end:
either a process of the new generation was ready, or it does not start.

A hard restart retires everything at once; requests that arrive meanwhile wait. ``always_restart`` (for
development) runs a hard restart before each request that would not find fresh processes.
"""

from __future__ import annotations

from passenger_trio.core import capacity, retiring, routing
from passenger_trio.core.commands import (
    Command,
    EndGeneration,
    Reason,
    RestartEnded,
    Retire,
    RetirePreloader,
)
from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.state import Attempt, GenerationState, GroupState, PoolState, ProcessState, Rejection


def begin(group: GroupState) -> list[Command]:
    """Request a rolling restart."""
    commands: list[Command] = []
    if group.replacement is not None and not group.enabled:
        # The replacement may hang, and the group would not serve until its start timeout. Try the requested version instead.
        commands += retiring.abandon(group.replacement, Reason.RESTART)
    elif group.candidate is not None:
        # The candidate's spawn has not begun: it will load the code as it is then.
        group.restart_again = group.replacement is not None and group.replacement.generation == group.candidate
        return []
    group.last_generation += 1
    group.candidate = None
    group.restart_again = False
    if not _has_what_could_be_kept(group):
        group.rolling = True
        _serve(group, group.last_generation)
        return commands + conclude(group)
    group.candidate = group.last_generation
    group.generations[group.candidate] = GenerationState(group.candidate, group.limits.preloads)
    group.rolling = True
    return commands + conclude(group)


def _has_what_could_be_kept(group: GroupState) -> bool:
    """Whether the version before the restart serves, or could serve: its preloader can fork, and it does not crash."""
    if group.enabled or not all(attempt.abandoned for attempt in group.attempts.values()):
        return True
    serving = group.generations[group.generation]
    return not group.backoff.failures and serving.has_preloader


def begin_hard(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Retire all processes, and start the next generation."""
    group.last_generation += 1
    group.candidate = None
    group.restart_again = False
    group.rolling = True
    _serve(group, group.last_generation)
    commands: list[Command] = []
    for attempt in group.attempts.values():
        commands += retiring.abandon(attempt, Reason.RESTART)
    for process in list(group.enabled.values()):
        commands += retiring.retire(pool, process, Reason.RESTART, now)
    return commands + conclude(group)


def is_used(group: GroupState) -> bool:
    """Whether a process of the group has served a session. (For ``always_restart`` only: looks at each process.)"""
    return any(process.processed or process.sessions for process in group.enabled.values())


def target(group: GroupState) -> int:
    """The generation that a caller waits for when it has just requested a restart."""
    if group.candidate is None:
        return group.generation
    return group.last_generation + group.restart_again


def admit(pool: PoolState, ended: Attempt, new: ProcessState, now: float) -> list[Command]:
    """A process is ready: attach it, and retire the process that it replaces, if it is a replacement."""
    group = ended.group
    if ended.abandoned:
        return _turn_away(pool, new)
    group.generations[ended.generation].came = True
    if ended.generation == group.candidate:
        _accept(group)
    elif group.rejection is not None and group.rejection.generation == ended.generation:
        group.rejection = None  # the rejected generation starts after all
    commands: list[Command] = []
    if ended.reason in retiring.REPLACEMENT_REASONS and group.to_replace:
        replaced = next(iter(group.to_replace))
        commands += retiring.retire(pool, group.enabled[replaced], group.to_replace[replaced], now)
    elif not capacity.has_place(pool, group):
        # The limits are tighter than when the attempt began. Or the process to replace is gone and has a replacement.
        spare = next((attempt for attempt in group.attempts.values() if attempt.counts), None)
        if spare is None or not capacity.has_place(pool, group, spare=1):
            return _turn_away(pool, new)
        commands += retiring.abandon(spare, Reason.SURPLUS)
    routing.attach(pool, new)
    if new.generation < group.generation:
        group.to_replace[new.id] = Reason.RESTART
    return commands if group.candidate is not None else commands + _begin_again(group)


def reject(group: GroupState, failure: SpawnFailure | None, now: float) -> list[Command]:
    """The candidate did not start: the old generation keeps serving."""
    assert group.candidate is not None
    group.rejection = Rejection(group.candidate, now, failure)
    ended = RestartEnded(group.key, group.candidate, rejected=True, failure=failure)
    group.candidate = None
    group.rolling = bool(group.to_replace)
    return [ended, *_begin_again(group)]


def give_up(group: GroupState, failure: SpawnFailure | None, now: float) -> list[Command]:
    """A spawn of the serving generation failed. If a restart led to it and it never started, the restart has failed."""
    if not group.rolling or group.candidate is not None or group.generations[group.generation].came:
        return []
    group.rejection = Rejection(group.generation, now, failure, kept=False)
    group.rolling = False
    return [RestartEnded(group.key, group.generation, rejected=True, failure=failure, kept=False)]


def conclude(group: GroupState) -> list[Command]:
    """End what the last step completed: the restart, and generations."""
    commands: list[Command] = []
    came = group.generations[group.generation].came
    if group.rolling and came and group.candidate is None and Reason.RESTART not in group.to_replace.values():
        group.rolling = False
        commands.append(RestartEnded(group.key, group.generation))
    if len(group.generations) > 1:
        for generation in list(group.generations.values()):
            commands += _end(group, generation)
    return commands


def retire_preloader(group: GroupState, generation: GenerationState, reason: Reason) -> RetirePreloader:
    """Retire a generation's preloaders, once: from here on they are marked as leaving."""
    generation.preloaders = dict.fromkeys(generation.preloaders, True)
    return RetirePreloader(group.key, reason, generation.number)


def _accept(group: GroupState) -> None:
    assert group.candidate is not None
    accepted, group.candidate = group.candidate, None
    _serve(group, accepted)
    for process in group.enabled.values():
        group.to_replace[process.id] = Reason.RESTART  # a process that is marked already keeps its turn


def _begin_again(group: GroupState) -> list[Command]:
    if not group.restart_again:
        return []
    group.restart_again = False
    return begin(group)


def _serve(group: GroupState, generation: int) -> None:
    group.generation = generation
    group.generations.setdefault(generation, GenerationState(generation, group.limits.preloads))
    group.rejection = None


def _turn_away(pool: PoolState, new: ProcessState) -> list[Command]:
    routing.attach_detached(pool, new)
    return [Retire(new.id, Reason.SURPLUS)]


def _end(group: GroupState, generation: GenerationState) -> list[Command]:
    number = generation.number
    if number in (group.generation, group.candidate):
        return []
    if any(attempt.generation == number for attempt in group.attempts.values()):
        return []
    if generation.has_preloader:
        return [retire_preloader(group, generation, Reason.RESTART)]
    if generation.preloaders or any(process.generation == number for process in group.processes):
        return []
    del group.generations[number]
    return [EndGeneration(group.key, number)]
