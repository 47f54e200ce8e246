"""Who waits for a process, and how each of them is answered.

It knows the queue of each group and makes the grants. It never knows why a process came or went.

Laws:

* First come, first served, within a group: nobody overtakes, and nobody waits beside a free place. But who avoids the process that has it
  (``routing``) is passed over, and waits for another.
* A waiter leaves the queue in the step that answers it, so it is answered at most once.
* A grant is counted in the step that makes it: the place at the process by ``routing.take``, the session here.
* Refused are only those who have waited for as long as they may, and those whom nobody will serve. While one process lives, or a spawn is under way, they wait.
"""

from __future__ import annotations

import math

from passenger_trio.core import routing
from passenger_trio.core.commands import Command, Grant, Reason, Refuse
from passenger_trio.core.model import ProcessId, SessionId, WaiterId
from passenger_trio.core.state import GroupState, PoolState, ProcessState


def grant(pool: PoolState, process: ProcessState, waiter: WaiterId | None, now: float) -> Grant:
    """A session at the place that ``routing.take`` has just counted."""
    process.last_used = now
    pool.last_session = number = pool.last_session + 1
    session = SessionId(number)
    pool.sessions[session] = process
    if process.group.limits.max_request_time:
        process.group.running[session] = now
    return Grant(session, process.id, waiter)


def is_full(group: GroupState) -> bool:
    """Whether the queue is as long as it may get."""
    return 0 < group.limits.max_request_queue_size <= len(group.waiters)


def append(pool: PoolState, group: GroupState, waiter: WaiterId, avoided: ProcessId | None, now: float) -> None:
    """``waiter`` is the last in the queue."""
    if avoided is not None:
        group.avoiding[waiter] = avoided
    group.waiters[waiter] = now
    pool.waiters[waiter] = group


def leave(pool: PoolState, waiter: WaiterId) -> None:
    """``waiter`` is gone. Nothing happens if it is not in a queue."""
    group = pool.waiters.pop(waiter, None)
    if group is not None:
        _forget(pool, group, waiter)


def _forget(pool: PoolState, group: GroupState, waiter: WaiterId) -> None:
    pool.waiters.pop(waiter, None)
    del group.waiters[waiter]
    group.avoiding.pop(waiter, None)


def serve(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Give every free place to a waiter, longest wait first."""
    commands: list[Command] = []
    if group.avoiding:
        return _serve_the_choosy(pool, group, now)
    while group.waiters:
        process = routing.take(group)
        if process is None:
            break
        waiter, _ = group.waiters.popitem(last=False)
        del pool.waiters[waiter]
        commands.append(grant(pool, process, waiter, now))
    return commands


def _serve_the_choosy(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """The same where some avoid a process."""
    commands: list[Command] = []
    for waiter in list(group.waiters):
        if not group.free:
            break
        process = routing.take_other(group, group.avoiding.get(waiter))
        if process is not None:
            _forget(pool, group, waiter)
            commands.append(grant(pool, process, waiter, now))
    return commands


def overdue(group: GroupState) -> float:
    """When the one at the head of the queue will have waited for too long."""
    if not group.waiters or not group.limits.max_request_queue_time:
        return math.inf
    return next(iter(group.waiters.values())) + group.limits.max_request_queue_time


def refuse_overdue(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Refuse those who have waited for too long."""
    commands: list[Command] = []
    while overdue(group) <= now:
        waiter = next(iter(group.waiters))
        _forget(pool, group, waiter)
        commands.append(Refuse(waiter, Reason.QUEUE_TIME))
    return commands


def is_hopeless(pool: PoolState, group: GroupState, now: float) -> bool:
    """Nobody will serve this group soon: no process, no attempt, and an open circuit (or no spawns any more)."""
    if group.enabled:
        return False
    return not pool.open or (not group.attempts and group.backoff.opened and group.backoff.in_force(now))


def refuse_hopeless(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Refuse all who wait, if the group is hopeless."""
    if not group.waiters or not is_hopeless(pool, group, now):
        return []
    waiters = list(group.waiters)
    for waiter in waiters:
        _forget(pool, group, waiter)
    return [refusal(pool, group, waiter, now) for waiter in waiters]


def refusal(pool: PoolState, group: GroupState, waiter: WaiterId, now: float) -> Refuse:
    """What a hopeless group tells ``waiter``."""
    if not pool.open:
        return Refuse(waiter, Reason.SHUT_DOWN)
    return Refuse(waiter, Reason.SPAWN_FAILED, group.backoff.failure, group.backoff.until - now)
