"""How many processes: when to spawn one more.

This module knows limits, waiters, and since when a process is idle. It never knows which process
serves which request (``routing``).

When a spawn starts
    For growth: a group *wants* a process when it has fewer processes and attempts than its minimum,
    or more waiters than the attempts under way will serve. It wants none during its back-off, none
    while it retries a failed spawn (one probe at a time), and none at its own maximum. A busy process
    is no reason to grow: only a queued request is.
    As a *replacement*: a new process takes the place of one that is to be replaced (``recycling``,
    ``group_restarts``).

Laws of capacity
    ======================================  ==================================================
    enabled + attempts, without replacements     at most ``max_pool_size``; per group ``max_instances``
    enabled + detached + attempts           at most twice ``max_pool_size`` (the hard ceiling),
                                            and one replacement for each group
    attempts with a slot                    at most ``max_concurrent_spawns``, and one more
    attempts of one generation              at most ``max_concurrent_spawns``
    ======================================  ==================================================

Spawn slots: applications do not wait for each other
    Spawn slots bound how many programs load at the same time. So the restarts of all applications do not
    load the machine at once.

    * Attempts that wait for one preloader share one slot. The first attempt has it. When that attempt
      ends, the next one that waits takes it over. If the application turns out unsafe to fork, each
      attempt needs its own slot (``fork_apart``).
    * One slot is reserved for groups without any process. So a crashed application is replaced, and a
      new one starts, while others load.
    * An attempt that has loaded for ``SLOW_AFTER`` is *slow* and gives up its slot, because it may hang.
      The more attempts are slow, the longer the next ones keep their slots: more loading programs do
      not help a slow machine.

Fairness
    When room appears, a group with waiters and without processes or attempts grows first; then other
    groups without processes or attempts; then the group whose last spawn began the longest ago. In a
    full pool, another one makes room first: ``making_room`` has the table.

    Groups without a process may come all the time. So after ``PASSED_OVER`` spawns without a replacement
    among them the next one is a replacement, if one is wanted, and it may take the reserved slot, too:
    a restart comes to its end however many others wait (OP5).

Quiet
    No spawn that is wanted and possible waits: every step that can make one possible ends with
    ``start_spawns``. So a step that changes only one group's wish looks at that group alone. ``tick``
    notices what time alone makes possible (slow attempts, spare processes, overdue waiters).
"""

from __future__ import annotations

import math
from collections.abc import Collection

from passenger_trio.core import active_groups, capacity, making_room, retiring, waiting_groups, waitlist
from passenger_trio.core.commands import Command, Reason, StartSpawn
from passenger_trio.core.model import AttemptId
from passenger_trio.core.state import (
    Attempt,
    GenerationState,
    GroupState,
    PoolState,
)

SLOW_AFTER = 1.0
"""Seconds for which an attempt keeps its slot while no other attempt is slow."""
GRACE = 10.0
"""``GroupState.grace`` of a group whose last spawn succeeded."""
PASSED_OVER = 5
"""Spawns after which a replacement that has to wait has the next turn."""


