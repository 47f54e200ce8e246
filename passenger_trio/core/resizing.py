"""Groups come and go, and limits change, while the pool serves.

This module knows the limits before and after, and which groups are removed. It never knows why, or where limits are
written.

Laws:

* A change of limits ends no request. A smaller pool is reached by idle processes first, then by
  attempts that can be spared, then by busy processes, which finish their sessions. Minimums go last.
* The limits on processes that serve hold in the step that lowers them. A process that leaves, or an attempt that loads, may exceed the hard ceiling, the slots and the queue until it is gone (the
  ``allowed_...`` fields). Nothing new begins above them.
* A group that is removed (*leaving*) serves its waiters, and starts processes for them only.
  When nobody waits, it retires everything. When nothing of it is left, it is forgotten (``EndGroup``),
  and its key is free. A request for a group that is forgotten is refused.
* A group that is added while it leaves stays: it is restarted, because it may be another application.
"""

from __future__ import annotations

import math

from passenger_trio.core import (
    active_groups,
    capacity,
    drain_time,
    group_restarts,
    making_room,
    processes_by_memory,
    recycling,
    retiring,
    scaling,
    waitlist,
)
from passenger_trio.core.commands import Command, EndGroup, Reason
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import Attempt, EnabledStatus, GroupState, PoolState, ProcessState


def change_pool(pool: PoolState, limits: PoolLimits, now: float) -> list[Command]:
    """The limits of the whole pool change."""
    pool.limits = limits
    # Look again at once: the time of the next look was computed from the old limits.
    pool.spare_due, pool.spare_seen = math.inf, False
    for group in pool.active.values():
        retiring.watch_idleness(pool, group, now)
    return _applied(pool, _shrink(pool, now), now)


def memory_changed(pool: PoolState, now: float, lost: GroupState | None = None) -> list[Command]:
    """The memory, or its use, has changed. If the memory decides (``processes_by_memory``), compute the size of the pool again.

    :param lost: the group that has just lost a process, if any.
    """
    before = pool.limits
    if not before.memory_share:
        return []
    commands = processes_by_memory.fit(pool, before, now)
    return _applied(pool, commands, now, lost) if commands or pool.limits != before else []


def change_group(pool: PoolState, group: GroupState, limits: GroupLimits, now: float, jitter: float) -> list[Command]:
    """The limits of one group change."""
    _set_limits(pool, group, limits, now, jitter)
    return _applied(pool, _shrink(pool, now), now)


def _set_limits(pool: PoolState, group: GroupState, limits: GroupLimits, now: float, jitter: float) -> None:
    before, group.limits = group.limits, limits
    group.allowed_queue = len(group.waiters)
    if not limits.max_request_time:
        group.running.clear()
    pool.timed = any(one.limits.max_request_time > 0 for one in pool.groups.values())
    if before.max_drain_time != limits.max_drain_time:
        drain_time.limit_changed(group)
    recycling.limits_changed(group, before, now, jitter)
    retiring.watch_idleness(pool, group, now)


