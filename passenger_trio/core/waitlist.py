"""The waiters of each group, and how each of them is answered.

This module knows the queue of each group and makes the grants. It never knows why a process came or
went.

Laws:

* First come, first served within a group: no waiter overtakes another, and none waits while a process
  has room. The exceptions: a waiter that avoids that process (``routing``) is skipped and waits for
  another one, and one that seeks the process of its sticky session waits for that.
* A waiter leaves the queue in the step that answers it, so it is answered at most once.
* A grant is counted in the step that makes it: ``routing.take_least_busy`` counts at the process, this module
  counts the session.
* A waiter is refused only after the longest wait allowed, or when no process will serve it. As long as a process lives,
  or a spawn is under way, it waits.
"""

from __future__ import annotations

import math

from passenger_trio.core import active_groups, routing, waiting_groups
from passenger_trio.core.commands import Command, Grant, Reason, Refuse
from passenger_trio.core.model import ProcessId, SessionId, WaiterId
from passenger_trio.core.state import GroupState, PoolState, ProcessState

SPAWN_DELAY = 0.010
"""Seconds. An idle slot of another front is back within two levels and two messages (``fronts``), if the machine is not busy."""


def grant(pool: PoolState, process: ProcessState, waiter: WaiterId | None, now: float) -> Grant:
    """Make a session at the process at which ``routing.take_least_busy`` has just counted one."""
    process.last_used = now
    pool.last_session = number = pool.last_session + 1
    session = SessionId(number)
    pool.sessions[session] = process
    if process.group.limits.max_request_time:
        process.group.running[session] = now
    return Grant(session, process.id, waiter)


def waits_for_any(group: GroupState) -> int:
    """The number of waiters that one more process would serve.

    Two kinds are left out: waiters that seek a process that is enabled, and waiters with a delayed spawn (``delay_spawn``).
    """
    if not group.seeking:
        return len(group.waiters) - len(group.spawn_delays)
    avoiding = group.avoiding
    seeking = sum(
        routing.sought(group, wanted, avoiding.get(waiter)) is not None for waiter, wanted in group.seeking.items()
    )
    return len(group.waiters) - len(group.spawn_delays) - seeking


def is_full(group: GroupState) -> bool:
    """Whether the queue has its maximum length."""
    return 0 < group.limits.max_request_queue_size <= len(group.waiters)


def append(
    pool: PoolState,
    group: GroupState,
    waiter: WaiterId,
    now: float,
    avoided: ProcessId | None,
    wanted: ProcessId | None,
) -> None:
    """Append ``waiter`` to the queue."""
    if avoided is not None:
        group.avoiding[waiter] = avoided
    if wanted is not None:
        group.seeking[waiter] = wanted
    group.waiters[waiter] = now
    pool.waiters[waiter] = group
    if group.key not in pool.active:
        active_groups.somebody_waits(pool, group)


def move_up(pool: PoolState, group: GroupState, waiter: WaiterId, since: float) -> None:
    """The last waiter of the queue has waited at a front since ``since``: move it before the waiters that came later."""
    waiters = group.waiters
    waiters[waiter] = since
    for later in [later for later, came in waiters.items() if came > since]:
        waiters.move_to_end(later)
    waiting_groups.first_changed(pool, group)


def renew(pool: PoolState, group: GroupState, waiter: WaiterId, since: float) -> None:
    """Let the waiter stand for another request, which has waited at its front since ``since``."""
    group.waiters.move_to_end(waiter)
    move_up(pool, group, waiter, since)


def delay_spawn(group: GroupState, waiter: WaiterId, lent: int, now: float) -> None:
    """Start no process for the waiter during ``SPAWN_DELAY``: a slot that another front holds may be idle, and is recalled.

    Only if other fronts hold a slot for each waiter. A constrained waiter, which does not accept every process, gets no delay.

    :param lent: the slots that other fronts hold.
    """
    is_constrained = waiter in group.avoiding or waiter in group.seeking
    if len(group.waiters) <= lent and group.in_routing and not is_constrained:
        group.spawn_delays[waiter] = now + SPAWN_DELAY


