"""How a process leaves: which one is retired, when, and how an attempt is given up.

Law: a live process leaves the pool by ``retire`` or by ``kill``, and only once. A busy process that is
retired first finishes its sessions, unless it broke one.
"""

from __future__ import annotations

import math

from passenger_trio.core import capacity, drain_time, routing
from passenger_trio.core.commands import AbandonSpawn, Command, Detach, Kill, Reason, Retire
from passenger_trio.core.model import SessionId
from passenger_trio.core.state import Attempt, EnabledStatus, GroupState, PoolState, ProcessState

REPLACEMENT_REASONS = frozenset({Reason.RESTART, Reason.MAX_REQUESTS, Reason.LIFETIME, Reason.MEMORY})
"""Reasons for which a process is replaced. The spawn of its replacement has the same reason."""


def retire(pool: PoolState, process: ProcessState, reason: Reason, now: float) -> list[Command]:
    """Detach an enabled process, and end it when it is idle; at once, if it broke its session."""
    routing.detach(pool, process)
    if process.sessions and reason is not Reason.FAILED:
        process.leaving = reason
        drain_time.begin(process, now)
        return [Detach(process.id, reason)]
    return [Retire(process.id, reason)]


def kill(pool: PoolState, process: ProcessState, reason: Reason, session: SessionId | None = None) -> list[Command]:
    """End a process at once. Nothing happens if it was killed before, or is gone."""
    if process.killed or process.status is EnabledStatus.GONE:
        return []
    process.killed = True
    process.leaving = None
    if process.is_attached:
        routing.detach(pool, process)
    return [Kill(process.id, reason, session)]


def abandon(attempt: Attempt, reason: Reason) -> list[Command]:
    """Stop an attempt whose process is no longer wanted."""
    if attempt.abandoned:
        return []
    attempt.abandoned = True
    attempt.counts = False
    if attempt.group.replacement is attempt:
        attempt.group.replacement = None
    return [AbandonSpawn(attempt.group.key, attempt.id, reason)]


def retire_idle(pool: PoolState, now: float) -> list[Command]:
    """Retire processes that were idle for ``pool_idle_time``, longest idle first, and set the next time to look."""
    idle_time = pool.limits.pool_idle_time
    # A group whose new version was rejected keeps its processes: they cannot be spawned again.
    groups = [group for group in pool.active.values() if group.idle_due <= now and not group.holds_on]
    idle = [
        process
        for group in groups
        for process in group.enabled.values()
        if not process.sessions and process.last_used + idle_time <= now and process.status is EnabledStatus.ENABLED
    ]
    idle.sort(key=lambda process: (process.last_used, process.order))
    commands: list[Command] = []
    for process in idle:
        if len(process.group.enabled) > capacity.minimum(process.group):
            commands += retire(pool, process, Reason.IDLE, now)
    for group in groups:
        watch_idleness(pool, group, now)
    return commands


def watch_idleness(pool: PoolState, group: GroupState, now: float) -> None:
    """Compute ``group.idle_due``. A process that is busy now is due a whole idle time from now at the earliest."""
    idle_time = pool.limits.pool_idle_time
    if idle_time and len(group.enabled) > capacity.minimum(group) and not group.holds_on:
        in_routing = (process for process in group.enabled.values() if process.status is EnabledStatus.ENABLED)
        group.idle_due = min(
            ((now if process.sessions else process.last_used) + idle_time for process in in_routing), default=math.inf
        )
    else:
        group.idle_due = math.inf


def preloader_due(group: GroupState) -> float:
    """When the preloader may be retired because no spawn used it. Never during an attempt."""
    idle_time = group.limits.max_preloader_idle_time
    serving = group.generations[group.generation]
    if not idle_time or group.attempts or group.holds_on:
        return math.inf
    if not serving.has_preloader:
        return math.inf
    return serving.preloader_used + idle_time
