"""The active groups: a tick, and a step that concerns all groups, look at these only.

A server may have thousands of groups, nearly all of them without a process (OP5). This module knows when a group is
*inactive*: nothing in it can become due, wants a process, or has one to give. It never knows what would become due.

Laws

* A group that is neither in ``PoolState.active`` nor waits (``waiting_groups``) is inactive. (``invariants`` checks it after every step.)
* A group becomes active in the step that gives it an attempt, a preloader or a minimum, or changes it by an
  operator's order. With its first waiter an inactive group waits. Everything else that a group can have comes from these.
* A group that is inactive by now, or only waits, may stay in ``PoolState.active`` for a while, until ``drop_inactive`` removes it. ``tick`` calls that. A
  step that adds a group calls it when ``active`` has doubled since the last call. So each added group costs the same.
"""

from __future__ import annotations

from passenger_trio.core import waiting_groups
from passenger_trio.core.backoff_and_circuit import NOT_IN_FORCE
from passenger_trio.core.state import GroupState, PoolState

__all__ = ["drop_inactive", "is_inactive", "only_waits", "set_active", "set_all_active", "somebody_waits"]

_FEW = 16


def is_inactive(group: GroupState) -> bool:
    """Whether nothing happens in the group until a request, an order or a fact is about it."""
    return not group.waiters and _has_nothing(group)


def only_waits(group: GroupState) -> bool:
    """Whether it has waiters, which take any process, and nothing else."""
    is_constrained = group.avoiding or group.seeking or group.spawn_delays
    return bool(group.waiters) and not is_constrained and _has_nothing(group)


def _has_nothing(group: GroupState) -> bool:
    return not (
        group.enabled
        or group.detached
        or group.attempts
        or group.limits.min_instances
        or group.running
        or group.to_replace
        or group.rolling
        or group.candidate is not None
        or group.leaving
        or group.backoff.failures
        or group.backoff.until != NOT_IN_FORCE
        or len(group.generations) > 1
        or group.preloaders
    )


def set_active(pool: PoolState, group: GroupState) -> None:
    """Let ``tick`` look at the group from now on: something in it may become due."""
    waiting_groups.leave(pool, group)
    pool.active[group.key] = group


def set_all_active(pool: PoolState) -> None:
    """Something happens in all groups that wait."""
    for group in list(pool.waiting.values()):
        set_active(pool, group)


def somebody_waits(pool: PoolState, group: GroupState) -> None:
    """A group that is not active has one waiter more."""
    if not only_waits(group):
        set_active(pool, group)
    elif not group.waits_as:
        waiting_groups.enter(pool, group)


def drop_inactive(pool: PoolState, *, only_if_many: bool = False) -> None:
    """Remove the groups that are inactive, or only wait, from ``PoolState.active``.

    :param only_if_many: only if ``active`` has doubled since the last call.
    """
    if only_if_many and len(pool.active) < 2 * pool.active_before + _FEW:
        return
    for group in list(pool.active.values()):
        if is_inactive(group):
            del pool.active[group.key]
        elif only_waits(group):
            del pool.active[group.key]
            waiting_groups.enter(pool, group)
    pool.active_before = len(pool.active)
