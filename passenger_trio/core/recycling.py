"""When a process has served long enough: requests, age, memory; and when a request has lasted too long.

It knows how long and how much. It never knows what a request is, or how memory is measured.

Laws:

* The number of requests is kept as well as it can be: the replacement is begun so early that it is there when they have been served. Where more are
  served during one spawn than a process may serve at all, each serves those that come during one spawn.
* Soft limits (requests, age, memory) make a process *worn*: it serves until its relief is up (``restarting``). So they hold
  roughly, and cost nobody a request.
* Hard limits (memory, the time of a request) kill: the process gets no more sessions from that step on, and what it has ends
  as it may. That is no failure to start.
* Of our own pause nobody dies: when the clock is seen to be late by more than ``LATE``, a request that seems to have lasted
  too long gets ``LATE`` more, in which its response, if it is there, is read.
"""

from __future__ import annotations

import math

from passenger_trio.core import routing
from passenger_trio.core.commands import Command, Kill, Reason
from passenger_trio.core.model import SessionId
from passenger_trio.core.state import EnabledStatus, GroupState, PoolState, ProcessState

LATE = 1.0
_INSTANT = 1e-3
_FORESIGHT = 16
"""From so many times fewer requests it is told how fast they come: the first one alone, which had waited for the process, says nothing of 500."""
SPREAD = 0.1
"""The part of a lifetime that the jitter may take off."""


def attached(process: ProcessState, now: float, jitter: float) -> None:
    """Draw the limits of a new process, so that those that came together do not go together."""
    group = process.group
    limits = group.limits
    if limits.max_requests:
        process.wears_at = max(1, limits.max_requests - int(limits.max_requests_jitter * jitter))
        process.looks_at = 1
        process.look_time = now
    if limits.max_process_lifetime:
        process.expires = now + limits.max_process_lifetime * (1 - SPREAD * jitter)
        group.expiry_due = min(group.expiry_due, process.expires)


def is_time(process: ProcessState, now: float) -> bool:
    """Whether the replacement of a process is to be begun, so that it is there when the process has served as many requests as it may.

    As far as can be told: from how fast requests come, since it was ready and since the last look, and how long the last spawn took. If not, the next
    look is set, no further ahead than half of the way, so that the path of a request has one comparison.
    """
    left = process.wears_at - process.processed
    if left <= 0:
        return True
    group = process.group
    rate = max(
        process.processed / max(now - process.since, _INSTANT),
        (process.processed - process.look_count) / max(now - process.look_time, _INSTANT),
    )
    ahead = rate * group.spawn_time * (1 + len(group.worn))
    is_known = left <= _FORESIGHT * process.processed
    if left <= ahead and is_known:
        return True
    process.look_time, process.look_count = now, process.processed
    far = int(left - ahead) if is_known else process.processed
    process.looks_at = process.processed + max(1, min(left // 2, far))
    return False


def wear(process: ProcessState, reason: Reason) -> None:
    """The process is to be replaced. Nothing happens if it is already, or serves no more."""
    if process.status is EnabledStatus.ENABLED:
        process.group.worn.setdefault(process.id, reason)


def expire(group: GroupState, now: float) -> None:
    """Processes that are too old are worn."""
    if group.expiry_due > now:
        return
    group.expiry_due = math.inf
    for process in group.enabled.values():
        if process.expires <= now:
            wear(process, Reason.LIFETIME)
        else:
            group.expiry_due = min(group.expiry_due, process.expires)


def sampled(pool: PoolState, process: ProcessState, size: int) -> list[Command]:
    """The process uses so many bytes."""
    limits = process.group.limits
    if 0 < limits.hard_memory_limit < size:
        return kill(pool, process, Reason.MEMORY)
    if 0 < limits.memory_limit < size:
        wear(process, Reason.MEMORY)
    return []


def kill(pool: PoolState, process: ProcessState, reason: Reason, session: SessionId | None = None) -> list[Command]:
    """End a process at once; not twice."""
    if process.killed or process.status is EnabledStatus.GONE:
        return []
    process.killed = True
    process.leaving = None
    if process.status is EnabledStatus.ENABLED:
        routing.detach(pool, process)
    return [Kill(process.id, reason, session)]


def overrun_due(group: GroupState) -> float:
    """When the oldest request will have lasted too long."""
    if not group.running:
        return math.inf
    return max(next(iter(group.running.values())) + group.limits.max_request_time, group.lenient_until)


def end_overruns(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Kill the processes whose requests have lasted too long."""
    commands: list[Command] = []
    limit = group.limits.max_request_time
    while overrun_due(group) <= now:
        session, began = next(iter(group.running.items()))
        if now - began - limit > LATE and group.lenient_until < began + limit:
            group.lenient_until = now + LATE
            break
        del group.running[session]
        commands += kill(pool, pool.sessions[session], Reason.REQUEST_TIME, session)
    return commands
