"""What is due for the policy now, and when to look again: all that time alone makes possible.

``policy`` has the contract of both functions, under the same names.
"""

from __future__ import annotations

import math

from passenger_trio.core import (
    active_groups,
    drain_time,
    follow_up,
    group_restarts,
    making_room,
    oob_work,
    proven_or_crashed,
    recycling,
    request_time,
    retiring,
    scaling,
    waiting_groups,
    waitlist,
)
from passenger_trio.core.commands import Command, Reason
from passenger_trio.core.state import PoolState


def tick(state: PoolState, now: float) -> list[Command]:
    """``PoolPolicy.tick``."""
    groups = state.active.values()
    commands: list[Command] = []
    while (waiting := waiting_groups.next_to_refuse(state, now)) is not None:
        commands += waitlist.refuse_overdue(state, waiting, now)
    for group in groups:
        commands += waitlist.refuse_overdue(state, group, now)
        waitlist.end_spawn_delays(group, now)
        commands += request_time.end_overruns(state, group, now)
        commands += drain_time.look(group, now)
        if group.has_constrained_waiters:
            commands += waitlist.serve(state, group, now)
    if not state.open:
        return commands + [refusal for group in groups for refusal in waitlist.refuse_if_unservable(state, group, now)]
    scaling.notice_slow(state, now)
    if state.spare_due <= now:
        state.spare_due = math.inf
    for group in groups:
        group.looked_at = now
        group.backoff.expire(now)
        proven_or_crashed.look_at_age(group, now, state.limits)
        recycling.expire(group, now)
        commands += group_restarts.conclude(group)
        commands += waitlist.refuse_if_unservable(state, group, now)
    commands += retiring.retire_idle(state, now)
    commands += follow_up.let_go(state, now)
    commands += scaling.start_spawns(state, now)
    for group in groups:
        if retiring.preloader_due(group) <= now:
            commands.append(group_restarts.retire_preloader(group, group.generations[group.generation], Reason.IDLE))
        commands += oob_work.look(state, group, now)
    active_groups.drop_inactive(state)
    waiting_groups.note_unfair(state, now)
    return commands


def next_deadline(state: PoolState) -> float:
    """``PoolPolicy.next_deadline``."""
    due = min(state.spare_due, waiting_groups.next_due(state)) if state.open else math.inf
    contended = bool(state.waiting)
    for group in state.active.values():
        due = min(due, waitlist.overdue(group), request_time.overrun_due(group))
        if group.spawn_delays:
            due = min(due, waitlist.spawn_delays_due(group))
        if group.detached:
            due = min(due, group.drain_due)
        if state.open:
            due = min(due, group.idle_due, group.expiry_due, group.oob_due, retiring.preloader_due(group))
            if group.backoff.until > -math.inf:
                due = min(due, group.backoff.until)
            overdue_at = making_room.overdue_at(group)
            contended = contended or overdue_at < math.inf
            if overdue_at > group.looked_at:
                due = min(due, overdue_at)
    if state.open:
        for attempt in state.attempts.values():
            due = min(due, attempt.slow_at)
            gives_way_at = making_room.gives_way_at(attempt) if contended else math.inf
            if gives_way_at > attempt.group.looked_at:
                due = min(due, gives_way_at)
    return due
