"""How many processes: when to spawn one more, and which one to retire.

It knows limits, who waits, and since when a process is idle. It never knows which process serves whom (``routing``).

When a spawn is started
    For growth: a group *wants* one when it has fewer processes and attempts than its minimum, or more waiters than the attempts
    under way will serve. It does not while it backs off, while a failed one is being tried again (one probe at a
    time), or at its own maximum. A process that is merely busy is no reason: only a queued request is.
    As a relief: a process is to take the place of a worn one (``restarting``).

Laws of capacity
    ======================================  ==================================================
    enabled + attempts, reliefs left out    at most ``max_pool_size``; by group ``max_instances``
    enabled + detached + attempts           at most twice ``max_pool_size`` (the hard ceiling); and one relief for each group
    attempts                                at most ``max_concurrent_spawns``
    ======================================  ==================================================

Fairness
    When room appears, a group with waiters and nobody to serve them is first; then the group whose last spawn was
    begun the longest ago. In a full pool such a *starved* group may take the place of another's process: the one that
    has been idle the longest, in a group that is above its minimum. Is nobody idle, it waits for ``FAIR_WAIT`` seconds; then
    the largest group that is above its minimum gives up a busy process, which finishes what it has. No one is retired before the spawn that needs the
    place can really start.

Quiet
    No spawn that is wanted and possible is left for later: every step that can make one possible ends with
    ``start_spawns``. So a step that changes one group's wish only has to look at that group.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from passenger_trio.core import draining, routing
from passenger_trio.core.commands import Command, Detach, Reason, Retire, StartSpawn
from passenger_trio.core.model import AttemptId
from passenger_trio.core.state import Attempt, GroupState, PoolState, ProcessState

FAIR_WAIT = 1.0
"""Seconds for which a starved group waits for an idle process of others before it takes a busy one's place."""

RELIEFS = frozenset({Reason.RESTART, Reason.MAX_REQUESTS, Reason.LIFETIME, Reason.MEMORY})
"""Why a process is worn, and why a relief of it is spawned."""


def minimum(group: GroupState) -> int:
    """The number of processes that are kept, whatever happens."""
    limits = group.limits
    return min(limits.min_instances, limits.max_instances) if limits.max_instances else limits.min_instances


def under_way(group: GroupState) -> int:
    """Attempts that will add a process. (A relief takes a place; what was abandoned comes to nothing.)"""
    return sum(attempt.counts for attempt in group.attempts.values())


def has_place(pool: PoolState, group: GroupState, spare: int = 0) -> bool:
    """Whether one more process of this group keeps the limits on enabled ones.

    :param spare: so many of its attempts would be given up for it.
    """
    most = group.limits.max_instances
    if most and len(group.enabled) + under_way(group) - spare >= most:
        return False
    return pool.capacity_used - spare < pool.limits.max_pool_size


def has_headroom(pool: PoolState, group: GroupState) -> bool:
    """Whether one more process may exist for a while to take the place of another one.

    Below the hard ceiling always. Above it one in each group may, while that has no more processes on their way out than processes that serve. So
    processes that hang do not keep the next version from its first process, and not the restart of another application either.
    """
    if pool.total < pool.ceiling:
        return True
    serving = len(group.enabled) + under_way(group)
    own = len(group.enabled) + len(group.detached) + len(group.attempts)
    return own <= 2 * serving and pool.total < pool.ceiling + len(pool.groups)


def is_starved(group: GroupState) -> bool:
    """Somebody waits, and there is nobody that could ever serve."""
    if not group.waiters or group.enabled:
        return False
    return all(attempt.abandoned for attempt in group.attempts.values())


