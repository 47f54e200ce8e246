"""The active groups: a tick, and a step that concerns all groups, look at these only.

A server may have thousands of groups, nearly all of them without a process (OP5). This module knows when a group is
*inactive*: nothing in it can become due, wants a process, or has one to give. It never knows what would become due.

Laws

* A group that is not in ``PoolState.active`` is inactive. (``invariants`` checks it after every step.)
* A group becomes active in the step that gives it a waiter, an attempt, a preloader or a minimum, or changes it by an
  operator's order. Everything else that a group can have comes from these.
* An inactive group may stay in ``PoolState.active`` for a while, until ``drop_inactive`` removes it. ``tick`` calls that. A
  step that adds a group calls it when ``active`` has doubled since the last call. So each added group costs the same.
"""

from __future__ import annotations

from passenger_trio.core.backoff_and_circuit import NOT_IN_FORCE
from passenger_trio.core.state import GroupState, PoolState

__all__ = ["drop_inactive", "is_inactive", "set_active"]

_FEW = 16


def is_inactive(group: GroupState) -> bool:
    """Whether nothing happens in the group until a request, an order or a fact is about it."""
    return not (
        group.waiters
        or group.enabled
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
    pool.active[group.key] = group


def drop_inactive(pool: PoolState, *, only_if_many: bool = False) -> None:
    """Remove the inactive groups from ``PoolState.active``.

    :param only_if_many: only if ``active`` has doubled since the last call.
    """
    if only_if_many and len(pool.active) < 2 * pool.active_before + _FEW:
        return
    for group in [group for group in pool.active.values() if is_inactive(group)]:
        del pool.active[group.key]
    pool.active_before = len(pool.active)
