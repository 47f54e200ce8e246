"""A full pool: which process or attempt gives its place to another group's.

This module knows which groups are starved, idle, slow or busy. It never decides which one grows (``scaling``). The first
row for which a process or an attempt exists makes room:

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
so an application that loads slowly succeeds in the end, even among others like it. No process is
retired before the spawn that needs its place can start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from passenger_trio.core import capacity, retiring, waitlist
from passenger_trio.core.commands import Command, Reason
from passenger_trio.core.state import Attempt, EnabledStatus, GroupState, PoolState, ProcessState
from passenger_trio.core.waiting_groups import FAIR_WAIT as FAIR_WAIT

SPARE_AFTER = 1.0
"""Seconds of idleness after which a process above its group's minimum is spare. Peaks of a loaded group are closer."""


class Room:
    """What gives up a place in a full pool at one moment. Looks up each row of the module's table at most once."""

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
            retired = retiring.retire(self._pool, given, Reason.MAKE_ROOM, self._now)
            # A waiter that avoids the only process left has no other to wait for.
            return retired + waitlist.serve(self._pool, given.group, self._now)
        if has_only_hope(given):
            given.group.grace *= 2
        return retiring.abandon(given, Reason.MAKE_ROOM)

    def _for(self, group: GroupState) -> ProcessState | Attempt | None:
        if capacity.is_starved(group):
            return self._idle or (self._of_the_busy() if overdue_at(group) <= self._now else None)
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
        for group in pool.active.values()
        if len(group.enabled) > capacity.minimum(group)
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


def overdue_at(group: GroupState) -> float:
    """When a starved group may take the place of a busy process; infinity: the group is not starved."""
    if not capacity.is_starved(group):
        return math.inf
    return next(iter(group.waiters.values())) + FAIR_WAIT


def surplus_attempt(pool: PoolState) -> Attempt | None:
    """A slow attempt above its group's minimum that is not the group's only hope: the one begun last."""
    return max(
        (
            attempt
            for attempt in pool.attempts.values()
            if attempt.counts and attempt.slow and not has_only_hope(attempt)
            if len(attempt.group.enabled) + capacity.under_way(attempt.group) > capacity.minimum(attempt.group)
        ),
        key=lambda attempt: attempt.id,
        default=None,
    )


def least_missed(pool: PoolState) -> ProcessState | None:
    """The busy process that makes room for a starved group: in the largest group above its minimum, the least busy."""
    return min(
        (
            process
            for group in pool.active.values()
            if len(group.enabled) > capacity.minimum(group)
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
            for group in pool.active.values()
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
    return not group.enabled and capacity.under_way(group) == 1


def gives_way_at(attempt: Attempt) -> float:
    """When an attempt that is its group's only hope may be abandoned for another group; infinity: it has others."""
    if attempt.counts and has_only_hope(attempt):
        return attempt.begun + attempt.group.grace
    return math.inf


def hopeless_attempt(pool: PoolState, now: float) -> Attempt | None:
    """The attempt to abandon for others although its group has no other hope: the one begun first."""
    return next((attempt for attempt in pool.attempts.values() if gives_way_at(attempt) <= now), None)