def demand(group: GroupState) -> int:
    """How many more attempts than those under way the waiters call for. Not above zero: enough are under way."""
    if not group.waiters:
        return -under_way(group)
    each = group.expected_concurrency or len(group.waiters)
    return -(-len(group.waiters) // each) - under_way(group)


def wants(group: GroupState, now: float) -> bool:
    """Whether the group is to grow by one more attempt, as far as it alone can tell."""
    if group.backoff.in_force(now) or (group.backoff.failures and group.attempts):
        return False
    coming = len(group.enabled) + under_way(group)
    if group.limits.max_instances and coming >= group.limits.max_instances:
        return False
    return coming < minimum(group) or demand(group) > 0


def wants_relief(group: GroupState, now: float) -> bool:
    """Whether a process is to be replaced or tried, and none is on its way for that."""
    if group.relief is not None:
        return False
    if group.candidate is not None:
        return True  # also while the group backs off: the new version may be the remedy
    if group.backoff.in_force(now):
        return False
    if is_on_trial(group):
        return True
    if not group.worn:
        return False
    return not (group.backoff.failures and group.attempts)


def is_on_trial(group: GroupState) -> bool:
    """Whether a restart has left nothing that serves, and its generation has not shown yet that it starts: one process is spawned for that."""
    if not group.rolling or group.candidate is not None or group.enabled or group.generations[group.generation].came:
        return False
    return all(attempt.abandoned for attempt in group.attempts.values())


def is_at_rest(pool: PoolState, group: GroupState) -> bool:
    """Whether ``start_spawns`` would start nothing for the group, however many wait; False: it has to look. For the path of every request."""
    if not group.enabled or group.worn or group.candidate is not None:
        return False
    most = group.limits.max_instances
    return pool.enabled_count >= pool.limits.max_pool_size or 0 < most <= len(group.enabled)


def start_spawns(
    pool: PoolState, now: float, groups: Collection[GroupState], lost: GroupState | None = None
) -> list[Command]:
    """Start every attempt that is wanted and possible, in fair order.

    :param groups: those whose wish may have changed; all of them when room may have appeared.
    :param lost: the group that has just lost a process, if one has: its first attempt replaces that.
    """
    commands: list[Command] = []
    while pool.open and len(pool.attempts) < pool.limits.max_concurrent_spawns:
        full = pool.capacity_used >= pool.limits.max_pool_size
        below = pool.total < pool.ceiling
        growing = [group for group in groups if below and wants(group, now) and (not full or is_starved(group))]
        victim = longest_idle(pool) if full and growing else None
        if full and victim is None:
            growing = [group for group in growing if impatient_at(group) <= now]
            victim = least_missed(pool) if growing else None
            if victim is None:
                growing = []
        wanting = [(not is_starved(group), group.turn, _begin_growth, group) for group in growing]
        wanting += [
            (True, group.turn, _begin_relief, group)
            for group in groups
            if wants_relief(group, now) and has_headroom(pool, group)
        ]
        if not wanting:
            break
        _, _, begin, group = min(wanting, key=lambda wish: wish[:2])
        if victim is not None and begin is _begin_growth:
            commands += retire(pool, victim, Reason.MAKE_ROOM, now)
        commands.append(begin(pool, group, now, lost))
        if group is lost:
            lost = None
    return commands


def _begin_growth(pool: PoolState, group: GroupState, now: float, lost: GroupState | None) -> StartSpawn:
    if group is lost:
        reason = Reason.REPLACE
    elif group.backoff.failures:
        reason = Reason.RETRY
    elif demand(group) > 0:
        reason = Reason.DEMAND
    else:
        reason = Reason.MIN_INSTANCES
    return _begin(pool, Attempt(_next(pool), group, now, reason, group.generation))


def _begin_relief(pool: PoolState, group: GroupState, now: float, lost: GroupState | None) -> StartSpawn:
    if group.candidate is not None:
        reason, generation = Reason.RESTART, group.candidate
    else:
        reason, generation = next(iter(group.worn.values()), Reason.RESTART), group.generation
    group.relief = Attempt(_next(pool), group, now, reason, generation, counts=False)
    return _begin(pool, group.relief)


def _next(pool: PoolState) -> AttemptId:
    pool.last_attempt += 1
    return AttemptId(pool.last_attempt)


def _begin(pool: PoolState, attempt: Attempt) -> StartSpawn:
    group = attempt.group
    pool.attempts[attempt.id] = group.attempts[attempt.id] = attempt
    group.turn = pool.last_attempt
    return StartSpawn(group.key, attempt.id, attempt.reason, attempt.generation)


def retire(pool: PoolState, process: ProcessState, reason: Reason, now: float) -> list[Command]:
    """Take an enabled process out of routing, and end it as soon as it is idle; at once, if it broke its session.

    Only here is that done while it lives, so none is retired twice.
    """
    routing.detach(pool, process)
    if process.sessions and reason is not Reason.FAILED:
        process.leaving = reason
        draining.begin(process, now)
        return [Detach(process.id, reason)]
    return [Retire(process.id, reason)]


def longest_idle(pool: PoolState) -> ProcessState | None:
    """The process that makes room for a starved group: idle the longest, in a group above its minimum."""
    return min(
        (
            process
            for group in pool.groups.values()
            if len(group.enabled) > minimum(group)
            for process in group.enabled.values()
            if not process.sessions
        ),
        key=lambda process: (process.last_used, process.order),
        default=None,
    )


def impatient_at(group: GroupState) -> float:
    """When a group that is starved may take the place of a busy process; infinity: it is not starved."""
    if not is_starved(group):
        return math.inf
    return next(iter(group.waiters.values())) + FAIR_WAIT


def least_missed(pool: PoolState) -> ProcessState | None:
    """The busy process that makes room for a starved group: of the largest group above its minimum, the one with least to do."""
    return min(
        (
            process
            for group in pool.groups.values()
            if len(group.enabled) > minimum(group)
            for process in group.enabled.values()
        ),
        key=lambda process: (-len(process.group.enabled), process.sessions, process.order),
        default=None,
    )


def retire_idle(pool: PoolState, now: float) -> list[Command]:
    """Retire what has been idle for ``pool_idle_time``, longest idle first, and set the next time to look."""
    idle_time = pool.limits.pool_idle_time
    # Of a group whose new version was rejected nothing is idle: it could not be had again.
    groups = [group for group in pool.groups.values() if group.idle_due <= now and not group.holds_on]
    idle = [
        process
        for group in groups
        for process in group.enabled.values()
        if not process.sessions and process.last_used + idle_time <= now
    ]
    idle.sort(key=lambda process: (process.last_used, process.order))
    commands: list[Command] = []
    for process in idle:
        if len(process.group.enabled) > minimum(process.group):
            commands += retire(pool, process, Reason.IDLE, now)
    for group in groups:
        watch_idleness(pool, group, now)
    return commands


def watch_idleness(pool: PoolState, group: GroupState, now: float) -> None:
    """Set ``group.idle_due`` from what is there. Who is busy now cannot be due before a whole idle time has passed."""
    idle_time = pool.limits.pool_idle_time
    if idle_time and len(group.enabled) > minimum(group) and not group.holds_on:
        group.idle_due = min(
            (now if process.sessions else process.last_used) + idle_time for process in group.enabled.values()
        )
    else:
        group.idle_due = math.inf


def preloader_due(group: GroupState) -> float:
    """When the preloader may go because nothing was spawned through it. Never while something is."""
    idle_time = group.limits.max_preloader_idle_time
    serving = group.generations[group.generation]
    if not idle_time or group.attempts or group.holds_on:
        return math.inf
    if not serving.has_preloader:
        return math.inf
    return serving.preloader_used + idle_time
