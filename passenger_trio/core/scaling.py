"""How many processes: when to spawn one more, and which one to retire.

This module knows limits, waiters, and since when a process is idle. It never knows which process
serves which request (``routing``).

When a spawn starts
    For growth: a group *wants* a process when it has fewer processes and attempts than its minimum,
    or more waiters than the attempts under way will serve. It wants none during its back-off, none
    while it retries a failed spawn (one probe at a time), and none at its own maximum. A busy process
    is no reason to grow: only a queued request is.
    As a *relief* (replacement): a new process takes the place of a *worn* one, which is a process
    that is to be recycled (``restarting``).

Laws of capacity
    ======================================  ==================================================
    enabled + attempts, without reliefs     at most ``max_pool_size``; per group ``max_instances``
    enabled + detached + attempts           at most twice ``max_pool_size`` (the hard ceiling),
                                            and one relief for each group
    attempts with a slot                    at most ``max_concurrent_spawns``, and one more
    attempts of one generation              at most ``max_concurrent_spawns``
    ======================================  ==================================================

Slots: applications do not wait for each other
    Slots bound how many programs load at the same time. So the restarts of all applications do not
    load the machine at once.

    * Attempts that wait for one preloader share one slot. The first attempt has it. When that attempt
      ends, the next one that waits takes it over. If the application turns out unsafe to fork, each
      attempt needs its own slot (``fork_apart``).
    * One slot is reserved for groups without any process. So a crashed application is replaced, and a
      new one starts, while others load.
    * An attempt that has loaded for ``PATIENCE`` is *slow* and gives up its slot, because it may hang.
      The more attempts are slow, the longer the next ones keep their slots: more loading programs do
      not help a slow machine.

Fairness
    When room appears, a group with waiters and without processes or attempts grows first; then other
    groups without processes or attempts; then the group whose last spawn began the longest ago. In a
    full pool, the first of these that exists makes room:

    ==============================================  =============================  ================================
    what gives up its place                         to a group with waiters and    when
    ==============================================  =============================  ================================
    idle the longest, in a group above its minimum  no process, no attempt         at once
    the same, if it is *spare*                      any                            it is idle for ``SPARE_AFTER``
    a slow attempt above its group's minimum        no process, no attempt         the group waited ``FAIR_WAIT``
    busy, of the largest group above its minimum    the same                       the same
    any other process, an idle one first            the same                       the same
    the only attempt of a group without a process   the same                       it lasts for its group's ``grace``
    ==============================================  =============================  ================================

    A busy process finishes its sessions first. The last process of a group whose new version was
    rejected stays, because it cannot be spawned again. The grace doubles each time it was too short,
    so an application that loads slowly succeeds in the end, also among others like it. No process is
    retired before the spawn that needs its place can start.

Quiet
    No spawn that is wanted and possible waits: every step that can make one possible ends with
    ``start_spawns``. So a step that changes only one group's wish looks at that group alone. ``tick``
    notices what time alone makes possible (slow attempts, spare processes, overdue waiters).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from passenger_trio.core import astir, drain_time, routing, waitlist
from passenger_trio.core.commands import AbandonSpawn, Command, Detach, Reason, Retire, StartSpawn
from passenger_trio.core.model import AttemptId
from passenger_trio.core.state import (
    Attempt,
    EnabledStatus,
    GenerationState,
    GroupState,
    PoolState,
    ProcessState,
)

FAIR_WAIT = 1.0
"""Seconds for which a starved group waits for an idle process of another group before it takes a busy one's place."""
SPARE_AFTER = 1.0
"""Seconds of idleness after which a process above its group's minimum is spare. Peaks of a loaded group are closer."""
PATIENCE = 1.0
"""Seconds for which an attempt keeps its slot while no other attempt is slow."""
GRACE = 10.0
"""``GroupState.grace`` of a group whose last spawn succeeded."""

RELIEFS = frozenset({Reason.RESTART, Reason.MAX_REQUESTS, Reason.LIFETIME, Reason.MEMORY})
"""Reasons for which a process is worn. The spawn of its relief has the same reason."""


