"""Borrowing a process: how a request that asks is answered, and what the end of its session changes.

How a checkout is answered when no process is free
    ===============================================  ==============================================
    the pool is shut down                            SHUT_DOWN, at once
    the group was removed, and is forgotten          REMOVED, at once
    the queue is full                                QUEUE_FULL
    the waiter waited ``max_request_queue_time``     QUEUE_TIME
    no process, no attempt, an open circuit          SPAWN_FAILED, with the evidence and ``retry_after``
    anything else                                    the waiter stays queued, in order of arrival
    ===============================================  ==============================================
    The SPAWN_FAILED row also holds for waiters that are queued already: a failed spawn refuses them,
    but never while a live process can serve them.

A session is one request, or a slot that a front leases, which serves one request after another (``session_served``,
``session_running``, ``budget``).
"""

from __future__ import annotations

from passenger_trio.core import (
    active_groups,
    automatic_restart,
    capacity,
    follow_up,
    group_restarts,
    operator_orders,
    proven_or_crashed,
    recycling,
    request_time,
    resizing,
    routing,
    scaling,
    waitlist,
)
from passenger_trio.core.commands import Command, Grant, Reason, Refuse, Retire
from passenger_trio.core.model import (
    GroupKey,
    ProcessId,
    SessionId,
    SessionOutcome,
    WaiterId,
)
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.state import EnabledStatus, PoolState
from passenger_trio.errors import InvariantBroken

__all__ = ["Borrowing"]

# Looked up once: reading an attribute of an enum class costs more than the comparison on the hot path.
_ENABLED = EnabledStatus.ENABLED
_DISABLED = EnabledStatus.DISABLED
_DONE = SessionOutcome.DONE
_CLIENT_GONE = SessionOutcome.CLIENT_GONE
_BROKEN_OFF = SessionOutcome.BROKEN_OFF
_PROCESS_FAILED = SessionOutcome.PROCESS_FAILED
_UNANSWERED = SessionOutcome.UNANSWERED


