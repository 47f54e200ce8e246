"""When a process has served long enough: requests, age, memory.

This module knows how long and how much. It never knows what a request is, or how memory is measured. ``request_time`` ends
requests that last too long.

Laws:

* The limit of requests is kept as well as possible: the replacement starts early enough to be ready
  when the limit is reached. If more requests arrive during one spawn than a process may serve at all,
  each process serves those that arrive during one spawn.
* Soft limits (requests, age, memory) mark a process for replacement: it serves until its
  replacement is ready (``group_restarts``). So they hold roughly, and fail no request.
* The hard limit of memory kills the process: it gets no more sessions from that step on, and its open sessions end as they
  may. A kill does not count as a failure to start.
"""

from __future__ import annotations

import math

from passenger_trio.core import processes_by_memory, retiring
from passenger_trio.core.commands import Command, Reason
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.state import GroupState, PoolState, ProcessState

_INSTANT = 1e-3
_FORESIGHT = 16
"""The request rate is believed when a process has served at least this fraction (1/16) of the requests that are left.
The first request alone, which waited for the process, says nothing about 500 more."""
SPREAD = 0.1
"""The part of a lifetime that the jitter may remove."""


def attached(process: ProcessState, now: float, jitter: float) -> None:
    """Draw the limits of a new process, so that processes that started together do not end together."""
    group = process.group
    limits = group.limits
    if limits.max_requests:
        process.replace_at = max(1, limits.max_requests - int(limits.max_requests_jitter * jitter))
        process.looks_at = 1
        process.look_time = now
    if limits.max_process_lifetime:
        process.expires = now + limits.max_process_lifetime * (1 - SPREAD * jitter)
        group.expiry_due = min(group.expiry_due, process.expires)


def limits_changed(group: GroupState, before: GroupLimits, now: float, jitter: float) -> None:
    """Draw the limits of the group's processes again, as far as they have changed."""
    limits = group.limits
    counted = (limits.max_requests, limits.max_requests_jitter) != (before.max_requests, before.max_requests_jitter)
    aged = limits.max_process_lifetime != before.max_process_lifetime
    if aged:
        group.expiry_due = math.inf
    for process in group.enabled.values():
        if counted:
            process.replace_at = process.looks_at = 0
        if counted and limits.max_requests:
            process.replace_at = max(1, limits.max_requests - int(limits.max_requests_jitter * jitter))
            process.looks_at = process.processed + 1
            process.look_time, process.look_count = now, process.processed
            if process.processed >= process.replace_at:
                mark_to_replace(process, Reason.MAX_REQUESTS)
        if aged:
            process.expires = math.inf
        if aged and limits.max_process_lifetime:
            process.expires = process.since + limits.max_process_lifetime * (1 - SPREAD * jitter)
            group.expiry_due = min(group.expiry_due, process.expires)


def is_replacement_due(process: ProcessState, now: float) -> bool:
    """Whether to start the replacement of a process now, to have it when the process reaches its limit of requests.

    An estimate, from the rate of requests (since the process was ready, and since the last look) and the duration of
    the last spawn. If it is too early, set the next look, at most half of the way ahead. So the request path needs one
    comparison only.
    """
    left = process.replace_at - process.processed
    if left <= 0:
        return True
    group = process.group
    rate = max(
        process.processed / max(now - process.since, _INSTANT),
        (process.processed - process.look_count) / max(now - process.look_time, _INSTANT),
    )
    ahead = rate * group.spawn_time * (1 + len(group.to_replace))
    is_known = left <= _FORESIGHT * process.processed
    if left <= ahead and is_known:
        return True
    process.look_time, process.look_count = now, process.processed
    far = int(left - ahead) if is_known else process.processed
    process.looks_at = process.processed + max(1, min(left // 2, far))
    return False


def mark_to_replace(process: ProcessState, reason: Reason) -> None:
    """Mark a process for replacement. Nothing happens if it is marked already, or serves no more."""
    if process.is_attached:
        process.group.to_replace.setdefault(process.id, reason)


def expire(group: GroupState, now: float) -> None:
    """Mark the processes that are too old for replacement."""
    if group.expiry_due > now:
        return
    group.expiry_due = math.inf
    for process in group.enabled.values():
        if process.expires <= now:
            mark_to_replace(process, Reason.LIFETIME)
        else:
            group.expiry_due = min(group.expiry_due, process.expires)


def sampled(pool: PoolState, process: ProcessState, size: int) -> list[Command]:
    """The process uses ``size`` bytes."""
    process.size = size
    processes_by_memory.measured(process)
    limits = process.group.limits
    if 0 < limits.hard_memory_limit < size:
        return retiring.kill(pool, process, Reason.MEMORY)
    if 0 < limits.memory_limit < size:
        mark_to_replace(process, Reason.MEMORY)
    return []
