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

Borrowing a process, the largest part, is in ``borrowing``, with the table of answers.
Each part states its theory in its own module: ``waitlist``, ``routing``, ``scaling``, ``making_room``,
``retiring``, ``recycling``, ``request_time``, ``group_restarts``, ``resizing``, ``backoff_and_circuit``, ``proven_or_crashed``, ``oob_work``, ``active_groups``.
``invariants`` holds the laws as code.
"""

from __future__ import annotations

from collections.abc import Iterable

from passenger_trio.core import (
    active_groups,
    automatic_restart,
    deadlines,
    follow_up,
    group_restarts,
    oob_work,
    operator_orders,
    processes_by_memory,
    resizing,
    scaling,
    starts_and_exits,
    statistics,
)
from passenger_trio.core.borrowing import Borrowing
from passenger_trio.core.commands import Command
from passenger_trio.core.model import (
    AttemptId,
    GroupKey,
    PreloaderId,
    ProcessId,
    SpawnFailure,
)
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import GenerationState, GroupState
from passenger_trio.core.statistics import GroupGauges, GroupStatistics, PoolStatistics
from passenger_trio.errors import InvariantBroken


class PoolPolicy(Borrowing):
    """Decides for one pool. ``state`` is read-only for others: invariants, statistics and tests read it."""

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
        if limits.min_instances:
            active_groups.set_active(state, group)
        elif state.total < state.ceiling:
            return []  # the group needs no process, and gives none away
        grown = resizing.memory_changed(state, now) if limits.min_instances else []
        # One more group allows one more replacement above the ceiling (``capacity.has_headroom``), also of other groups.
        looked = None if state.total >= state.ceiling else (group,)
        return grown + scaling.start_spawns(state, now, looked)

    def remove_group(self, key: GroupKey, now: float) -> list[Command]:
        """Let a group go: it serves its waiters, ends, and is forgotten (``EndGroup``). A second call does
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

    # --- processes come and go ------------------------------------------------------------------------------------

    def spawn_succeeded(
        self,
        attempt: AttemptId,
        process: ProcessId,
        concurrency: int,
        now: float,
        jitter: float = 0.0,
        size: int = 0,
    ) -> list[Command]:
        """An attempt made a process that is ready to serve.

        :param process: its identity: the shell chooses it, and never uses it twice.
        :param concurrency: how many sessions it serves at a time; 0: no limit.
        :param jitter: a random number in [0, 1).
        :param size: the bytes that it occupies, shared pages included; 0: unknown. They count until a process of the group
            is measured (``sampled``).
        :raises InvariantBroken: the attempt is not under way, or the process exists already.
        """
        return starts_and_exits.spawn_succeeded(self.state, attempt, process, concurrency, now, jitter, size)

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
        """There are ``total`` bytes of memory; the server itself uses ``own``, and a preloader ``preloader`` on average.
        Call ``sampled`` for each process first.
        """
        state = self.state
        state.memory_total, state.memory_own, state.memory_preloader = total, own, preloader
        processes_by_memory.guess_anew(state)
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
        """Like ``statistics``, for the active groups only (``active_groups``)."""
        return statistics.describe_active(self.state)

    def gauges(self, keys: Iterable[GroupKey], now: float) -> dict[GroupKey, GroupGauges]:
        """The numbers of these groups for the metrics. Unknown groups are left out."""
        groups = self.state.groups
        return {key: statistics.gauges_of(groups[key], now) for key in keys if key in groups}

    def group_statistics(self, key: GroupKey) -> GroupStatistics:
        """The state of one group as frozen values."""
        return statistics.describe_group(self.state, self.state.groups[key])
