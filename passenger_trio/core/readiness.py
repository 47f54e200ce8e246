"""When a starting server may accept connections, and when it may report that it is ready.

This module knows what the pool reports about its groups. It never knows sockets. The report may leave out inactive
groups (``active_groups``): they are settled.

* An application is *settled* when its first processes are ready, or when it has failed to start (its
  requests get the error).
* The server accepts as soon as one application is settled, so no application waits for another one.
  Requests for an application that is still loading wait in its queue.
* The server is ready when all applications are settled, except those that are *late*: they hang or load
  slowly (``scaling``), or have no place in the pool. It waits for an application that is the only one,
  because there is nothing else to be ready for.
* If a failed start is to end the server (``all_or_nothing``), the server accepts nothing before all
  applications are settled and none has failed.
"""

from __future__ import annotations

from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics, PoolStatistics

__all__ = ["is_ready", "is_settled", "late", "may_accept", "startup_failure"]


def is_settled(pool: PoolStatistics, group: GroupStatistics) -> bool:
    """Whether the server can serve or refuse requests for the group without waiting any longer."""
    if group.last_failure is not None:
        return True
    serving = sum(process.state is EnabledStatus.ENABLED for process in group.processes)
    return serving >= min(group.limits.min_instances, pool.limits.max_pool_size)


def late(pool: PoolStatistics) -> list[GroupStatistics]:
    """Groups that are not settled and that the server does not wait for."""
    full = pool.capacity_used >= pool.limits.max_pool_size
    return [
        group
        for group in pool.groups
        if not is_settled(pool, group)
        if any(attempt.slow for attempt in group.attempts) or (full and not group.attempts)
    ]


def may_accept(pool: PoolStatistics, *, all_or_nothing: bool) -> bool:
    """Whether the server may accept connections."""
    settled = (is_settled(pool, group) for group in pool.groups)
    return all(settled) if all_or_nothing else pool.left_out > 0 or any(settled)


def is_ready(pool: PoolStatistics, *, all_or_nothing: bool) -> bool:
    """Whether the server may report that it is ready."""
    if not may_accept(pool, all_or_nothing=all_or_nothing):
        return False
    unsettled = [group.key for group in pool.groups if not is_settled(pool, group)]
    return unsettled == [group.key for group in late(pool)]


def startup_failure(pool: PoolStatistics) -> SpawnFailure | None:
    """Why an application did not start; None: none has failed."""
    return next((group.last_failure for group in pool.groups if group.last_failure is not None), None)