def minimum(group: GroupState) -> int:
    """The number of processes that the group always keeps."""
    if group.leaving:
        return 0
    limits = group.limits
    return min(limits.min_instances, limits.max_instances) if limits.max_instances else limits.min_instances


def under_way(group: GroupState) -> int:
    """Attempts that will add a process. (A relief replaces one; an abandoned attempt adds none.)"""
    return sum(attempt.counts for attempt in group.attempts.values())


def has_place(pool: PoolState, group: GroupState, spare: int = 0) -> bool:
    """Whether one more process of this group stays within the limits on enabled processes.

    :param spare: how many of the group's attempts would be abandoned for it.
    """
    most = group.limits.max_instances
    if most and len(group.enabled) + under_way(group) - spare >= most:
        return False
    return pool.capacity_used - spare < pool.limits.max_pool_size


def has_headroom(pool: PoolState, group: GroupState) -> bool:
    """Whether one more process may exist for a while to replace another one.

    Below the hard ceiling: always. Above it: one in each group, as long as the group does not have more processes
    leaving than serving. So processes that hang block neither the next version of their own application nor the
    restart of another one.
    """
    if pool.total < pool.ceiling:
        return True
    serving = len(group.enabled) + under_way(group)
    own = len(group.enabled) + len(group.detached) + len(group.attempts)
    return own <= 2 * serving and pool.total < pool.ceiling + len(pool.groups)


def has_ground(pool: PoolState) -> bool:
    """Whether a group may grow below the hard ceiling. Slow reliefs do not count: they may hang, and other groups do not wait for them."""
    if pool.total < pool.ceiling:
        return True  # nearly always, and asked for each request that waits
    hung = sum(attempt.slow and attempt is attempt.group.relief for attempt in pool.attempts.values())
    return pool.total - hung < pool.ceiling


def is_starved(group: GroupState) -> bool:
    """Whether the group has waiters, but no process and no attempt that could serve them."""
    if not group.waiters or group.in_routing:
        return False
    return all(attempt.abandoned for attempt in group.attempts.values())


def somebody_is_starved(pool: PoolState) -> bool:
    """Whether some group is starved. On the request path: looks only at groups with waiters if there are fewer."""
    groups = pool.astir.values() if len(pool.astir) <= len(pool.waiters) else pool.waiters.values()
    return any(map(is_starved, groups))


