"""How long a process that left routing may take for the requests that it has.

It knows when a busy process was detached, and how long its group lets it *drain*. It never knows what a request is. (WebSockets and event
streams have a time of their own, which is shorter, and is kept where they are relayed: ``Session.hold``.)

Laws:

* A detached process goes with its last session, or at the end of ``max_drain_time``, whatever comes first: whoever hangs cannot keep
  it, and with it the memory, the place under the hard ceiling and the restart that wants that place, for ever.
* At the end it is told to go by the same ladder as any other (ask, TERM, KILL): an application that can cancel its handlers does so.
* Of one that takes long people are told once, with the time at which it is ended.
* Of our own pause nobody dies: when the clock is seen to be late by more than ``LATE``, a process that seems to have drained for too long gets
  ``LATE`` more, once, in which its responses, if they are there, are read.
"""

from __future__ import annotations

import math

from passenger_trio.core.commands import Command, Reason, Retire, StillDraining
from passenger_trio.core.state import GroupState, ProcessState

NOTICE = 10.0
"""Seconds after which people are told."""
LATE = 1.0


def begin(process: ProcessState, now: float) -> None:
    """A busy process was detached."""
    group = process.group
    limit = group.limits.max_drain_time
    process.left_at = now
    process.drained_by = now + limit if limit else math.inf
    group.drain_due = min(group.drain_due, now + NOTICE, process.drained_by)


def is_draining(process: ProcessState) -> bool:
    """Whether it waits for its last session."""
    return process.leaving is not None


def look(group: GroupState, now: float) -> list[Command]:
    """Tell of those that take long, and end those that took too long."""
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