def remove(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """The application is removed: its group leaves."""
    group.leaving = True
    pool.leaving[group.key] = group
    active_groups.set_active(pool, group)
    group.always_restart = False
    group.candidate, group.restart_again, group.rolling = None, False, False
    commands: list[Command] = []
    if group.replacement is not None:
        commands += retiring.abandon(group.replacement, Reason.REMOVED)
    retiring.watch_idleness(pool, group, now)
    commands += group_restarts.conclude(group) + waitlist.refuse_if_unservable(pool, group, now)
    # Even if the group stays for its waiters, its minimum is 0 now, so other groups may get its places.
    return commands + let_go(pool, now) + scaling.start_spawns(pool, now)


def revive(pool: PoolState, group: GroupState, limits: GroupLimits, now: float, jitter: float) -> list[Command]:
    """A group that leaves is added again."""
    group.leaving = False
    del pool.leaving[group.key]
    group.backoff.lift()
    _set_limits(pool, group, limits, now, jitter)
    # First of all: a spawn that begins earlier would be of the generation that was removed.
    commands = group_restarts.begin(group)
    return commands + _applied(pool, _shrink(pool, now), now)


def let_go(pool: PoolState, now: float) -> list[Command]:
    """Retire what the leaving groups do not need any more, and forget the groups of which nothing is left."""
    commands: list[Command] = []
    for group in list(pool.leaving.values()):
        if group.waiters or not pool.open:
            continue
        for attempt in group.attempts.values():
            commands += retiring.abandon(attempt, Reason.REMOVED)
        for process in list(group.enabled.values()):
            commands += retiring.retire(pool, process, Reason.REMOVED, now)
        if group.attempts:
            continue
        for generation in group.generations.values():
            if generation.has_preloader:
                commands.append(group_restarts.retire_preloader(group, generation, Reason.REMOVED))
        if not group.detached and not group.preloaders:
            del pool.groups[group.key], pool.leaving[group.key], pool.active[group.key]
            pool.timed = any(one.limits.max_request_time > 0 for one in pool.groups.values())
            pool.allowed_total = pool.total  # the ceiling counts a replacement for each group
            commands.append(EndGroup(group.key))
    if commands:
        commands += scaling.start_spawns(pool, now)
    return commands


def _applied(pool: PoolState, commands: list[Command], now: float, lost: GroupState | None = None) -> list[Command]:
    """Do what follows from a change of limits: there may be more room, or less."""
    pool.allowed_total = pool.total
    pool.allowed_attempts = len(pool.attempts)
    for group in pool.active.values():
        if group.has_constrained_waiters:
            commands += waitlist.serve(pool, group, now)
        commands += waitlist.refuse_if_unservable(pool, group, now) + group_restarts.conclude(group)
    return commands + scaling.start_spawns(pool, now, None, lost)


def _shrink(pool: PoolState, now: float) -> list[Command]:
    """Go down to the limits on the processes that serve."""
    commands: list[Command] = []
    for group in pool.active.values():
        most = group.limits.max_instances
        while most and len(group.enabled) + capacity.under_way(group) > most:
            commands += _give_up(pool, (group,), now)
    if pool.limits.memory_share:
        return commands + processes_by_memory.fit(pool, pool.limits, now)
    pool.allowed_used = 0
    while pool.capacity_used > pool.limits.max_pool_size:
        commands += _give_up(pool, tuple(pool.active.values()), now)
    return commands


def _give_up(pool: PoolState, groups: tuple[GroupState, ...], now: float) -> list[Command]:
    victim = _first_to_go(groups)
    if isinstance(victim, Attempt):
        return retiring.abandon(victim, Reason.SHRINK)
    return retiring.retire(pool, victim, Reason.SHRINK, now)


def _first_to_go(groups: tuple[GroupState, ...]) -> ProcessState | Attempt:
    """The process or attempt that is missed least. One exists, because some limit is exceeded."""
    rich = [group for group in groups if len(group.enabled) > capacity.minimum(group)]
    idle = [
        process
        for group in rich
        for process in group.enabled.values()
        if not process.sessions and process.status is EnabledStatus.ENABLED
    ]
    if idle:
        return min(idle, key=lambda process: (process.last_used, process.order))
    spare = [
        attempt
        for group in groups
        for attempt in group.attempts.values()
        if attempt.counts and len(group.enabled) + capacity.under_way(group) > capacity.minimum(group)
    ]
    if spare:
        return min(spare, key=lambda attempt: (making_room.has_only_hope(attempt), -attempt.id))
    busy = [process for group in rich for process in group.enabled.values()]
    if busy:
        return min(busy, key=lambda process: (-len(process.group.enabled), process.sessions, process.order))
    attempts = [attempt for group in groups for attempt in group.attempts.values() if attempt.counts]
    if attempts:
        return max(attempts, key=lambda attempt: attempt.id)
    rest = [process for group in groups for process in group.enabled.values()]
    # The last process of a rejected version cannot be started again.
    return min(
        rest,
        key=lambda process: (
            process.group.rejection is not None and len(process.group.enabled) == 1,
            process.sessions > 0,
            process.sessions,
            process.order,
        ),
    )
