"""When a request has lasted too long (``--max-request-time``): its process is killed.

This module knows since when each session runs, in groups that limit the time. It never knows what a request is.

Laws:

* The process of a request that lasts too long gets no more sessions from that step on, and its other sessions end as they may. The kill does
  not count as a failure to start.
* A long-lived session (``PoolPolicy.session_long_lived``) is exempt.
* A pause of the server itself kills no process: if a deadline is seen later than by ``LATE``, the request that seems to have lasted
  too long gets ``LATE`` more. In that time the server reads its response, if there is one.
"""

from __future__ import annotations

import math

from passenger_trio.core import retiring
from passenger_trio.core.commands import Command, Reason
from passenger_trio.core.model import SessionId
from passenger_trio.core.state import GroupState, PoolState

LATE = 1.0
"""Seconds."""


def set_running(group: GroupState, session: SessionId, since: float | None) -> None:
    """Note that the session's request began at ``since``; None: it has none. Nothing happens in a group without a limit."""
    if not group.limits.max_request_time:
        return
    running = group.running
    running.pop(session, None)
    if since is not None:
        running[session] = since
        for other in [other for other, began in running.items() if began > since]:
            running[other] = running.pop(other)


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
        commands += retiring.kill(pool, pool.sessions[session], Reason.REQUEST_TIME, session)
    return commands