def demand(group: GroupState) -> int:
    """How many more attempts the waiters need than are under way. Zero or less: enough are under way.

    A waiter that seeks the process of its sticky session needs no attempt.
    """
    if not group.waiters:
        return -capacity.under_way(group)
    waiting = waitlist.waits_for_any(group)
    each = group.expected_concurrency or waiting or 1
    return -(-waiting // each) - capacity.under_way(group)


def wants(group: GroupState, now: float) -> bool:
    """Whether the group wants one more attempt for growth. Looks at this group only."""
    if group.backoff.in_force(now) or (group.backoff.failures and group.attempts):
        return False
    coming = len(group.enabled) + capacity.under_way(group)
    if group.limits.max_instances and coming >= group.limits.max_instances:
        return False
    return coming < capacity.minimum(group) or demand(group) > 0


def wants_replacement(group: GroupState, now: float) -> bool:
    """Whether a process is to be replaced, or a version tried, and no attempt is under way for that."""
    if group.replacement is not None or group.leaving:
        return False
    if group.candidate is not None:
        return True  # also during the back-off: the new version may be the repair
    if group.backoff.in_force(now):
        return False
    if is_on_trial(group):
        return True
    if not group.to_replace:
        return False
    return not (group.backoff.failures and group.attempts)


def is_on_trial(group: GroupState) -> bool:
    """Whether a restart left no process, and its generation has not started yet: one process is spawned to try it."""
    if not group.rolling or group.candidate is not None or group.enabled or group.generations[group.generation].came:
        return False
    return all(attempt.abandoned for attempt in group.attempts.values())


def has_enough(pool: PoolState, group: GroupState) -> bool:
    """Whether ``start_spawns`` would start nothing for the group, however many wait. False: call it. Hot path."""
    if len(group.enabled) == len(group.disabled) or group.to_replace or group.candidate is not None:
        return False
    if 0 < group.limits.max_instances <= len(group.enabled):
        return True
    if pool.enabled_count < pool.limits.max_pool_size:
        return False
    return len(pool.groups) == 1 or (pool.spare_due < math.inf and not pool.spare_seen)


def may_begin(pool: PoolState, group: GroupState, generation: int, *, has_turn: bool = False) -> bool:
    """Whether an attempt of that generation has a slot available, or needs none.

    :param has_turn: it is a replacement that has the next turn.
    """
    siblings = [attempt for attempt in group.attempts.values() if attempt.generation == generation]
    slots = pool.limits.max_concurrent_spawns
    if len(siblings) >= slots:
        return False
    if _waits_for_preloader(group, generation, siblings):
        return True
    return pool.slots_used < slots + (has_turn or capacity.has_nobody(group))


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
            commands += retiring.abandon(attempt, Reason.NO_SLOT)
    return commands


def _take_slot(pool: PoolState, attempt: Attempt, now: float) -> None:
    slow = sum(other.slow for other in pool.attempts.values())
    attempt.has_slot, attempt.slow = True, False
    attempt.slow_at = now + SLOW_AFTER * (1 + slow / pool.limits.max_concurrent_spawns)


def notice_slow(pool: PoolState, now: float) -> None:
    """Take the slots from attempts that have been loading for long."""
    for attempt in pool.attempts.values():
        if attempt.slow_at <= now:
            attempt.slow, attempt.has_slot, attempt.slow_at = True, False, math.inf


def start_spawns(
    pool: PoolState, now: float, groups: Collection[GroupState] | None = None, lost: GroupState | None = None
) -> list[Command]:
    """Start every attempt that is wanted and possible, in fair order.

    :param groups: the groups whose wish may have changed; None: room may have appeared, for any.
    :param lost: the group that has just lost a process, if any: its first attempt is a replacement.
    """
    commands: list[Command] = []
    while pool.open:
        full = pool.capacity_used >= pool.limits.max_pool_size
        below = capacity.has_ground(pool)
        able = _able(pool, groups, now)
        growing = [group for group in able if below and wants(group, now) and may_begin(pool, group, group.generation)]
        room = making_room.Room(pool, now) if full and growing else None
        wanting = [
            (urgency(group), group.turn, _begin_growth, group)
            for group in growing
            if room is None or room.is_there_for(group)
        ]
        replacing = [group for group in able if wants_replacement(group, now) and capacity.has_headroom(pool, group)]
        if not replacing and sum(group.key in pool.active for group in able) == len(pool.active):
            pool.last_replacement = pool.last_attempt  # nobody is passed over
        has_turn = pool.last_attempt - pool.last_replacement >= PASSED_OVER
        wanting += [
            (_FIRST if has_turn else _LEAST, group.turn, _begin_replacement, group)
            for group in replacing
            if may_begin(pool, group, group.candidate or group.generation, has_turn=has_turn)
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
        making_room.look_for_spare(pool, now)
    return commands


def _able(pool: PoolState, groups: Collection[GroupState] | None, now: float) -> Collection[GroupState]:
    """The groups (None: of all) for which ``may_begin`` may be true.

    While every slot is taken, the reserved one too, only a group with an attempt may begin another, which shares its slot.
    Of the groups that only wait, the next ones stand for all (OP5).
    """
    looked = pool.active.values() if groups is None else groups
    if pool.slots_used > pool.limits.max_concurrent_spawns:
        return [group for group in looked if group.attempts]
    return [*looked, *waiting_groups.next_ones(pool, now)] if groups is None and pool.waiting else looked


_FIRST, _LEAST = -1, 2


def urgency(group: GroupState) -> int:
    """The order of growth: the smallest number grows first."""
    if not capacity.has_nobody(group):
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


def _begin_replacement(pool: PoolState, group: GroupState, now: float, lost: GroupState | None) -> StartSpawn:
    if group.candidate is not None:
        reason, generation = Reason.RESTART, group.candidate
    else:
        reason, generation = next(iter(group.to_replace.values()), Reason.RESTART), group.generation
    group.replacement = Attempt(_next(pool), group, now, reason, generation, counts=False)
    pool.last_replacement = pool.last_attempt
    return _begin(pool, group.replacement)


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
    active_groups.set_active(pool, group)
    group.turn = pool.last_attempt
    return StartSpawn(group.key, attempt.id, attempt.reason, attempt.generation)
