"""The pool's policy: facts go in as method calls, decisions come out as commands.

The policy knows ``state`` and the time that each call passes. It must not know a socket, a process
of the operating system, a task or a clock. Every method is synchronous, so it is a critical section
under Trio and needs no lock.

The contract with the shell
    * Perform the commands of a call in order, before the next call, without waiting.
    * A ``Grant`` counts from the step that decides it. The shell owes one ``session_closed`` for each,
      even when the waiter has left meanwhile, and even when the process is gone.
    * The shell answers a ``StartSpawn`` with one ``spawn_succeeded`` or ``spawn_failed``. After an
      ``AbandonSpawn`` it still owes that answer, only sooner. It answers a process that came with one
      ``process_exited``; ``Retire`` makes that come sooner. ``preloader_started``, ``preloader_ended``
      and ``RetirePreloader`` follow the same rule.
    * The shell spawns a generation from the code as it is when a command first names that generation.
    * Times never decrease. After each call, ask ``next_deadline`` again. Three cases never make the
      deadline earlier, so the shell may skip it: grants to a group without ``max_request_time``; a
      ``session_closed`` that returned only grants; a ``checkout`` that returned nothing and found
      other waiters (``has_queue``).
    * A fact about something unknown (a session closed twice) is a bug in the shell and raises
      ``InvariantBroken``. ``abandon`` is the only exception: a waiter may leave in the very moment in
      which the policy answers it. (A group that was not added is a ``KeyError``, but for a checkout: the
      application may just have been removed.)

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

Each part states its theory in its own module: ``waitlist``, ``routing``, ``scaling``, ``making_room``,
``retiring``, ``recycling``, ``request_time``, ``group_restarts``, ``resizing``, ``spawn_backoff``, ``crash_loop``, ``oob_work``, ``active_groups``.
``invariants`` holds the laws as code.
"""

from __future__ import annotations

from collections.abc import Iterable

from passenger_trio.core import (
    active_groups,
    automatic_restart,
    capacity,
    crash_loop,
    deadlines,
    follow_up,
    group_restarts,
    memory_room,
    oob_work,
    operator_orders,
    recycling,
    request_time,
    resizing,
    routing,
    scaling,
    starts_and_exits,
    statistics,
    waitlist,
)
from passenger_trio.core.commands import Command, Grant, Reason, Refuse, Retire
from passenger_trio.core.model import (
    AttemptId,
    GroupKey,
    PreloaderId,
    ProcessId,
    SessionId,
    SessionOutcome,
    SpawnFailure,
    WaiterId,
)
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import EnabledStatus, GenerationState, GroupState, PoolState
from passenger_trio.core.statistics import GroupGauges, GroupStatistics, PoolStatistics
from passenger_trio.errors import InvariantBroken

# Looked up once: reading an attribute of an enum class costs more than the comparison on the hot path.
_ENABLED = EnabledStatus.ENABLED
_DISABLED = EnabledStatus.DISABLED
_DONE = SessionOutcome.DONE
_CLIENT_GONE = SessionOutcome.CLIENT_GONE
_BROKEN_OFF = SessionOutcome.BROKEN_OFF
_PROCESS_FAILED = SessionOutcome.PROCESS_FAILED
_UNANSWERED = SessionOutcome.UNANSWERED


