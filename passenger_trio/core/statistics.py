"""The state of the pool as frozen values, for ``passenger-trio status`` and the metrics.

The values are copies. Using them does not change the pool, and they do not change with the pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from passenger_trio.core import capacity, scaling
from passenger_trio.core.backoff_and_circuit import NOT_IN_FORCE
from passenger_trio.core.commands import Reason
from passenger_trio.core.model import AttemptId, GroupKey, ProcessId, SpawnFailure
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import EnabledStatus, GroupState, PoolState, Rejection
from passenger_trio.late_classes import frozen


@frozen
class ProcessStatistics:
    """One process. Times are monotonic seconds."""

    id: ProcessId
    state: EnabledStatus
    sessions: int
    """Open now."""
    processed: int
    """Served to the end."""
    concurrency: int
    """0: no limit."""
    since: float
    """When it became ready."""
    last_used: float
    generation: int
    to_replace: Reason | None
    """Why it is to be replaced; None: it is not."""
    leaving: Reason | None
    """Why it is retired after its last session; None: it is not."""
    works_out_of_band: bool
    """Whether it is out of routing for out-of-band work."""
    drained_by: float
    """When it is retired even with open sessions; infinity: never for that reason."""


@frozen
class AttemptStatistics:
    """A spawn under way. ``begun`` is monotonic seconds."""

    id: AttemptId
    begun: float
    reason: Reason
    slow: bool
    """Whether it has been loading for so long that other attempts no longer wait for it."""


@frozen
class GroupStatistics:
    """One group. Times are monotonic seconds."""

    key: GroupKey
    limits: GroupLimits
    processes: tuple[ProcessStatistics, ...]
    """Enabled processes, oldest first, then detached ones."""
    attempts: tuple[AttemptStatistics, ...]
    queue_length: int
    preloader: bool
    """Whether a preloader runs that was not told to go."""
    failures: int
    """Failed starts since the last success."""
    backing_off_until: float | None
    """No spawn begins before this time; None, or a time in the past: no back-off."""
    last_failure: SpawnFailure | None
    """The evidence of the last failure; None again after a success."""
    generation: int
    restarting: bool
    """Whether a restart is under way."""
    waits_for_room: bool
    """Whether the next replacement cannot be spawned until a detached process is gone."""
    rejection: Rejection | None
    """The last restart, if it failed."""
    leaving: bool = False
    """Whether it was removed, and finishes what it has."""


class GroupGauges(NamedTuple):
    """The numbers of one group that the metrics show. Cheap: a scrape of a thousand applications makes a thousand of them."""

    waiting: int
    queue_limit: int
    """0: no limit."""
    oldest_wait: float
    """Seconds that the first waiter has waited; 0: nobody waits."""
    generation: int
    failures: int
    failed: bool
    """Whether there is evidence of a failed start, and no success since."""
    circuit_open: bool
    rejected: bool
    """Whether the last restart failed."""
    busy: int
    """Enabled processes with a session."""
    idle: int
    """Enabled processes without one."""
    spawning: int
    leaving: int
    """All other processes."""


@frozen
class PoolStatistics:
    """The pool."""

    limits: PoolLimits
    groups: tuple[GroupStatistics, ...]
    capacity_used: int
    """Enabled processes, and spawns under way."""
    detached: int
    """Processes that were retired, but are not gone."""
    left_out: int = 0
    """Groups that are not in ``groups`` because they are inactive."""


def describe(pool: PoolState, keys: Iterable[GroupKey] | None = None) -> PoolStatistics:
    """The state of the pool as values.

    :param keys: describe these groups only, and ignore unknown keys; None: all groups.
    """
    groups = pool.groups.values() if keys is None else [pool.groups[key] for key in keys if key in pool.groups]
    return PoolStatistics(
        limits=pool.limits,
        groups=tuple(describe_group(pool, group) for group in groups),
        capacity_used=pool.capacity_used,
        detached=len(pool.processes) - pool.enabled_count,
    )


def describe_active(pool: PoolState) -> PoolStatistics:
    """Like ``describe``, for the active and the waiting groups only: there may be thousands of inactive ones."""
    groups = tuple(describe_group(pool, group) for group in chain(pool.active.values(), pool.waiting.values()))
    detached = len(pool.processes) - pool.enabled_count
    return PoolStatistics(pool.limits, groups, pool.capacity_used, detached, len(pool.groups) - len(groups))


def gauges_of(group: GroupState, now: float) -> GroupGauges:
    """The numbers of one group.

    Law: they equal those of ``describe_group``, which costs several times as much. (``tests/core/driven_pool.py`` compares
    both after each step.)
    """
    serving = busy = 0
    for process in group.enabled.values():
        if process.status is EnabledStatus.ENABLED:
            serving += 1
            busy += process.sessions > 0
    return GroupGauges(
        len(group.waiters),
        group.limits.max_request_queue_size,
        max(0.0, now - next(iter(group.waiters.values()))) if group.waiters else 0.0,
        group.generation,
        group.backoff.failures,
        group.backoff.failure is not None,
        group.backoff.until > now,
        group.rejection is not None,
        busy,
        serving - busy,
        len(group.attempts),
        len(group.enabled) + len(group.detached) - serving,
    )


def describe_group(pool: PoolState, group: GroupState) -> GroupStatistics:
    """One group as values."""
    return GroupStatistics(
        key=group.key,
        limits=group.limits,
        processes=tuple(
            ProcessStatistics(
                process.id,
                process.status,
                process.sessions,
                process.processed,
                process.concurrency,
                process.since,
                process.last_used,
                process.generation,
                group.to_replace.get(process.id),
                process.leaving,
                group.oob_process is process,
                process.drained_by,
            )
            for process in (*group.enabled.values(), *group.detached.values())
        ),
        attempts=tuple(AttemptStatistics(a.id, a.begun, a.reason, a.slow) for a in group.attempts.values()),
        queue_length=len(group.waiters),
        preloader=any(of.has_preloader for of in group.generations.values()),
        failures=group.backoff.failures,
        backing_off_until=group.backoff.until if group.backoff.until > NOT_IN_FORCE else None,
        last_failure=group.backoff.failure,
        generation=group.generation,
        restarting=group.rolling,
        waits_for_room=scaling.wants_replacement(group, NOT_IN_FORCE) and not capacity.has_headroom(pool, group),
        rejection=group.rejection,
        leaving=group.leaving,
    )
