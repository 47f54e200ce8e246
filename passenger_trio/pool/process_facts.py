"""The facts of processes: what spawns, exits and measurements tell the policy, and what the log and the counters say of them."""

from __future__ import annotations

import itertools
import random
import secrets

import trio

from passenger_trio.core.model import (
    AttemptId,
    ErrorCategory,
    GroupKey,
    PreloaderId,
    ProcessId,
    SpawnFailure,
)
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.processes_by_memory import Calculation, calculate
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import SpawnError
from passenger_trio.events import (
    ProcessAttached,
    SpawnFailed,
)
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.checkouts import Checkouts
from passenger_trio.pool.group_task import GroupTask
from passenger_trio.pool.session import Process
from passenger_trio.spawning.spawner import LiveProcess
from passenger_trio.system.process_gauges import resident

__all__ = ["ProcessFacts"]


def _occupied(pid: int) -> int:
    """The bytes that a process occupies, shared ones included; 0: unknown. Quick."""
    try:
        return resident(pid)
    except OSError:
        return 0


class ProcessFacts(Checkouts):
    """The part of the pool to which group tasks (``GroupFacts``) and the gauges report."""

    def __init__(self, limits: PoolLimits, kernel: ErrorKernel) -> None:
        super().__init__(limits, kernel)
        self._process_ids = itertools.count(1)
        self.memory_source: str = ""
        """What limits the memory (``room_measured``); empty: not measured yet."""
        self.stranger_came: trio.Event = trio.Event()
        """Set when a process is ready whose application was never measured, while the memory decides the number of processes."""

    def spawn_succeeded(self, task: GroupTask, attempt: AttemptId, live: LiveProcess) -> None:
        """See ``GroupFacts``."""
        now = self.current_time()
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
        size = 0
        if self.fits_memory and not self._policy.state.groups[task.key].is_measured:
            self.stranger_came.set()
            size = _occupied(live.pid)
        self._perform(self._policy.spawn_succeeded(attempt, process.id, live.concurrency, now, random.random(), size))
        self.notify_changed()

    def spawn_failed(self, task: GroupTask, attempt: AttemptId, error: SpawnError | None) -> None:
        """See ``GroupFacts``."""
        if error is not None:
            self._log_failure(task.key, error.failure)
        summary = error.failure.summary if error else None
        error_id = error.failure.error_id if error else None
        self.events.publish(SpawnFailed(group=str(task.key), summary=summary, id=error_id))
        now = self.current_time()
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
        commands = self._policy.process_exited(process.id, self.current_time(), random.random(), evidence)
        if unasked and (group := self._policy.state.groups.get(process.group)) and group.backoff.failure is evidence:
            self.failures.append((self.current_time(), process.group, evidence))
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
        self._perform(self._policy.oob_work_ended(process.id, not trouble, self.current_time()))
        self.notify_changed()

    def preloader_changed(self, key: GroupKey, generation: int, preloader: int, started: bool) -> None:
        """Report that the preloader with that number, of that generation, has started or ended."""
        told = self._policy.preloader_started if started else self._policy.preloader_ended
        self._perform(told(key, generation, PreloaderId(preloader), self.current_time()))

    def found_unsafe(self, key: GroupKey, generation: int) -> None:
        """Report that the application of a generation is not safe to fork. Its processes are then
        started directly.
        """
        self._perform(self._policy.found_unsafe(key, generation, self.current_time()))

    def sampled(self, id: ProcessId, size: int) -> None:
        """Report the memory size of a process, in bytes."""
        self._perform(self._policy.sampled(id, size, self.current_time()))

    def room_measured(self, total: int, own: int, preloader: int, source: str) -> None:
        """Report how much memory there is, and what the server itself uses of it, in bytes. Call ``sampled`` for each process first.

        :param preloader: what a preloader uses on average. Preloaders are not counted in ``own``.
        :param source: what sets the limit: ``RAM``, or a file of a cgroup.
        """
        self.memory_source = source
        self._perform(self._policy.room_measured(total, own, preloader, self.current_time()))
        self.notify_changed()

    @property
    def fits_memory(self) -> bool:
        """Whether the memory decides how many processes there are."""
        return self._policy.state.limits.memory_share > 0

    def memory_calculation(self) -> Calculation | None:
        """How the number of processes was found; None: it is fixed."""
        return calculate(self._policy.state) if self.fits_memory else None

    def limits_memory(self, key: GroupKey) -> bool:
        """Whether the processes of a group must be measured: it has a memory limit, or the memory decides about the pool."""
        return self.fits_memory or self.has_memory_limit(key)

    def has_memory_limit(self, key: GroupKey) -> bool:
        """Whether the processes of a group have a memory limit, which the measurements enforce."""
        limits = self._policy.state.groups[key].limits
        return limits.memory_limit > 0 or limits.hard_memory_limit > 0
