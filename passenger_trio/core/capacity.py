"""What the limits allow, and which groups they leave without a process.

This module knows the limits and counts. It decides nothing: ``scaling`` does, and states the laws of capacity.
"""

from __future__ import annotations

from passenger_trio.core.state import GroupState, PoolState


def minimum(group: GroupState) -> int:
    """The number of processes that the group always keeps."""
    if group.leaving:
        return 0
    limits = group.limits
    return min(limits.min_instances, limits.max_instances) if limits.max_instances else limits.min_instances


def under_way(group: GroupState) -> int:
    """Attempts that will add a process. (A replacement replaces one; an abandoned attempt adds none.)"""
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
    """Whether the hard ceiling leaves room for a group to grow.

    A slow replacement does not count: it may hang, and other groups must not wait for it.
    """
    if pool.total < pool.ceiling:
        return True  # the usual case, and on the path of each request that waits
    hung = sum(attempt.slow and attempt is attempt.group.replacement for attempt in pool.attempts.values())
    return pool.total - hung < pool.ceiling


def is_starved(group: GroupState) -> bool:
    """Whether the group has waiters, but no process and no attempt that could serve them."""
    if not group.waiters or group.in_routing:
        return False
    return all(attempt.abandoned for attempt in group.attempts.values())


def somebody_is_starved(pool: PoolState) -> bool:
    """Whether some group is starved. On the request path: looks only at groups with waiters if there are fewer."""
    if pool.waiting:
        return True
    groups = pool.active.values() if len(pool.active) <= len(pool.waiters) else pool.waiters.values()
    return any(map(is_starved, groups))


def has_nobody(group: GroupState) -> bool:
    """Whether the group has no process, and no attempt that would make one."""
    return not group.enabled and all(attempt.abandoned for attempt in group.attempts.values())