class Borrowing:
    """The part of the policy that requests use. ``policy`` states the contract."""

    def __init__(self, limits: PoolLimits) -> None:
        self.state: PoolState = PoolState(limits)

    @property
    def is_timed(self) -> bool:
        """Whether some group limits the time of a request. Then ``checkout_nowait`` may bring the deadline forward."""
        return self.state.timed

    def has_queue(self, key: GroupKey) -> bool:
        """Whether the group has waiters."""
        try:
            return bool(self.state.groups[key].waiters)
        except KeyError:  # it was removed
            return False

    def is_alone(self, process: ProcessId) -> bool:
        """Whether no other process of its group is enabled."""
        known = self.state.processes.get(process)
        if known is None:
            return True
        others = known.group.in_routing - (known.status is _ENABLED)
        return not others

    def checkout_nowait(self, key: GroupKey, now: float) -> Grant | None:
        """Grant a session on the least busy process. None: call ``checkout``. Never overtakes a waiter."""
        try:
            group = self.state.groups[key]
        except KeyError:  # it was removed
            return None
        if group.waiters or group.always_restart or not self.state.open:
            return None
        process = routing.take_least_busy(group)
        if process is None:
            return None
        return waitlist.grant(self.state, process, None, now)

    def checkout(
        self,
        waiter: WaiterId,
        key: GroupKey,
        now: float,
        avoided: ProcessId | None = None,
        wanted: ProcessId | None = None,
        since: float | None = None,
        lent: int = 0,
    ) -> list[Command]:
        """Ask for a session: grant it at once, refuse it at once, or queue the waiter and answer later.

        :param avoided: a process that left this request unanswered. The policy chooses any other process, and this
            one only if the group has no other.
        :param wanted: the process of the sticky session that the request belongs to. If it is enabled, the request
            waits for it.
        :param since: when the request came, if it has already waited at a front. Its place in the queue counts from then.
        :param lent: slots of the group that other fronts hold. An idle one comes back soon.
        """
        state = self.state
        if waiter in state.waiters:
            raise InvariantBroken(f"waiter {waiter} asks twice")
        group = state.groups.get(key)
        if group is None:
            return [Refuse(waiter, Reason.SHUT_DOWN if not state.open else Reason.REMOVED)]
        if not state.open:
            return [waitlist.refusal(state, group, waiter, now)]
        if group.always_restart and group_restarts.is_used(group):
            restarted = operator_orders.restart_all(state, (key,), now, hard=True)
            return restarted + self.checkout(waiter, key, now, avoided, wanted, since, lent)
        # No waiter is overtaken: those that wait take none of the processes with room.
        process = routing.take_for(group, avoided, wanted) if group.free else None
        if process is not None:
            return [waitlist.grant(state, process, waiter, now)]
        if waitlist.is_full(group):
            return [Refuse(waiter, Reason.QUEUE_FULL)]
        backoff = group.backoff
        if not group.enabled and not group.attempts and backoff.in_force(now):
            if now - backoff.attempt_ended_at >= group.limits.retry_on_demand_after:
                backoff.lift()
            elif waitlist.is_unservable(state, group, now):
                return [waitlist.refusal(state, group, waiter, now)]
        active_groups.drop_inactive(state, only_if_many=True)
        waitlist.append(state, group, waiter, now, avoided, wanted)
        if since is not None:
            waitlist.move_up(state, group, waiter, since)
        if lent:
            waitlist.delay_spawn(group, waiter, lent, now)
        if state.limits.memory_share and capacity.is_starved(group):
            woken = resizing.memory_changed(state, now)  # it counts from now on
            return woken + scaling.start_spawns(state, now, (group,))
        if group.has_constrained_waiters:
            served = waitlist.serve(state, group, now) + follow_up.let_go(self.state, now)
            return served + scaling.start_spawns(state, now, (group,))
        return [] if scaling.has_enough(state, group) else scaling.start_spawns(state, now, (group,))

    def renew(self, waiter: WaiterId, since: float) -> None:
        """Let the waiter of a front stand for another request, which came at ``since``. Both requests accept any process.

        Only the order of the queue changes. Nothing happens if the waiter was answered before.
        """
        group = self.state.waiters.get(waiter)
        if group is not None:
            waitlist.renew(self.state, group, waiter, since)

    def abandon(self, waiter: WaiterId, now: float) -> list[Command]:
        """The waiter has left.

        Nothing happens if the waiter was answered before; the caller then closes the session that it was granted.
        """
        waitlist.leave(self.state, waiter)
        # Removing a waiter makes nothing possible that was impossible before. But a removed group may have waited for it.
        return follow_up.let_go(self.state, now)

    def session_closed(self, session: SessionId, outcome: SessionOutcome, now: float) -> list[Command]:
        """A granted session has ended. The next waiter gets its place; a process that failed gets no more sessions.

        :raises InvariantBroken: the session is not open.
        """
        state = self.state
        process = state.sessions.pop(session, None)
        if process is None:
            raise InvariantBroken(f"session {session} is closed, but it is not open")
        if process.uncounted and session in state.uncounted:
            state.uncounted.discard(session)
            routing.give_back_uncounted(process)
        else:
            routing.give_back(process)
        process.last_used = now
        if process.group.running:
            process.group.running.pop(session, None)
        proven = due_now = False
        if outcome is _DONE or outcome is _CLIENT_GONE or outcome is _BROKEN_OFF:
            if outcome is _BROKEN_OFF:
                automatic_restart.count_broken_off(process)
            elif process.group.crashes and outcome is _DONE:
                process.group.crashes = 0
            process.processed += 1
            if process.group.backoff.failures:
                proven = proven_or_crashed.served(process)
            if process.processed == process.looks_at and recycling.is_replacement_due(process, now):
                recycling.mark_to_replace(process, Reason.MAX_REQUESTS)
                due_now = True
        elif outcome is _PROCESS_FAILED:
            if process.is_attached:
                return follow_up.process_failed(self.state, process, now)
            if process.leaving is not None:
                process.leaving = None
                return [Retire(process.id, Reason.FAILED)]
        elif outcome is _UNANSWERED:
            automatic_restart.count_broken_off(process)
            if proven_or_crashed.left_unanswered(process) and process.is_attached:
                return follow_up.process_failed(self.state, process, now, Reason.UNANSWERED)
        if process.leaving is not None and not process.sessions:
            return follow_up.last_session_ended(self.state, process, proven, now)
        if not proven and not due_now and not state.waiters and state.open:
            if process.status is _DISABLED or process.group.oob_wanted:
                return follow_up.work_if_idle(self.state, process, now)
            return []
        commands = waitlist.serve(state, process.group, now)
        commands += follow_up.work_if_idle(self.state, process, now)
        if not state.open:
            commands += follow_up.retire_unneeded(self.state, process, now)
            return commands
        if state.leaving:
            commands += resizing.let_go(state, now)
        if proven or due_now or (not process.sessions and capacity.somebody_is_starved(state)):
            # The back-off has ended; or this process is idle and a starved group may take its place.
            commands += scaling.start_spawns(state, now)
        return commands

    def session_long_lived(self, session: SessionId, now: float) -> list[Command]:
        """Mark a granted session as long-lived: it is exempt from ``max_request_time``.

        :raises InvariantBroken: the session is not open.
        """
        process = self.state.sessions.get(session)
        if process is None:
            raise InvariantBroken(f"session {session} is long-lived, but it is not open")
        process.group.running.pop(session, None)
        return []

    def session_uncounted(self, session: SessionId, now: float) -> list[Command]:
        """Stop counting a granted session in the concurrency of its process: the next waiter gets its place.

        :raises InvariantBroken: the session is not open, or is uncounted already.
        """
        state = self.state
        process = state.sessions.get(session)
        if process is None or session in state.uncounted:
            raise InvariantBroken(f"session {session} is uncounted, but it is not open, or is uncounted already")
        state.uncounted.add(session)
        routing.set_uncounted(process)
        return waitlist.serve(state, process.group, now) + follow_up.let_go(self.state, now)

    def session_served(self, session: SessionId, count: int, now: float) -> list[Command]:
        """A session that serves one request after another (a slot that a front leases) has served ``count`` more of them.

        :param count: at least 1.
        :raises InvariantBroken: the session is not open.
        """
        state = self.state
        process = state.sessions.get(session)
        if process is None:
            raise InvariantBroken(f"session {session} has served, but it is not open")
        process.last_used = now
        process.group.crashes = 0
        process.processed += 1
        proven = proven_or_crashed.served(process)
        process.processed += count - 1
        due_now = 0 < process.looks_at <= process.processed and recycling.is_replacement_due(process, now)
        if due_now:
            recycling.mark_to_replace(process, Reason.MAX_REQUESTS)
        if not state.open or not (proven or due_now):
            return []
        return scaling.start_spawns(state, now)

    def session_running(self, session: SessionId, since: float | None, now: float) -> list[Command]:
        """Note when the request began that such a session serves now (None: it serves none), for ``max_request_time``.

        :raises InvariantBroken: the session is not open.
        """
        process = self.state.sessions.get(session)
        if process is None:
            raise InvariantBroken(f"session {session} serves, but it is not open")
        request_time.set_running(process.group, session, since)
        return []

    def budget(self, session: SessionId) -> int:
        """How many requests such a session may serve before the policy must decide again; 0: no limit.

        The sessions of a process share what is left until it is replaced.
        """
        process = self.state.sessions[session]
        if process.group.always_restart:
            return 1
        if not process.replace_at:
            return 0
        return max(1, (process.replace_at - process.processed) // max(1, process.sessions))
