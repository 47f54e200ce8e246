"""Out-of-band work: what a process does between two requests, while it gets none (garbage collection, caches).

This module knows which processes have asked for it, and which one does it. It never knows what the work is.

A process asks with a response. When its turn comes it is *disabled*: it leaves routing and finishes its
sessions. Then it works (``RunOobWork``), and comes back.

Laws:

* One process of a group at a time. The others wait for their turn, in the order in which they asked.
* A group keeps serving: the only process in routing is taken out only when it is idle. If it becomes the
  only one while it finishes its sessions, it comes back, and asks again with one of its next responses.
* A process whose sessions last longer than ``GIVE_UP_AFTER`` comes back, too: WebSockets may last for hours.
* A process whose work fails, or takes too long, is replaced: its state is unknown.
"""

from __future__ import annotations

import math

from passenger_trio.core import retiring, routing, waitlist
from passenger_trio.core.commands import Command, Reason, RunOobWork
from passenger_trio.core.state import EnabledStatus, GroupState, PoolState, ProcessState

GIVE_UP_AFTER = 60.0
"""Seconds for which a process may be out of routing before its work begins."""
TIME = 60.0
"""Seconds that the work may take, as in Phusion Passenger."""


def want(pool: PoolState, process: ProcessState, now: float) -> list[Command]:
    """The process asks for a time in which it gets no requests."""
    group = process.group
    if group.oob_process is process or process.id not in group.enabled:
        return []
    group.oob_wanted[process.id] = None
    return begin(pool, group, now)


def begin(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Take the next process out of routing, if it may go now."""
    if group.oob_process is not None or not pool.open:
        return []
    for id in group.oob_wanted:
        process = group.enabled[id]
        if process.sessions and _is_alone(process):
            continue
        del group.oob_wanted[id]
        group.oob_process = process
        if process.status is EnabledStatus.ENABLED:
            routing.disable(process)
        group.oob_due = group.oob_give_up = now + GIVE_UP_AFTER
        # Waiters that sought this process accept any other. Waiters that avoid the only process left accept that one.
        served = waitlist.serve(pool, group, now) if group.has_constrained_waiters else []
        return served + became_idle(process)
    return []


def became_idle(process: ProcessState) -> list[Command]:
    """Begin the work of the process that has been taken out, if it has no sessions."""
    group = process.group
    if group.oob_process is not process or group.oob_begun or process.sessions:
        return []
    group.oob_begun = True
    group.oob_due = math.inf
    return [RunOobWork(process.id, TIME)]


def end(pool: PoolState, process: ProcessState, succeeded: bool, now: float) -> list[Command]:
    """The work has ended. Nothing happens if the process has left meanwhile."""
    group = process.group
    if group.oob_process is not process:
        return []
    routing.end_oob_work(group)
    if not succeeded:
        return retiring.retire(pool, process, Reason.OOB_WORK, now) + begin(pool, group, now)
    return _come_back(pool, process, now) + begin(pool, group, now)


def look(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Do what is due: let the next one begin, or take back one that cannot begin."""
    if group.oob_due > now:
        return []
    group.oob_due = math.inf
    process = group.oob_process
    if process is None:
        return begin(pool, group, now)
    if group.oob_begun:
        return []
    if group.oob_give_up > now and group.in_routing:
        group.oob_due = group.oob_give_up
        return []
    routing.end_oob_work(group)
    return _come_back(pool, process, now)


def _come_back(pool: PoolState, process: ProcessState, now: float) -> list[Command]:
    if process.disabled_by_operator:
        return []
    routing.enable(process)
    retiring.watch_idleness(pool, process.group, now)
    return waitlist.serve(pool, process.group, now)


def _is_alone(process: ProcessState) -> bool:
    """Whether no process would be in routing without it."""
    return process.status is EnabledStatus.ENABLED and process.group.in_routing == 1