def spawn_delays_due(group: GroupState) -> float:
    """When the first of the delays ends; infinity: there is none."""
    return min(group.spawn_delays.values(), default=math.inf)


def end_spawn_delays(group: GroupState, now: float) -> None:
    """Count the waiters whose delay is over as waiters again that want a process."""
    for waiter in [waiter for waiter, until in group.spawn_delays.items() if until <= now]:
        del group.spawn_delays[waiter]


def leave(pool: PoolState, waiter: WaiterId) -> None:
    """``waiter`` has left. Nothing happens if it is not in a queue."""
    group = pool.waiters.pop(waiter, None)
    if group is not None:
        _forget(pool, group, waiter)


def _forget(pool: PoolState, group: GroupState, waiter: WaiterId) -> None:
    pool.waiters.pop(waiter, None)
    was_first = group.waits_as and next(iter(group.waiters)) == waiter
    del group.waiters[waiter]
    group.avoiding.pop(waiter, None)
    group.seeking.pop(waiter, None)
    group.spawn_delays.pop(waiter, None)
    if was_first:
        waiting_groups.first_changed(pool, group)


def serve(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Grant sessions to waiters while a process has room, longest wait first."""
    commands: list[Command] = []
    if group.has_constrained_waiters:
        return _serve_constrained(pool, group, now)
    while group.waiters:
        process = routing.take_least_busy(group)
        if process is None:
            break
        waiter, _ = group.waiters.popitem(last=False)
        del pool.waiters[waiter]
        if group.spawn_delays:
            group.spawn_delays.pop(waiter, None)
        commands.append(grant(pool, process, waiter, now))
    return commands


def _serve_constrained(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Like ``serve`` while some waiters avoid a process, or seek one."""
    commands: list[Command] = []
    for waiter in list(group.waiters):
        if not group.free:
            break
        process = routing.take_for(group, group.avoiding.get(waiter), group.seeking.get(waiter))
        if process is not None:
            _forget(pool, group, waiter)
            commands.append(grant(pool, process, waiter, now))
    return commands


def overdue(group: GroupState) -> float:
    """When the first waiter of the queue will have waited for too long."""
    if not group.waiters or not group.limits.max_request_queue_time:
        return math.inf
    return next(iter(group.waiters.values())) + group.limits.max_request_queue_time


def refuse_overdue(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Refuse the waiters that have waited for too long."""
    commands: list[Command] = []
    while overdue(group) <= now:
        waiter = next(iter(group.waiters))
        _forget(pool, group, waiter)
        commands.append(Refuse(waiter, Reason.QUEUE_TIME))
    return commands


def is_unservable(pool: PoolState, group: GroupState, now: float) -> bool:
    """No process will serve this group soon: no process, no attempt, and an open circuit (or the pool is shut down)."""
    if group.enabled:
        return False
    return not pool.open or (not group.attempts and group.backoff.opened and group.backoff.in_force(now))


def refuse_if_unservable(pool: PoolState, group: GroupState, now: float) -> list[Command]:
    """Refuse all waiters, if no process will serve the group soon."""
    if not group.waiters or not is_unservable(pool, group, now):
        return []
    waiters = list(group.waiters)
    for waiter in waiters:
        _forget(pool, group, waiter)
    return [refusal(pool, group, waiter, now) for waiter in waiters]


def refusal(pool: PoolState, group: GroupState, waiter: WaiterId, now: float) -> Refuse:
    """The answer of a group that cannot be served to ``waiter``."""
    if not pool.open:
        return Refuse(waiter, Reason.SHUT_DOWN)
    return Refuse(waiter, Reason.SPAWN_FAILED, group.backoff.failure, group.backoff.until - now, group.key)
