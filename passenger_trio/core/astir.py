"""The groups in which something happens: those that a tick, and a step that concerns all groups, look at.

A server may have thousands of groups, nearly all of them without a process (OP5). This module knows when a group is
*still*: nothing in it can become due, wants a process, or has one to give. It never knows what would become due.

Laws

* A group that is not in ``PoolState.astir`` is still. (``invariants`` checks it after every step.)
* A group becomes astir in the step that gives it a waiter, an attempt, a preloader or a minimum, or changes it by an
  operator's order. Everything else that a group can have comes of these.
* A still group may be left in there for a while. ``settle`` takes it out: ``tick`` calls it, and so does a step that
  adds a group, when as many have come as were left at the last time. So it costs a constant for each group that comes.
"""

from __future__ import annotations

from passenger_trio.core.backoff import NOT_IN_FORCE
from passenger_trio.core.state import GroupState, PoolState

__all__ = ["is_still", "settle", "stir"]

_FEW = 16


def is_still(group: GroupState) -> bool:
    """Whether nothing happens in the group until somebody asks for it."""
    return not (
        group.waiters
        or group.enabled
        or group.detached
        or group.attempts
        or group.limits.min_instances
        or group.running
        or group.worn
        or group.rolling
        or group.candidate is not None
        or group.leaving
        or group.backoff.failures
        or group.backoff.until != NOT_IN_FORCE
        or len(group.generations) > 1
        or group.preloaders
    )


def stir(pool: PoolState, group: GroupState) -> None:
    """Something happens in the group from now on."""
    pool.astir[group.key] = group


def settle(pool: PoolState, *, only_if_many: bool = False) -> None:
    """Take out the groups that are still.

    :param only_if_many: only if as many have come as were left at the last time.
    """
    if only_if_many and len(pool.astir) < 2 * pool.astir_before + _FEW:
        return
    for group in [group for group in pool.astir.values() if is_still(group)]:
        del pool.astir[group.key]
    pool.astir_before = len(pool.astir)
