"""What follows a fact: which waiters are refused, which removed group may go, what starts, and when the pool is empty.

A fact is a method of ``policy``. Several facts have the same consequences; each function here is one consequence.
"""

from __future__ import annotations

from passenger_trio.core import (
    automatic_restart,
    group_restarts,
    oob_work,
    proven_or_crashed,
    resizing,
    retiring,
    scaling,
    waitlist,
)
from passenger_trio.core.commands import Command, PoolEmpty, Reason, Retire
from passenger_trio.core.model import AttemptId
from passenger_trio.core.state import Attempt, EnabledStatus, GroupState, PoolState, ProcessState
from passenger_trio.errors import InvariantBroken


def process_failed(
    state: PoolState, process: ProcessState, now: float, reason: Reason = Reason.FAILED
) -> list[Command]:
    """An enabled process broke the session protocol, or leaves its requests unanswered."""
    if state.open:
        # This call has no jitter, so the wait is the longest that this failure allows.
        proven_or_crashed.record_crash(process, now, 0.0, state.limits, None)
    retired = retiring.retire(state, process, reason, now)
    return retired + left(state, process, now, lost=process.group)


def retire_suspect_preloader(state: PoolState, group: GroupState) -> list[Command]:
    """Retire the preloader if the processes that it forks crash."""
    if not automatic_restart.distrusts_preloader(group):
        return []
    return [group_restarts.retire_preloader(group, group.generations[group.generation], Reason.CRASHES)]


def left(state: PoolState, process: ProcessState, now: float, lost: GroupState | None) -> list[Command]:
    """A process has left routing or the pool: refuse waiters that no process will serve, and start spawns."""
    refused = waitlist.refuse_if_unservable(state, process.group, now)
    if process.group.has_constrained_waiters:
        refused += waitlist.serve(state, process.group, now)
    if not state.open:
        return refused + empty(state)
    refused += group_restarts.conclude(process.group) + let_go(state, now)
    if state.limits.memory_share:
        refused += resizing.memory_changed(state, now, lost)
    return refused + scaling.start_spawns(state, now, None, lost)


def work_if_idle(state: PoolState, process: ProcessState, now: float) -> list[Command]:
    """A session has ended. If the process has none left, its out-of-band work begins, or that of its group."""
    group = process.group
    if process.sessions or not state.open:
        return []
    if process.status is EnabledStatus.DISABLED:
        return oob_work.became_idle(process)
    return oob_work.begin(state, group, now) if group.oob_wanted else []


def let_go(state: PoolState, now: float) -> list[Command]:
    """Retire what the removed groups do not need any more."""
    return resizing.let_go(state, now) if state.leaving else []


def last_session_ended(state: PoolState, process: ProcessState, proven: bool, now: float) -> list[Command]:
    """The last session of a detached process has ended: retire the process."""
    assert process.leaving is not None
    reason, process.leaving = process.leaving, None
    commands: list[Command] = [Retire(process.id, reason)]
    if proven:
        commands += scaling.start_spawns(state, now)
    return commands


def end_attempt(state: PoolState, attempt: AttemptId, now: float) -> Attempt:
    ended = state.attempts.pop(attempt, None)
    if ended is None:
        raise InvariantBroken(f"attempt {attempt} ends, but it is not under way")
    group = ended.group
    del group.attempts[attempt]
    if group.replacement is ended:
        group.replacement = None
    scaling.hand_over(state, ended, now)
    group.backoff.attempt_ended_at = group.generations[ended.generation].preloader_used = now
    return ended


def retire_unneeded(state: PoolState, process: ProcessState, now: float) -> list[Command]:
    """While shutting down, retire an idle process. (Its group has no waiters: it would have served them.)"""
    if process.is_attached and not process.sessions:
        return retiring.retire(state, process, Reason.SHUT_DOWN, now)
    return []


def empty(state: PoolState) -> list[Command]:
    """``PoolEmpty``, once, when the last process, attempt and preloader is gone."""
    if state.open or state.emptied or state.total or any(group.preloaders for group in state.active.values()):
        return []
    state.emptied = True
    return [PoolEmpty()]
