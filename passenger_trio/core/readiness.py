"""When a server that starts may accept connections, and when it may say that it is ready.

It knows what the pool tells of its groups. It never knows sockets.

* An application is *settled* when its first processes are there, or when it has failed to start (its requests get the error).
* The server accepts as soon as one application is settled: nobody waits for another one. Requests for one that is still loaded wait in its queue.
* It is ready when all are settled; but it does not wait for one that is *late*: that hangs or loads slowly (``scaling``), or has no place in the pool.
  Alone, an application is waited for: there is nothing else to be ready for.
* Where a failed start is to end the server (``all_or_nothing``), nothing is accepted before all are settled, and none of them has failed.
"""

from __future__ import annotations

from passenger_trio.core.model import SpawnFailure
from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupStatistics, PoolStatistics

__all__ = ["is_ready", "is_settled", "late", "may_accept", "startup_failure"]


def is_settled(pool: PoolStatistics, group: GroupStatistics) -> bool:
    """Whether nothing is to be waited for before requests for it are served, or refused."""
    if group.last_failure is not None:
        return True
    serving = sum(process.state is EnabledStatus.ENABLED for process in group.processes)
    return serving >= min(group.limits.min_instances, pool.limits.max_pool_size)


def late(pool: PoolStatistics) -> list[GroupStatistics]:
    """Groups that are not waited for although they are not settled."""
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
    return all(settled) if all_or_nothing else any(settled)


def is_ready(pool: PoolStatistics, *, all_or_nothing: bool) -> bool:
    """Whether the server may say that it is ready."""
    if not may_accept(pool, all_or_nothing=all_or_nothing):
        return False
    unsettled = [group.key for group in pool.groups if not is_settled(pool, group)]
    return unsettled == [group.key for group in late(pool)]


def startup_failure(pool: PoolStatistics) -> SpawnFailure | None:
    """Why an application did not start, if one did not."""
    return next((group.last_failure for group in pool.groups if group.last_failure is not None), None)