class PoolPolicy:
    """Decides for one pool. ``state`` is read-only for others: invariants, statistics and tests read it."""

    def __init__(self, limits: PoolLimits) -> None:
        self.state: PoolState = PoolState(limits)

    # --- groups ---------------------------------------------------------------------------------------------------

    def add_group(self, key: GroupKey, limits: GroupLimits, now: float, jitter: float = 0.0) -> list[Command]:
        """Add a group, and spawn its minimum as far as the limits allow. If it is leaving, it stays, and is restarted.

        :param jitter: a random number in [0, 1).
        :raises InvariantBroken: the pool has this group already.
        """
        state = self.state
        known = state.groups.get(key)
        if known is not None and known.leaving and state.open:
            return resizing.revive(state, known, limits, now, jitter)
        if known is not None:
            raise InvariantBroken(f"group {key} is added twice")
        state.groups[key] = group = GroupState(key, limits)
        state.timed = state.timed or limits.max_request_time > 0
        group.generations[group.generation] = GenerationState(group.generation, limits.preloads)
        if not active_groups.is_inactive(group):
            active_groups.set_active(state, group)
        elif state.total < state.ceiling:
            return []  # it wants nothing, and makes nothing possible
        grown = resizing.memory_changed(state, now) if limits.min_instances else []
        # One more group is one more replacement above the ceiling (``capacity.has_headroom``), whose ever it is.
        looked = state.active.values() if state.total >= state.ceiling else (group,)
        return grown + scaling.start_spawns(state, now, looked)

    def remove_group(self, key: GroupKey, now: float) -> list[Command]:
        """Let a group go: it serves those who wait for it, ends, and is forgotten (``EndGroup``). A second call does
        nothing. ``resizing`` states the theory.
        """
        group = self.state.groups.get(key)
        if group is None or group.leaving or not self.state.open:
            return []
        return resizing.remove(self.state, group, now)

    def change_pool_limits(self, limits: PoolLimits, now: float) -> list[Command]:
        """The limits of the whole pool change, and no request is lost."""
        return resizing.change_pool(self.state, limits, now) if self.state.open else []

    def change_group_limits(self, key: GroupKey, limits: GroupLimits, now: float, jitter: float) -> list[Command]:
        """The limits of a group change, and no request is lost.

        :param jitter: a random number in [0, 1).
        """
        group = self.state.groups[key]
        if not self.state.open:
            return []
        active_groups.set_active(self.state, group)
        return resizing.change_group(self.state, group, limits, now, jitter) + follow_up.let_go(self.state, now)

    # --- borrowing a process --------------------------------------------------------------------------------------

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
        process = routing.take(group)
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
        :param since: when the request came, if it waits at a front since before now: its place in the queue is by that.
        :param lent: slots of the group that other fronts have: an idle one comes back soon.
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
            restarted = self.restart(key, now, hard=True)
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
            waitlist.move_up(group, waiter, since)
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
        """The waiter of a front stands for another request now, which came then. Only for requests that take every process.

        It changes who is served first, and nothing else. Nothing happens if the waiter was answered before.
        """
        group = self.state.waiters.get(waiter)
        if group is not None:
            waitlist.renew(group, waiter, since)

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
            proven = crash_loop.served(process)
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
            if crash_loop.left_unanswered(process) and process.is_attached:
                return follow_up.process_failed(self.state, process, now, Reason.UNANSWERED)
        if process.leaving is not None and not process.sessions:
            return follow_up.last_session_ended(self.state, process, proven, now)
        if not proven and not due_now and not state.waiters and state.open:
            if process.status is _DISABLED or process.group.oob_wanted:
                return follow_up.work_if_idle(self.state, process, now)
            return []
        groups = state.active.values()
        commands = waitlist.serve(state, process.group, now)
        commands += follow_up.work_if_idle(self.state, process, now)
        if not state.open:
            commands += follow_up.retire_unneeded(self.state, process, now)
            return commands
        if state.leaving:
            commands += resizing.let_go(state, now)
        if proven or due_now or (not process.sessions and capacity.somebody_is_starved(state)):
            # The back-off has ended; or this process is idle and a starved group may take its place.
            commands += scaling.start_spawns(state, now, groups)
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
            raise InvariantBroken(f"session {session} is uncounted, but it is not open, or is that already")
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
        proven = crash_loop.served(process)
        process.processed += count - 1
        due_now = 0 < process.looks_at <= process.processed and recycling.is_replacement_due(process, now)
        if due_now:
            recycling.mark_to_replace(process, Reason.MAX_REQUESTS)
        if not state.open or not (proven or due_now):
            return []
        return scaling.start_spawns(state, now, state.active.values())

    def session_running(self, session: SessionId, since: float | None, now: float) -> list[Command]:
        """Since when the request runs that such a session serves now; None: it serves none. For ``max_request_time``.

        :raises InvariantBroken: the session is not open.
        """
        process = self.state.sessions.get(session)
        if process is None:
            raise InvariantBroken(f"session {session} serves, but it is not open")
        request_time.set_running(process.group, session, since)
        return []

    def budget(self, session: SessionId) -> int:
        """How many requests such a session may serve before the policy must decide again; 0: no limit.

        The sessions of a process share what is left until it is due_now.
        """
        process = self.state.sessions[session]
        if process.group.always_restart:
            return 1
        if not process.replace_at:
            return 0
        return max(1, (process.replace_at - process.processed) // max(1, process.sessions))

    # --- processes come and go ------------------------------------------------------------------------------------

    def spawn_succeeded(
        self, attempt: AttemptId, process: ProcessId, concurrency: int, now: float, jitter: float = 0.0
    ) -> list[Command]:
        """An attempt made a process that is ready to serve.

        :param process: its identity: the shell chooses it, and never uses it twice.
        :param concurrency: how many sessions it serves at a time; 0: no limit.
        :param jitter: a random number in [0, 1).
        :raises InvariantBroken: the attempt is not under way, or the process exists already.
        """
        return starts_and_exits.spawn_succeeded(self.state, attempt, process, concurrency, now, jitter)

    def spawn_failed(
        self, attempt: AttemptId, failure: SpawnFailure | None, now: float, jitter: float
    ) -> list[Command]:
        """An attempt made no process.

        :param failure: the evidence; None: the attempt was abandoned. If the shell abandons an attempt on its own, the
            failure still counts for the back-off. Otherwise the policy would start the next attempt for ever while the
            shell is being cancelled.
        :param jitter: a random number in [0, 1).
        :raises InvariantBroken: the attempt is not under way.
        """
        return starts_and_exits.spawn_failed(self.state, attempt, failure, now, jitter)

    def process_exited(
        self, process: ProcessId, now: float, jitter: float, failure: SpawnFailure | None = None
    ) -> list[Command]:
        """The operating system's process is gone, expected or not. The policy replaces it if the group needs it.

        Its open sessions stay open until ``session_closed`` reports each of them.

        :param jitter: a random number in [0, 1).
        :param failure: the evidence that refused waiters may see, if the exit counts as a failed start.
        :raises InvariantBroken: there is no such process.
        """
        return starts_and_exits.process_exited(self.state, process, now, jitter, failure)

    def sampled(self, process: ProcessId, size: int, now: float) -> list[Command]:
        """A process uses ``size`` bytes. Ignored if the process is gone: the measurement was taken earlier."""
        return starts_and_exits.sampled(self.state, process, size, now)

    def room_measured(self, total: int, own: int, preloader: int, now: float) -> list[Command]:
        """There are ``total`` bytes of memory, of which the server itself uses ``own``, and each preloader ``preloader`` on average.
        ``sampled`` told of each process before.
        """
        state = self.state
        state.memory_total, state.memory_own, state.memory_preloader = total, own, preloader
        memory_room.guess_anew(state)
        return resizing.memory_changed(state, now) + follow_up.let_go(self.state, now) if state.open else []

    def preloader_started(self, key: GroupKey, generation: int, preloader: PreloaderId, now: float) -> list[Command]:
        """A preloader of this generation is ready to fork.

        :param preloader: its identity, never used before in this generation.
        :raises InvariantBroken: the generation has ended, or has this preloader already.
        """
        return starts_and_exits.preloader_started(self.state, key, generation, preloader, now)

    def found_unsafe(self, key: GroupKey, generation: int, now: float) -> list[Command]:
        """The preloader of a generation loaded an application that is not safe to fork.

        From now on each process of the generation loads the application itself.

        :raises InvariantBroken: the generation has ended.
        """
        return starts_and_exits.found_unsafe(self.state, key, generation, now)

    def preloader_ended(self, key: GroupKey, generation: int, preloader: PreloaderId, now: float) -> list[Command]:
        """A preloader of the group is gone, expected or not. Another one starts only when a spawn needs it.

        :raises InvariantBroken: the generation has no such preloader.
        """
        return starts_and_exits.preloader_ended(self.state, key, generation, preloader, now)

    # --- operators ------------------------------------------------------------------------------------------------

    def detach(self, process: ProcessId, now: float) -> list[Command]:
        """Detach a process: it finishes its sessions, and another process replaces it if the group needs one.

        Nothing happens if the process was detached before, or is gone.
        """
        return operator_orders.detach(self.state, process, now)

    def may_disable(self, process: ProcessId) -> bool:
        """Whether ``disable`` would leave a process of the group in routing."""
        return operator_orders.may_disable(self.state, process)

    def disable(self, process: ProcessId, now: float) -> list[Command]:
        """Take a process out of routing until ``enable``. It keeps its sessions and its place in the limits.

        Nothing happens if it may not be disabled (``may_disable``).
        """
        return operator_orders.disable(self.state, process, now)

    def enable(self, process: ProcessId, now: float) -> list[Command]:
        """Put a process that was disabled back into routing. Nothing happens if it was not, or serves no more."""
        return operator_orders.enable(self.state, process, now)

    # --- out-of-band work -----------------------------------------------------------------------------------------

    def oob_work_wanted(self, process: ProcessId, now: float) -> list[Command]:
        """A process asks for out-of-band work (``oob_work``). Nothing happens if it serves no more."""
        state = self.state
        asking = state.processes.get(process)
        if asking is None or not asking.is_attached:
            return []
        commands = oob_work.want(state, asking, now)
        return commands + scaling.start_spawns(state, now, (asking.group,)) if commands else commands

    def oob_work_ended(self, process: ProcessId, succeeded: bool, now: float) -> list[Command]:
        """The out-of-band work that ``RunOobWork`` began has ended. Nothing happens if the process has left meanwhile."""
        state = self.state
        worked = state.processes.get(process)
        if worked is None or worked.group.oob_process is not worked:
            return []
        commands = oob_work.end(state, worked, succeeded, now)
        return commands + follow_up.left(self.state, worked, now, lost=None if succeeded else worked.group)

    # --- restarts -------------------------------------------------------------------------------------------------

    def restart(self, key: GroupKey, now: float, *, hard: bool = False) -> list[Command]:
        """Replace every process of the group by one that runs the current code. ``group_restarts`` states the theory.

        :param hard: retire all processes at once; otherwise each one serves until its replacement is ready.
        """
        return self.restart_all((key,), now, hard=hard)

    def restart_all(self, keys: tuple[GroupKey, ...], now: float, *, hard: bool = False) -> list[Command]:
        """Restart several groups, and look at each of them once."""
        return operator_orders.restart_all(self.state, keys, now, hard=hard)

    def is_troubled(self, key: GroupKey, now: float) -> bool:
        """Whether ``code_changed`` would act: the group does not start, or its processes crash."""
        return self.state.open and automatic_restart.is_troubled(self.state.groups[key], now)

    def code_changed(self, key: GroupKey, now: float) -> list[Command]:
        """The code on disk differs from the code that the group loaded. Restart the group if it is troubled."""
        if not self.is_troubled(key, now):
            return []
        self.state.groups[key].automatic_restart_at = now
        return self.restart(key, now)

    def fault_contained(self, task: str, what: str, times: int, now: float) -> list[Command]:
        """An exception outside the pool ended the one task or step that it happened in.

        The policy decides nothing. The call is a fact only so that a recording shows when the fault happened (KE1).

        :param times: how often this place has failed so far.
        """
        return []

    def always_restart(self, key: GroupKey, always: bool, now: float) -> list[Command]:
        """Switch ``always_restart``: while it is on, each request finds processes that have served no request."""
        group = self.state.groups[key]
        group.always_restart = always and not group.leaving
        return []

    def restart_target(self, key: GroupKey) -> int:
        """The generation to which the last ``restart`` of the group leads."""
        return group_restarts.target(self.state.groups[key])

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Command]:
        """Do what is due at ``now``. Harmless at any time.

        Refuse, kill, end processes that drained for too long, replace, retire idle processes, end back-offs.
        """
        return deadlines.tick(self.state, now)

    def next_deadline(self) -> float:
        """When to call ``tick`` next; ``math.inf``: only after another fact.

        The deadline may be early, never late. After ``tick(d)`` it is later than ``d``.
        """
        return deadlines.next_deadline(self.state)

    # --- the end --------------------------------------------------------------------------------------------------

    def shut_down(self, now: float) -> list[Command]:
        """Drain: serve waiters while a live process can, spawn nothing, retire what is not needed.

        ``PoolEmpty`` comes when the last process, attempt and preloader is gone. A second call does nothing.
        """
        return operator_orders.shut_down(self.state, now)

    def statistics(self, keys: Iterable[GroupKey] | None = None) -> PoolStatistics:
        """The state of the pool as frozen values. :param keys: as for ``statistics.describe``."""
        return statistics.describe(self.state, keys)

    def active_statistics(self) -> PoolStatistics:
        """The same without the groups in which nothing happens."""
        return statistics.describe_active(self.state)

    def gauges(self, keys: Iterable[GroupKey], now: float) -> dict[GroupKey, GroupGauges]:
        """The numbers of these groups for the metrics, as far as they are there."""
        groups = self.state.groups
        return {key: statistics.gauges_of(groups[key], now) for key in keys if key in groups}

    def group_statistics(self, key: GroupKey) -> GroupStatistics:
        """The state of one group as frozen values."""
        return statistics.describe_group(self.state, self.state.groups[key])
