"""Restarts: how a group gets from one version of its application to the next without failing a request.

It knows generations. It never knows files, URLs or how an application is loaded: a *generation* is "the code as it is
when its first process is spawned", and the shell gives each generation a spawner (a preloader) of its own.

A rolling restart
    1.  ``restart`` names a *candidate*: the next generation. One process of it is spawned as a *relief*, above the
        limits on enabled processes. The old generation serves on, and is still what is spawned for demand.
    2.  It comes: the candidate is *accepted*. It is what the group spawns from now on, and every older process is
        *worn*. The new process takes the place of the first worn one.
        It does not come: the candidate is *rejected*. The old generation serves on, its idle processes and its preloader
        are kept (they could not be had again), and people are told. Only another restart changes that.
    3.  While there are worn processes, one relief at a time is spawned and takes the place of one of them. That is also how
        processes are replaced for their age or their size.

Laws:

* Nothing is retired before what takes its place is up. So capacity never falls, and a group never stands empty.
* One relief at a time in a group. It may stand above the hard ceiling for the time that it needs (``scaling.has_headroom``): old processes that hang do
  not keep the next version away. They have ``max_drain_time`` (``draining``).
* A restart that is asked for while the candidate is on its way is done after it: at most one runs and one is remembered,
  however many are asked for. At any other time it begins at once, also when older processes are still worn; and where nothing serves it takes the place of the
  one that is on its way, which may hang.
* A candidate's failure is no failure of the group: it does not back off, and nobody is refused for it.
* A generation ends when it neither serves nor is tried, and no attempt, no preloader and no process of it is left. (What an application has
  started while it was loaded ends with its spawner, and its processes use it to their end.)

Where nothing serves that could be kept (the group is idle or does not start, or the restart is hard), the new generation is what is spawned from then on, and
is *on trial*: one process of it is spawned in any case, also with a minimum of zero and in a full pool. So every restart has a true end: a process of the
new generation was ready, or it does not start.

A hard restart retires everything at once, and whoever comes meanwhile waits. ``always_restart`` (for development) puts one in
front of each request that would not find fresh processes.
"""

from __future__ import annotations

from passenger_trio.core import routing, scaling
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
    """Ask for a rolling restart."""
    commands: list[Command] = []
    if group.relief is not None and not group.enabled:
        # It may hang, and nothing would serve until it has had its start timeout: the version that is asked for now is tried in its stead.
        commands += scaling.abandon(group.relief, Reason.RESTART)
    elif group.candidate is not None:
        # Not begun yet: it will be the code as it is then.
        group.restart_again = group.relief is not None and group.relief.generation == group.candidate
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
    """Whether the version before the restart serves, or could: a preloader of it can be forked from, unless its processes crash."""
    if group.enabled or not all(attempt.abandoned for attempt in group.attempts.values()):
        return True
    serving = group.generations[group.generation]
    return not group.backoff.failures and serving.has_preloader


def begin_hard(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Retire everything, and start afresh."""
    group.last_generation += 1
    group.candidate = None
    group.restart_again = False
    group.rolling = True
    _serve(group, group.last_generation)
    commands: list[Command] = []
    for attempt in group.attempts.values():
        commands += scaling.abandon(attempt, Reason.RESTART)
    for process in list(group.enabled.values()):
        commands += scaling.retire(pool, process, Reason.RESTART, now)
    return commands + conclude(group)


def is_used(group: GroupState) -> bool:
    """Whether what serves has served somebody already. (Only ``always_restart`` asks, and it looks at each process.)"""
    return any(process.processed or process.sessions for process in group.enabled.values())


def target(group: GroupState) -> int:
    """The generation for which whoever has just asked for a restart waits."""
    if group.candidate is None:
        return group.generation
    return group.last_generation + group.restart_again


def admit(pool: PoolState, ended: Attempt, new: ProcessState, now: float) -> list[Command]:
    """A process has come: attach it, and let it take the place of a worn one if that is what it came for."""
    group = ended.group
    if ended.abandoned:
        return _turn_away(pool, new)
    group.generations[ended.generation].came = True
    if ended.generation == group.candidate:
        _accept(group)
    elif group.rejection is not None and group.rejection.generation == ended.generation:
        group.rejection = None  # it starts after all
    commands: list[Command] = []
    if ended.reason in scaling.RELIEFS and group.worn:
        replaced = next(iter(group.worn))
        commands += scaling.retire(pool, group.enabled[replaced], group.worn[replaced], now)
    elif not scaling.has_place(pool, group):
        # The limits are tighter than when it was begun; or what it was to replace has gone, and is being replaced already.
        spare = next((attempt for attempt in group.attempts.values() if attempt.counts), None)
        if spare is None or not scaling.has_place(pool, group, spare=1):
            return _turn_away(pool, new)
        commands += scaling.abandon(spare, Reason.SURPLUS)
    routing.attach(pool, new)
    if new.generation < group.generation:
        group.worn[new.id] = Reason.RESTART
    return commands if group.candidate is not None else commands + _begin_again(group)


def reject(group: GroupState, failure: SpawnFailure | None, now: float) -> list[Command]:
    """The candidate did not start."""
    assert group.candidate is not None
    group.rejection = Rejection(group.candidate, now, failure)
    ended = RestartEnded(group.key, group.candidate, rejected=True, failure=failure)
    group.candidate = None
    group.rolling = bool(group.worn)
    return [ended, *_begin_again(group)]


def give_up(group: GroupState, failure: SpawnFailure | None, now: float) -> list[Command]:
    """A spawn of the generation that serves failed. If a restart has led to it, and it has never started, the restart has failed."""
    if not group.rolling or group.candidate is not None or group.generations[group.generation].came:
        return []
    group.rejection = Rejection(group.generation, now, failure, kept=False)
    group.rolling = False
    return [RestartEnded(group.key, group.generation, rejected=True, failure=failure, kept=False)]


def conclude(group: GroupState) -> list[Command]:
    """What has come to its end by what has just happened: the restart, and generations."""
    commands: list[Command] = []
    came = group.generations[group.generation].came
    if group.rolling and came and group.candidate is None and Reason.RESTART not in group.worn.values():
        group.rolling = False
        commands.append(RestartEnded(group.key, group.generation))
    if len(group.generations) > 1:
        for generation in list(group.generations.values()):
            commands += _end(group, generation)
    return commands


def retire_preloader(group: GroupState, generation: GenerationState, reason: Reason) -> RetirePreloader:
    """Tell a generation's preloader to go. Once only: it is known as leaving from here on."""
    generation.preloaders = dict.fromkeys(generation.preloaders, True)
    return RetirePreloader(group.key, reason, generation.number)


def _accept(group: GroupState) -> None:
    assert group.candidate is not None
    accepted, group.candidate = group.candidate, None
    _serve(group, accepted)
    for process in group.enabled.values():
        group.worn[process.id] = Reason.RESTART  # also where it was worn already, which keeps its turn


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
