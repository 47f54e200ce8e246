"""How long a detached process may take for the requests that it still has.

This module knows when a busy process was detached, and how long its group lets it *drain*. It never
knows what a request is. (WebSockets and event streams have a shorter time of their own, which the
relay keeps: ``Session.set_long_lived``.)

Laws:

* A detached process ends with its last session or after ``max_drain_time``, whichever is first. So a
  session that hangs cannot hold for ever the process, its memory, its place under the hard ceiling,
  and the restart that needs that place.
* After that time the keeper runs the usual termination sequence (ask, SIGTERM, SIGKILL), so an
  application that can cancel its handlers does so.
* If a process drains for long, operators are told once, with the time at which it will be ended.
* A pause of the server itself ends no process: if a deadline is seen later than by ``LATE``, the
  process that seems to have drained for too long gets ``LATE`` more, once. In that time the server
  reads its responses, if there are any.
"""

from __future__ import annotations

import math

from passenger_trio.core.commands import Command, Reason, Retire, StillDraining
from passenger_trio.core.state import GroupState, ProcessState

NOTICE = 10.0
"""Seconds after which operators are told."""
LATE = 1.0


def begin(process: ProcessState, now: float) -> None:
    """A busy process was detached: set its deadlines."""
    group = process.group
    limit = group.limits.max_drain_time
    process.left_at = now
    process.drained_by = now + limit if limit else math.inf
    group.drain_due = min(group.drain_due, now + NOTICE, process.drained_by)


def limit_changed(group: GroupState) -> None:
    """Apply the new limit to the processes that drain already, counted from when each was detached."""
    limit = group.limits.max_drain_time
    for process in group.detached.values():
        if is_draining(process):
            process.drained_by = process.left_at + limit if limit else math.inf
            group.drain_due = min(group.drain_due, process.drained_by)


def is_draining(process: ProcessState) -> bool:
    """Whether the process waits for the end of its last session."""
    return process.leaving is not None


def look(group: GroupState, now: float) -> list[Command]:
    """Report the processes that drain for long, and end those that drained for too long."""
    commands: list[Command] = []
    if group.drain_due > now:
        return commands
    group.drain_due = math.inf
    for process in group.detached.values():
        if not is_draining(process):
            continue
        if process.drained_by <= now and (process.drain_extended or now - process.drained_by <= LATE):
            process.leaving = None
            commands.append(Retire(process.id, Reason.DRAIN_TIME))
            continue
        if process.drained_by <= now:
            process.drain_extended = True
            process.drained_by = now + LATE
        if not process.told_draining and process.left_at + NOTICE <= now:
            process.told_draining = True
            commands.append(StillDraining(process.id, process.sessions, process.drained_by - now))
        group.drain_due = min(
            group.drain_due, process.drained_by, math.inf if process.told_draining else process.left_at + NOTICE
        )
    return commands