def demand(group: GroupState) -> int:
    """How many more attempts the waiters need than are under way. Zero or less: enough are under way.

    A waiter that seeks the process of its sticky session needs none.
    """
    if not group.waiters:
        return -under_way(group)
    waiting = waitlist.waits_for_any(group)
    each = group.expected_concurrency or waiting or 1
    return -(-waiting // each) - under_way(group)


def wants(group: GroupState, now: float) -> bool:
    """Whether the group wants one more attempt for growth. Looks at this group only."""
    if group.backoff.in_force(now) or (group.backoff.failures and group.attempts):
        return False
    coming = len(group.enabled) + under_way(group)
    if group.limits.max_instances and coming >= group.limits.max_instances:
        return False
    return coming < minimum(group) or demand(group) > 0


def wants_relief(group: GroupState, now: float) -> bool:
    """Whether a process is to be replaced, or a version tried, and no attempt is under way for that."""
    if group.relief is not None or group.leaving:
        return False
    if group.candidate is not None:
        return True  # also during the back-off: the new version may be the repair
    if group.backoff.in_force(now):
        return False
    if is_on_trial(group):
        return True
    if not group.worn:
        return False
    return not (group.backoff.failures and group.attempts)


def is_on_trial(group: GroupState) -> bool:
    """Whether a restart left no process, and its generation has not started yet: one process is spawned to try it."""
    if not group.rolling or group.candidate is not None or group.enabled or group.generations[group.generation].came:
        return False
    return all(attempt.abandoned for attempt in group.attempts.values())


def is_at_rest(pool: PoolState, group: GroupState) -> bool:
    """Whether ``start_spawns`` would start nothing for the group, however many wait. False: call it. Hot path."""
    if len(group.enabled) == len(group.disabled) or group.worn or group.candidate is not None:
        return False
    if 0 < group.limits.max_instances <= len(group.enabled):
        return True
    if pool.enabled_count < pool.limits.max_pool_size:
        return False
    return len(pool.groups) == 1 or (pool.spare_due < math.inf and not pool.spare_seen)


def may_begin(pool: PoolState, group: GroupState, generation: int) -> bool:
    """Whether an attempt of that generation has a slot available, or needs none."""
    siblings = [attempt for attempt in group.attempts.values() if attempt.generation == generation]
    slots = pool.limits.max_concurrent_spawns
    if len(siblings) >= slots:
        return False
    if _waits_for_preloader(group, generation, siblings):
        return True
    return pool.slots_used < slots + has_nobody(group)


def _waits_for_preloader(group: GroupState, generation: int, siblings: Collection[Attempt]) -> bool:
    of = group.generations.get(generation)
    return of is not None and of.forks and any(not attempt.abandoned for attempt in siblings)


def hand_over(pool: PoolState, ended: Attempt, now: float) -> None:
    """An attempt has ended. The next attempt that waits for its preloader takes over its slot, or its slowness."""
    if ended.waits:
        return
    group = ended.group
    for next_one in group.attempts.values():
        if next_one.generation == ended.generation and next_one.waits and not next_one.abandoned:
            next_one.waits = False
            if ended.has_slot:
                _take_slot(pool, next_one, now)
            else:
                next_one.slow, next_one.slow_at = True, math.inf
            return


def fork_apart(pool: PoolState, group: GroupState, generation: GenerationState, now: float) -> list[Command]:
    """Stop forking in this generation. Each attempt that waits for the preloader takes a slot, or is abandoned.

    ``start_spawns`` begins the abandoned attempts again when slots are available.
    """
    generation.forks = False
    commands: list[Command] = []
    for attempt in group.attempts.values():
        if attempt.generation != generation.number or not attempt.waits:
            continue
        attempt.waits = False
        if attempt.abandoned:
            continue
        if pool.slots_used < pool.limits.max_concurrent_spawns:
            _take_slot(pool, attempt, now)
        else:
            commands += abandon(attempt, Reason.NO_SLOT)
    return commands


def _take_slot(pool: PoolState, attempt: Attempt, now: float) -> None:
    slow = sum(other.slow for other in pool.attempts.values())
    attempt.has_slot, attempt.slow = True, False
    attempt.slow_at = now + PATIENCE * (1 + slow / pool.limits.max_concurrent_spawns)


def has_nobody(group: GroupState) -> bool:
    """Whether the group has no process, and no attempt that would make one."""
    return not group.enabled and all(attempt.abandoned for attempt in group.attempts.values())


def notice_slow(pool: PoolState, now: float) -> None:
    """Take the slots from attempts that have been loading for long."""
    for attempt in pool.attempts.values():
        if attempt.slow_at <= now:
            attempt.slow, attempt.has_slot, attempt.slow_at = True, False, math.inf


def start_spawns(
    pool: PoolState, now: float, groups: Collection[GroupState], lost: GroupState | None = None
) -> list[Command]:
    """Start every attempt that is wanted and possible, in fair order.

    :param groups: the groups whose wish may have changed; all that are astir when room may have appeared.
    :param lost: the group that has just lost a process, if any: its first attempt is a replacement.
    """
    commands: list[Command] = []
    while pool.open:
        full = pool.capacity_used >= pool.limits.max_pool_size
        below = has_ground(pool)
        growing = [
            group for group in groups if below and wants(group, now) and may_begin(pool, group, group.generation)
        ]
        room = Room(pool, now) if full and growing else None
        wanting = [
            (urgency(group), group.turn, _begin_growth, group)
            for group in growing
            if room is None or room.is_there_for(group)
        ]
        wanting += [
            (_LEAST, group.turn, _begin_relief, group)
            for group in groups
            if wants_relief(group, now) and has_headroom(pool, group)
            if may_begin(pool, group, group.candidate or group.generation)
        ]
        if not wanting:
            break
        _, _, begin, group = min(wanting, key=lambda wish: wish[:2])
        if room is not None and begin is _begin_growth:
            commands += room.make_for(group)
        commands.append(begin(pool, group, now, lost))
        if group is lost:
            lost = None
    contended = pool.waiters and len(pool.groups) > 1
    unseen = pool.spare_due == math.inf or pool.spare_seen
    if contended and unseen and pool.capacity_used >= pool.limits.max_pool_size:
        look_for_spare(pool, now)
    return commands


_LEAST = 2


def urgency(group: GroupState) -> int:
    """The order of growth: the smallest number grows first."""
    if not has_nobody(group):
        return _LEAST
    return 0 if group.waiters else 1


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
    siblings = [other for other in group.attempts.values() if other.generation == attempt.generation]
    _take_slot(pool, attempt, attempt.begun)
    attempt.waits = _waits_for_preloader(group, attempt.generation, siblings)
    attempt.has_slot = not attempt.waits
    pool.attempts[attempt.id] = group.attempts[attempt.id] = attempt
    astir.stir(pool, group)
    group.turn = pool.last_attempt
    return StartSpawn(group.key, attempt.id, attempt.reason, attempt.generation)


def retire(pool: PoolState, process: ProcessState, reason: Reason, now: float) -> list[Command]:
    """Detach an enabled process, and end it when it is idle; at once, if it broke its session.

    Only this function retires a live process, so no process is retired twice.
    """
    routing.detach(pool, process)
    if process.sessions and reason is not Reason.FAILED:
        process.leaving = reason
        drain_time.begin(process, now)
        return [Detach(process.id, reason)]
    return [Retire(process.id, reason)]


def abandon(attempt: Attempt, reason: Reason) -> list[Command]:
    """Stop an attempt whose process is no longer wanted."""
    if attempt.abandoned:
        return []
    attempt.abandoned = True
    attempt.counts = False
    if attempt.group.relief is attempt:
        attempt.group.relief = None
    return [AbandonSpawn(attempt.group.key, attempt.id, reason)]


class Room:
    """What gives up a place in a full pool at one moment: the table of fairness, each row looked up at most once."""

    def __init__(self, pool: PoolState, now: float) -> None:
        self._pool = pool
        self._now = now
        self._idle = longest_idle(pool)
        self._found: ProcessState | Attempt | None = None
        self._looked = False

    def is_there_for(self, group: GroupState) -> bool:
        return self._for(group) is not None

    def make_for(self, group: GroupState) -> list[Command]:
        """Free a place for the group."""
        given = self._for(group)
        assert given is not None
        if isinstance(given, ProcessState):
            retired = retire(self._pool, given, Reason.MAKE_ROOM, self._now)
            # A waiter that avoids the only process left has no other to wait for.
            return retired + waitlist.serve(self._pool, given.group, self._now)
        if has_only_hope(given):
            given.group.grace *= 2
        return abandon(given, Reason.MAKE_ROOM)

    def _for(self, group: GroupState) -> ProcessState | Attempt | None:
        if is_starved(group):
            return self._idle or (self._of_the_busy() if impatient_at(group) <= self._now else None)
        if group.waiters and self._idle is not None and is_spare(self._idle, self._now):
            return self._idle
        return None

    def _of_the_busy(self) -> ProcessState | Attempt | None:
        if not self._looked:
            self._looked = True
            self._found = (
                surplus_attempt(self._pool)
                or least_missed(self._pool)
                or last_resort(self._pool)
                or hopeless_attempt(self._pool, self._now)
            )
        return self._found


def longest_idle(pool: PoolState) -> ProcessState | None:
    """The process that makes room first: idle the longest, in a group above its minimum."""
    return min(_idle_above_minimum(pool), key=lambda process: (process.last_used, process.order), default=None)


def _idle_above_minimum(pool: PoolState) -> Iterator[ProcessState]:
    return (
        process
        for group in pool.astir.values()
        if len(group.enabled) > minimum(group)
        for process in group.enabled.values()
        if not process.sessions and process.status is EnabledStatus.ENABLED
    )


def is_spare(process: ProcessState, now: float) -> bool:
    """Whether an idle process above its group's minimum may be retired for any group that waits."""
    return process.last_used + SPARE_AFTER <= now


def look_for_spare(pool: PoolState, now: float) -> None:
    """Note whether a process is spare, and when the next one may be. A busy process needs a full ``SPARE_AFTER``."""
    idle = list(_idle_above_minimum(pool))
    pool.spare_seen = any(is_spare(process, now) for process in idle)
    coming = min((process.last_used for process in idle if not is_spare(process, now)), default=now) + SPARE_AFTER
    pool.spare_due = min(pool.spare_due, coming)


def impatient_at(group: GroupState) -> float:
    """When a starved group may take the place of a busy process; infinity: the group is not starved."""
    if not is_starved(group):
        return math.inf
    return next(iter(group.waiters.values())) + FAIR_WAIT


def surplus_attempt(pool: PoolState) -> Attempt | None:
    """A slow attempt above its group's minimum that is not the group's only hope: the one begun last."""
    return max(
        (
            attempt
            for attempt in pool.attempts.values()
            if attempt.counts and attempt.slow and not has_only_hope(attempt)
            if len(attempt.group.enabled) + under_way(attempt.group) > minimum(attempt.group)
        ),
        key=lambda attempt: attempt.id,
        default=None,
    )


def least_missed(pool: PoolState) -> ProcessState | None:
    """The busy process that makes room for a starved group: in the largest group above its minimum, the least busy."""
    return min(
        (
            process
            for group in pool.astir.values()
            if len(group.enabled) > minimum(group)
            for process in group.enabled.values()
            if process.status is EnabledStatus.ENABLED
        ),
        key=lambda process: (-len(process.group.enabled), process.sessions, process.order),
        default=None,
    )


def last_resort(pool: PoolState) -> ProcessState | None:
    """A process within its group's minimum: the longest idle one, or the least loaded one of the largest group."""
    return min(
        (
            process
            for group in pool.astir.values()
            if group.rejection is None or len(group.enabled) > 1
            for process in group.enabled.values()
            if process.status is EnabledStatus.ENABLED
        ),
        key=lambda process: (
            process.sessions > 0,
            -len(process.group.enabled) if process.sessions else process.last_used,
            process.sessions,
            process.order,
        ),
        default=None,
    )


def has_only_hope(attempt: Attempt) -> bool:
    """Whether the group of the attempt has no process and no other attempt."""
    group = attempt.group
    return not group.enabled and under_way(group) == 1


def gives_way_at(attempt: Attempt) -> float:
    """When an attempt that is its group's only hope may be abandoned for another group; infinity: it has others."""
    if attempt.counts and has_only_hope(attempt):
        return attempt.begun + attempt.group.grace
    return math.inf


def hopeless_attempt(pool: PoolState, now: float) -> Attempt | None:
    """The attempt to abandon for others although its group has no other hope: the one begun first."""
    return next((attempt for attempt in pool.attempts.values() if gives_way_at(attempt) <= now), None)


def retire_idle(pool: PoolState, now: float) -> list[Command]:
    """Retire processes that were idle for ``pool_idle_time``, longest idle first, and set the next time to look."""
    idle_time = pool.limits.pool_idle_time
    # A group whose new version was rejected keeps its processes: they cannot be spawned again.
    groups = [group for group in pool.astir.values() if group.idle_due <= now and not group.holds_on]
    idle = [
        process
        for group in groups
        for process in group.enabled.values()
        if not process.sessions and process.last_used + idle_time <= now and process.status is EnabledStatus.ENABLED
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
    """Compute ``group.idle_due``. A process that is busy now is due a whole idle time from now at the earliest."""
    idle_time = pool.limits.pool_idle_time
    if idle_time and len(group.enabled) > minimum(group) and not group.holds_on:
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
