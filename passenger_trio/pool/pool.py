"""The Pool: ``core.policy`` with a clock, tasks and processes around it.

Every fact enters through one method here. The method calls the policy and performs the commands in
one step, so no other task can run in between. A waiter is answered exactly once, with a ``Session``
or an error (``waiter``). What the commands do is in ``effects``.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable, Collection, Iterable
from typing import Any

import trio

from passenger_trio.core.commands import Command, Grant
from passenger_trio.core.evidence import Evidence
from passenger_trio.core.memory_room import Calculation, calculate
from passenger_trio.core.model import (
    AttemptId,
    ErrorCategory,
    GroupKey,
    PreloaderId,
    ProcessId,
    SessionOutcome,
    SpawnFailure,
    WaiterId,
)
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.recorder import RecordedPolicy
from passenger_trio.core.state import Rejection
from passenger_trio.core.statistics import GroupGauges, GroupStatistics, PoolStatistics
from passenger_trio.errors import PoolShutDown, SpawnError
from passenger_trio.events import (
    ProcessAttached,
    SpawnFailed,
)
from passenger_trio.kernel import ErrorKernel
from passenger_trio.log_lines import pool as lines
from passenger_trio.pool.clock import Clock
from passenger_trio.pool.effects import Effects
from passenger_trio.pool.group_task import GroupTask
from passenger_trio.pool.lending import Lending
from passenger_trio.pool.perform import perform
from passenger_trio.pool.session import Process, Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.spawning.choose_spawner import MakeSpawner
from passenger_trio.spawning.spawner import LiveProcess, Spawner

__all__ = ["Pool"]


_MANY = 64
"""Groups in which something happens: with more, the deadline is not read after each fact."""


class Pool(Effects):
    """``run`` is its task. ARCHITECTURE.md (the pool seam) lists the parts that ``server/`` uses.

    An unexpected exception ends the server only here (KE1): when the policy, or performing its
    commands, raises, the caller gets the exception, and ``run`` raises it as well.
    """

    def __init__(self, limits: PoolLimits, kernel: ErrorKernel | None = None) -> None:
        super().__init__(kernel or ErrorKernel(), RecordedPolicy(limits, on_failure=self.failed))
        self._kernel.on_logged = self._fault_contained
        self._failure: Exception | None = None
        self._waiter_ids = itertools.count(1)
        self._process_ids = itertools.count(1)
        self._nursery: trio.Nursery | None = None
        self._clock = Clock(self._policy.next_deadline, self._tick, lambda: len(self._policy.state.active) > _MANY)
        self.lending: Lending = Lending(self._policy, self._perform, self.now)
        """For the desk that leases processes to fronts."""
        self.on_spawn: Callable[[], None] = lambda: None
        """Called when a spawn begins."""
        self._routes: dict[bytes, ProcessId] = {}
        self._closed = False
        """No group task may begin any more."""
        self.memory_source: str = ""
        """What limits the memory, if it was measured."""
        self.stranger_came: trio.Event = trio.Event()
        """Set when a process of an application that was never measured is ready, while the memory decides how many there are."""

    # -- the tree -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the pool's nursery. It ends when ``shut_down`` was called and everything is gone.
        Cancelling it kills everything.

        :raises Exception: the exception that the policy, or performing its commands, has raised.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._read_time_by(trio.lowlevel.current_clock().current_time)  # the same clock, with fewer calls
                nursery.start_soon(self._run_clock)
                task_status.started()
                try:
                    await self._over.wait()
                finally:
                    self._close(nursery)
        finally:
            self.empty.set()  # nothing is left, whatever ended the pool
            self.events.end()
        if self._failure is not None:
            raise self._failure

    def _close(self, nursery: trio.Nursery) -> None:
        """Let every group task end when it is empty. The reason is a complete shutdown, a failure
        of the policy, or cancellation.
        """
        if self._failure is None and not self.empty.is_set():
            # Cancelled. From here on the policy replaces no process that ends: a new process would be killed at once,
            # and idle group tasks are about to close.
            try:
                self.shut_down()
            except Exception:  # noqa: BLE001  failed has stored it
                pass
        self._closed = True
        for task in self.group_tasks.values():
            task.close()
        # The clock would run for ever. So would processes that a failed policy does not end.
        if self._failure is not None or not self.empty.is_set():
            nursery.cancel_scope.cancel()
        self._clock.stop()

    def _fault_contained(self, task: str, what: str, times: int) -> None:
        self._policy.fault_contained(task, what, times, self.now())

    async def _run_clock(self) -> None:
        try:
            await self._clock.run()
        except Exception as error:  # noqa: BLE001  the timer is a part of the pool
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Store the first exception, and end the pool: from now on the policy's decisions cannot be
        trusted.
        """
        if self._failure is None:
            self._failure = error
            lines.pool_failed(reason=f"{type(error).__name__}: {error}")
        self._over.set()

    async def add_group(
        self, key: GroupKey, limits: GroupLimits, spawner: Spawner | MakeSpawner, shutdown_timeout: float
    ) -> None:
        """Add a group and start its first processes. A group that was removed, and has not ended, stays,
        and is restarted.

        :param spawner: a callable that makes the spawner of each generation; or one spawner, for a
            group that is never restarted.
        :raises PoolShutDown: the pool has ended.
        """
        await trio.lowlevel.checkpoint()
        self.add_group_nowait(key, limits, spawner, shutdown_timeout)
        self.notify_changed()

    def add_group_nowait(
        self, key: GroupKey, limits: GroupLimits, spawner: Spawner | MakeSpawner, shutdown_timeout: float
    ) -> None:
        """The same for one of many. The caller calls ``notify_changed`` after some of them."""
        assert self._nursery is not None, "run() is not running"
        if self._closed:
            raise PoolShutDown
        make = spawner if callable(spawner) else lambda generation: spawner
        known = self.group_tasks.get(key)
        if known is not None:
            if not self._policy.state.open:
                return  # it ends with the others
            known.make_spawner, known.shutdown_timeout = make, shutdown_timeout
            commands = self._policy.add_group(key, limits, self.now(), random.random())
        else:
            self.group_tasks[key] = GroupTask(key, make, shutdown_timeout, self, self._kernel, self._nursery)
            commands = self._policy.add_group(key, limits, self.now())
        self._perform(commands)

    @property
    def active(self) -> Collection[GroupKey]:
        """The groups in which something happens, and maybe some that have just come to rest."""
        return self._policy.state.active.keys()

    def has(self, key: GroupKey) -> bool:
        """Whether a group was added, and is not gone."""
        return key in self._policy.state.groups

    def remove_group(self, key: GroupKey) -> None:
        """Let a group serve those who wait for it, and end. It is gone when ``group_tasks`` has it no more."""
        self._perform(self._policy.remove_group(key, self.now()))
        self.notify_changed()

    def change_limits(self, limits: PoolLimits) -> None:
        """Change the limits of the whole pool. No request is lost."""
        self._perform(self._policy.change_pool_limits(limits, self.now()))
        self.notify_changed()

    def change_group(
        self, key: GroupKey, limits: GroupLimits, make_spawner: MakeSpawner | None, shutdown_timeout: float
    ) -> None:
        """Change the limits of a group. No process ends for it but those that are too many.

        :param make_spawner: makes the spawners from the next generation on; None: as before.
        :raises KeyError: there is no such group.
        """
        task = self.group_tasks[key]
        task.shutdown_timeout = shutdown_timeout
        if make_spawner is not None:
            task.make_spawner = make_spawner
        self._perform(self._policy.change_group_limits(key, limits, self.now(), random.random()))
        self.notify_changed()

    def hasten(self, seconds: float) -> None:
        """Processes that are asked to end from now on have so many seconds at most until they get SIGTERM."""
        for task in self.group_tasks.values():
            task.hasten(seconds)

    def shut_down(self) -> None:
        """Retire everything. ``empty`` is set when everything is gone."""
        self._perform(self._policy.shut_down(self.now()))

    # -- the seam: called by server/ ----------------------------------------------------------------------------

    def checkout_or_queue(
        self, key: GroupKey, now: float, avoided: ProcessId | None = None, sticky_route: bytes = b""
    ) -> Session | Waiter:
        """Borrow a process that is free now, or enter the group's queue. The returned waiter may
        already be answered.

        :param now: the time, from a caller that has just read it.
        :param avoided: a process that left the request unanswered.
        :param sticky_route: ``Process.route`` of the process of the request's sticky session; empty: it has none.
        """
        if sticky_route or avoided is not None:
            wanted = self._routes.get(sticky_route)
            return self._queue_up(key, now, others_wait=False, avoided=avoided, wanted=wanted)
        if self._policy.has_queue(key):
            return self._queue_up(key, now, others_wait=True)
        return self._take(key, now) or self._queue_up(key, now, others_wait=False)

    def _take(self, key: GroupKey, now: float) -> Session | None:
        grant = self._policy.checkout_nowait(key, now)
        if grant is None:
            return None
        if self._policy.is_timed:
            self._clock.recheck()
        return Session(self, grant.session, self.processes[grant.process])

    def _queue_up(
        self,
        key: GroupKey,
        now: float,
        *,
        others_wait: bool,
        avoided: ProcessId | None = None,
        wanted: ProcessId | None = None,
    ) -> Waiter:
        waiter = Waiter(self, WaiterId(next(self._waiter_ids)))
        commands = self._policy.checkout(waiter.id, key, now, avoided, wanted)
        self._waiters[waiter.id] = waiter
        if commands or not others_wait:
            self._perform(commands)
        if self.watcher is not None and not waiter.answered:
            self.watcher.somebody_waits(key)
        return waiter

    def queue_for_front(
        self, key: GroupKey, since: float, avoided: ProcessId | None, sticky_route: bytes, lent: int
    ) -> Waiter:
        """Enter the queue for a request that waits at a front since then."""
        waiter = Waiter(self, WaiterId(next(self._waiter_ids)))
        wanted = self._routes.get(sticky_route)
        commands = self._policy.checkout(waiter.id, key, self.now(), avoided, wanted, since, lent)
        self._waiters[waiter.id] = waiter
        self._perform(commands)
        return waiter

    def left(self, waiter: Waiter) -> None:
        """Called by ``Waiter.leave``."""
        if self._waiters.pop(waiter.id, None) is not None:
            self._perform(self._policy.abandon(waiter.id, self.now()))

    def session_closed(self, session: Session, outcome: SessionOutcome, now: float) -> None:
        """Called by ``Session.close``, once."""
        commands = self._policy.session_closed(session.id, outcome, now)
        if not commands:
            return
        if len(commands) == 1 and type(command := commands[0]) is Grant and not self._policy.is_timed:
            try:
                self.grant(command, now)  # a grant makes no deadline earlier
            except Exception as error:
                self.failed(error)
                raise
        else:
            self._perform(commands)

    def is_alone(self, process: Process[LiveProcess]) -> bool:
        """Whether no other process of the group serves."""
        return self._policy.is_alone(process.id)

    def session_long_lived(self, session: Session) -> None:
        """Called by ``Session.hold``."""
        self._perform(self._policy.session_long_lived(session.id, self.now()))

    def session_uncounted(self, session: Session) -> None:
        """Called by ``Session.set_uncounted``."""
        self._perform(self._policy.session_uncounted(session.id, self.now()))

    async def backtrace(self, pid: int) -> str:
        """What a process of the pool is doing: the stacks of its threads and tasks, for people. Takes
        4 seconds at most. Whatever the process does, it is not disturbed.

        :raises LookupError: no process of the pool has this pid.
        """
        for process in self.processes.values():
            if process.live.pid == pid:
                return await process.live.backtrace()
        raise LookupError(pid)

    def oob_work_wanted(self, session: Session) -> None:
        """Called by ``Session.want_oob_work``."""
        self.oob_work_wanted_by(session.process.id)

    def oob_work_wanted_by(self, id: ProcessId) -> None:
        """A process asks for out-of-band work. One that speaks HTTP has no way to be told to begin."""
        process = self.processes.get(id)
        if process is not None and process.live.worker_protocol.name == "session":
            self._perform(self._policy.oob_work_wanted(id, self.now()))

    def trace(self) -> Callable[[], dict[str, Any]]:
        """Return a function that makes JSON values of the flight recorder's recording. It is slow,
        so call it in a thread.
        """
        return self._policy.dump()

    @property
    def max_pool_size(self) -> int:
        """The most processes, now."""
        return self._policy.state.limits.max_pool_size

    @property
    def fits_memory(self) -> bool:
        """Whether the memory decides how many processes there are."""
        return self._policy.state.limits.memory_share > 0

    def memory_calculation(self) -> Calculation | None:
        """How the number of processes was found; None: it is fixed."""
        return calculate(self._policy.state) if self.fits_memory else None

    def limits_memory(self, key: GroupKey) -> bool:
        """Whether the processes of a group must be measured: it has a memory limit, or the memory decides about the pool."""
        if self.fits_memory:
            return True
        limits = self._policy.state.groups[key].limits
        return limits.memory_limit > 0 or limits.hard_memory_limit > 0

    def statistics(self, keys: Iterable[GroupKey] | None = None) -> PoolStatistics:
        """The state of the pool now; read-only.

        :param keys: describe these groups only, as far as they are there (default: all).
        """
        return self._policy.statistics(keys)

    def active_statistics(self) -> PoolStatistics:
        """The same without the groups in which nothing happens."""
        return self._policy.active_statistics()

    def gauges(self, keys: Iterable[GroupKey]) -> dict[GroupKey, GroupGauges]:
        """The numbers of these groups for the metrics, as far as they are there."""
        return self._policy.gauges(keys, self.now())

    def group_statistics(self, key: GroupKey) -> GroupStatistics:
        """The state of one group now; read-only.

        :raises KeyError: there is no such group.
        """
        return self._policy.group_statistics(key)

    # -- facts --------------------------------------------------------------------------------------------------

    def spawn_succeeded(self, task: GroupTask, attempt: AttemptId, live: LiveProcess) -> None:
        """See ``GroupFacts``."""
        now = self.now()
        process = Process(ProcessId(next(self._process_ids)), task.key, live, attached=now)
        self.processes[process.id] = process
        self._routes[process.route] = process.id
        self._told.pop(task.key, None)
        self._count_attempt(task, attempt, "smart" if live.preloaded else "direct", "ready", now)
        task.keep(process)
        lines.process_ready(
            group=task.key,
            pid=live.pid,
            milliseconds=round(live.spawn_time * 1000, 3),
            how="forked" if live.preloaded else "started",
        )
        self.events.publish(ProcessAttached(group=str(task.key), pid=live.pid))
        if self.fits_memory and not self._policy.state.groups[task.key].process_size:
            self.stranger_came.set()
        self._perform(self._policy.spawn_succeeded(attempt, process.id, live.concurrency, now, random.random()))
        self.notify_changed()

    def spawn_failed(self, task: GroupTask, attempt: AttemptId, error: SpawnError | None) -> None:
        """See ``GroupFacts``."""
        if error is not None:
            self._log_failure(task.key, error.failure)
        summary = error.failure.summary if error else None
        error_id = error.failure.error_id if error else None
        self.events.publish(SpawnFailed(group=str(task.key), summary=summary, id=error_id))
        now = self.now()
        method = task.forking.method if task.forking is not None else "unknown"
        self._count_attempt(task, attempt, method, "failed" if error else "abandoned", now)
        self._perform(self._policy.spawn_failed(attempt, error.failure if error else None, now, random.random()))
        self.notify_changed()

    def _count_attempt(self, task: GroupTask, attempt: AttemptId, method: str, outcome: str, now: float) -> None:
        begun = self._policy.state.attempts[attempt].begun
        self.tally.spawn_ended(task.key, method, outcome, now - begun)

    def process_exited(self, process: Process[LiveProcess]) -> None:
        """See ``GroupFacts``."""
        del self.processes[process.id]
        del self._routes[process.route]
        unasked = not process.leaving
        process.leave()
        # If the policy detects a crash loop, users see this failure.
        evidence = SpawnFailure(
            error_id=secrets.token_hex(4),
            category=ErrorCategory.EXITED,
            summary="The application's processes end soon after they have started",
            problem=f"Process {process.live.pid} ended before it had served a request. Its last output, if there was any, is below.",
            solution="Look at the output, and for whatever ends the process: a call of exit, a signal, a crash of an extension.",
            journey=process.live.journey,
            output=process.live.output_tail,
        )
        commands = self._policy.process_exited(process.id, self.now(), random.random(), evidence)
        if unasked and (group := self._policy.state.groups.get(process.group)) and group.backoff.failure is evidence:
            self.failures.append((self.now(), process.group, evidence))
            lines.circuit_opened(
                group=process.group, pid=process.live.pid, summary=evidence.summary, error_id=evidence.error_id
            )
        self._perform(commands)
        self._goes(process.id)
        self.notify_changed()

    def oob_work_ended(self, process: Process[LiveProcess], trouble: str) -> None:
        """See ``GroupFacts``."""
        if process.id not in self.processes or process.leaving:
            return
        if trouble:
            lines.oob_work_failed(group=process.group, pid=process.live.pid, reason=trouble)
        self._perform(self._policy.oob_work_ended(process.id, not trouble, self.now()))
        self.notify_changed()

    def sampled(self, id: ProcessId, size: int) -> None:
        """Report the memory size of a process, in bytes."""
        self._perform(self._policy.sampled(id, size, self.now()))

    def room_measured(self, total: int, own: int, preloader: int, source: str) -> None:
        """Report how much memory there is, and what the server uses of it itself, in bytes. ``sampled`` came before.

        :param preloader: what a preloader uses on average; they are not in ``own``.
        :param source: what sets the limit: ``RAM``, or a file of a cgroup.
        """
        self.memory_source = source
        self._perform(self._policy.room_measured(total, own, preloader, self.now()))
        self.notify_changed()

    def preloader_changed(self, key: GroupKey, generation: int, preloader: int, started: bool) -> None:
        """Report that the preloader with that number, of that generation, has started or ended."""
        told = self._policy.preloader_started if started else self._policy.preloader_ended
        self._perform(told(key, generation, PreloaderId(preloader), self.now()))

    def found_unsafe(self, key: GroupKey, generation: int) -> None:
        """Report that the application of a generation is not safe to fork. Its processes are then
        started directly.
        """
        self._perform(self._policy.found_unsafe(key, generation, self.now()))

    # -- operators ----------------------------------------------------------------------------------------------

    def restart(self, key: GroupKey, *, hard: bool = False) -> int:
        """Replace every process of a group. Return the generation that the restart leads to (see
        ``wait_restarted``).

        :raises KeyError: there is no such group.
        """
        return self.restart_all((key,), hard=hard)[key]

    def restart_all(self, keys: tuple[GroupKey, ...], *, hard: bool = False) -> dict[GroupKey, int]:
        """The same for several groups, in one step.

        :raises KeyError: there is no such group.
        """
        for key in keys:
            self.group_tasks[key]  # raises KeyError here: a caller's mistake is not a failure of the policy
        keys = tuple(filter(self.has, keys))  # one that is being added starts with the code of now
        self._perform(self._policy.restart_all(keys, self.now(), hard=hard))
        self.notify_changed()
        return {key: self._policy.restart_target(key) for key in keys}

    def restart_target(self, key: GroupKey) -> int:
        """The generation that the last restart of a group leads to.

        :raises KeyError: there is no such group.
        """
        return self._policy.restart_target(key)

    def detach(self, id: ProcessId) -> bool:
        """Take a process out of routing. It finishes its requests. False: it serves no more."""
        commands = self._policy.detach(id, self.now())
        self._perform(commands)
        self.notify_changed()
        return bool(commands)

    def disable(self, id: ProcessId) -> bool:
        """Take a process out of routing until ``enable``. False: nobody else would serve, or it serves no more."""
        if not self._policy.may_disable(id):
            return False
        self._perform(self._policy.disable(id, self.now()))
        self.notify_changed()
        return True

    def enable(self, id: ProcessId) -> None:
        """Put a process back into routing. Nothing happens if it is in there, or serves no more."""
        self._perform(self._policy.enable(id, self.now()))
        self.notify_changed()

    async def wait_gone(self, id: ProcessId) -> None:
        """Return when the process has ended."""
        while id in self.processes:
            await self.changed.wait()
        await trio.lowlevel.checkpoint()

    def always_restart(self, key: GroupKey, always: bool) -> None:
        """Switch on or off that each request finds fresh processes.

        :raises KeyError: there is no such group.
        """
        self.group_tasks[key]
        self._perform(self._policy.always_restart(key, always, self.now()))
        self.notify_changed()

    def rejection(self, key: GroupKey) -> Rejection | None:
        """The last restart of a group, if it was given up."""
        group = self._policy.state.groups.get(key)
        return group.rejection if group is not None else None

    async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> Evidence | None:
        """See ``PoolSeam``."""
        end = await self._ends.wait(key, pid) if pid and ends else None
        await trio.lowlevel.checkpoint()
        if not self.has(key):
            return None
        group = self._policy.group_statistics(key)
        return self._ends.evidence(group, self._policy.state.limits, pid, end, self.now())

    def generation(self, key: GroupKey) -> int:
        """The generation of a group that serves."""
        return self._policy.state.groups[key].generation

    def is_troubled(self, key: GroupKey) -> bool:
        """Whether a group does not start, or crashes. A change of its code then causes a restart."""
        return self._policy.is_troubled(key, self.now())

    def code_changed(self, key: GroupKey) -> None:
        """Report that the code of a group differs from the code that it has loaded."""
        self._perform(self._policy.code_changed(key, self.now()))
        self.notify_changed()

    async def wait_restarted(self, key: GroupKey, generation: int) -> Rejection | None:
        """Return when every process that serves is of that generation or a newer one; or return the
        rejection when the restart was given up.
        """
        while True:
            changed = self.changed
            if key not in self.group_tasks or self._policy.state.groups[key].leaving:
                await trio.lowlevel.checkpoint()
                return Rejection(generation, self.now(), None, kept=False)  # it was removed
            group = self._policy.group_statistics(key)
            rejection = group.rejection
            if rejection is not None and rejection.generation >= generation:
                await trio.lowlevel.checkpoint()
                return rejection
            if group.generation >= generation and not group.restarting:
                await trio.lowlevel.checkpoint()
                return None
            await changed.wait()

    def _tick(self, now: float) -> None:
        self._perform(self._policy.tick(now))
        self.notify_changed()

    # -- called by perform(); the other commands: ``effects`` ---------------------------------------------------------------------------

    def grant(self, grant: Grant, now: float) -> None:
        """Answer a waiter with its session."""
        assert grant.waiter is not None
        self._waiters.pop(grant.waiter).answer(Session(self, grant.session, self.processes[grant.process]), now)

    def _perform(self, commands: Iterable[Command]) -> None:
        try:
            perform(self, commands)
            self._clock.recheck()
        except Exception as error:
            self.failed(error)
            raise
