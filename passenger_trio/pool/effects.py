"""The effects of the policy's commands: answer a waiter; detach, retire or kill a process; log, count and publish it.

``perform`` calls each of them in the step in which the policy decided. Law: nothing here decides, waits, or tells the
policy anything. Log lines, events and counters come in the step that makes them true."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import trio

from passenger_trio.core.commands import Kill, Reason, RunOobWork, StillDraining, reason_word
from passenger_trio.core.metric_counts import PoolTally
from passenger_trio.core.model import (
    GroupKey,
    ProcessId,
    SpawnFailure,
    WaiterId,
)
from passenger_trio.core.recorder import RecordedPolicy
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import CheckoutError
from passenger_trio.events import (
    DrainTimeExceeded,
    MemoryLimitExceeded,
    ProcessDetached,
    ProcessExited,
    RequestTimeExceeded,
)
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.events import Events
from passenger_trio.pool.group_task import GroupTask
from passenger_trio.pool.lending import PoolWatcher
from passenger_trio.pool.recent_ends import RecentEnds
from passenger_trio.pool.session import Process
from passenger_trio.pool.waiter import Waiter
from passenger_trio.spawning.exit_status import signal_name
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["Effects"]

_FAILURES = 20


class Effects:
    """The part of the pool that performs."""

    def __init__(self, kernel: ErrorKernel, policy: RecordedPolicy) -> None:
        self._kernel = kernel
        self._policy = policy
        """``core/policy``, behind the recorder of its facts."""
        self._waiters: dict[WaiterId, Waiter] = {}
        """Waiters without an answer."""
        self.current_time: Callable[[], float] = trio.current_time
        """Monotonic seconds."""
        self.watcher: PoolWatcher | None = None
        """The desk that leases processes to fronts, if there is one."""
        self._told: dict[GroupKey, tuple[str, str]] = {}
        """The evidence of each group's last failure that was logged in full."""
        self.group_tasks: dict[GroupKey, GroupTask] = {}
        self.processes: dict[ProcessId, Process[LiveProcess]] = {}
        """All live processes, by the ids that the policy knows."""
        self.changed: trio.Event = trio.Event()
        """Set, and replaced by a new event, when a process came or ended, a spawn failed, or the clock
        ticked. Tasks that wait for the pool to be ready wait for this event.
        """
        self.empty: trio.Event = trio.Event()
        """Set when the last process and attempt are gone, after ``shut_down``."""
        self.on_spawn: Callable[[], None] = lambda: None
        """Called when a spawn begins."""
        self._over = trio.Event()
        """Set when the pool is empty, or the policy has failed."""
        self.events: Events = Events()
        self.failures: deque[tuple[float, GroupKey, SpawnFailure]] = deque(maxlen=_FAILURES)
        """The last failed starts: (time in monotonic seconds, group, evidence)."""
        self._ends = RecentEnds(self.processes)
        self.tally: PoolTally = PoolTally()
        """What has happened, for the metrics."""

    def _read_time_by(self, current_time: Callable[[], float]) -> None:
        self.current_time = current_time

    def _log_failure(self, key: GroupKey, failure: SpawnFailure) -> None:
        """Log a new failure in full, and a repetition of the last one in one line."""
        self.failures.append((self.current_time(), key, failure))
        lines.spawn_failed(
            group=key,
            summary=failure.summary,
            error_id=failure.error_id,
            category=failure.category.value,
            status=failure.exit_status,
            solution=failure.solution,
        )
        evidence = (failure.problem, failure.traceback)
        if self._told.get(key) != evidence:
            self._told[key] = evidence
            for line in "\n".join((*evidence, f"What to try: {failure.solution}")).splitlines():
                lines.spawn_evidence(group=key, error_id=failure.error_id, text=line)

    def process_ended(self, process: Process[LiveProcess], status: int | None, reason: str) -> None:
        """See ``GroupFacts``."""
        by_signal = status is not None and status < 0
        self._ends.record(process, status, reason)
        by_itself = "unknown" if status is None else "signal" if by_signal else "exited"
        self.tally.ended[process.group, reason_word(reason) if reason else by_itself] += 1
        self.events.publish(
            ProcessExited(
                group=str(process.group),
                pid=process.live.pid,
                exit_status=None if by_signal else status,
                signal=signal_name(-status) if status is not None and by_signal else None,
                reason=reason,
            )
        )

    def refuse(self, id: WaiterId, error: CheckoutError) -> None:
        """Answer a waiter with an error."""
        self._waiters.pop(id).answer(error, self.current_time())

    def detached(self, id: ProcessId, why: str) -> None:
        """A busy process gets no more sessions."""
        process = self.processes[id]
        lines.process_detached(group=process.group, pid=process.live.pid, reason=why)
        self._detached(process, why)

    def kill(self, kill: Kill) -> None:
        """End a process at once."""
        process = self.processes[kill.process]
        lines.process_killed(group=process.group, pid=process.live.pid, reason=kill.reason.value)
        exceeded = MemoryLimitExceeded if kill.session is None else RequestTimeExceeded
        self.events.publish(exceeded(group=str(process.group), pid=process.live.pid))
        if kill.session is not None:
            process.overdue.add(kill.session)
        self._detached(process, kill.reason.value)
        process.leave()
        self.group_tasks[process.group].keepers[kill.process].kill(kill.reason.value)
        self._goes(process.id)

    def run_oob_work(self, command: RunOobWork) -> None:
        """A process that gets no requests does its out-of-band work."""
        process = self.processes[command.process]
        lines.oob_work_begins(group=process.group, pid=process.live.pid)
        self.group_tasks[process.group].run_oob_work(process, command.seconds)

    def tell_draining(self, draining: StillDraining) -> None:
        """Log that a replaced or detached process still has requests."""
        process = self.processes[draining.process]
        unlimited = draining.seconds == math.inf
        lines.process_draining(
            group=process.group,
            pid=process.live.pid,
            sessions=draining.sessions,
            requests=_requests(draining.sessions),
            seconds=None if unlimited else round(draining.seconds, 3),
            what="waiting for them" if unlimited else f"ending it in {draining.seconds:.0f} s",
        )

    def retire(self, id: ProcessId, reason: Reason) -> None:
        """Let a process finish its requests and end."""
        process = self.processes[id]
        if reason is Reason.DRAIN_TIME:
            process.drained = True
            sessions = self._policy.state.processes[id].sessions
            lines.drain_time_exceeded(
                group=process.group,
                pid=process.live.pid,
                sessions=sessions,
                requests=_requests(sessions),
                reason=reason.value,
            )
            self.events.publish(DrainTimeExceeded(group=str(process.group), pid=process.live.pid))
        else:
            lines.process_retired(group=process.group, pid=process.live.pid, reason=reason.value)
        process.leave()
        self._detached(process, reason.value)
        self.group_tasks[process.group].keepers[id].retire(reason.value)
        self._goes(id)

    def _goes(self, id: ProcessId) -> None:
        if self.watcher is not None:
            self.watcher.process_goes(id)

    def _detached(self, process: Process[LiveProcess], why: str) -> None:
        if not process.detach_announced:
            process.detach_announced = True
            self.tally.detached[process.group, reason_word(why)] += 1
            self.events.publish(ProcessDetached(group=str(process.group), pid=process.live.pid, reason=why))
            for tell in tuple(process.on_detach):
                with self._kernel.contain("a step of a connection"):
                    tell()
            self._goes(process.id)

    def end_group(self, key: GroupKey) -> None:
        """A removed group is gone."""
        self.group_tasks.pop(key).close()
        self._told.pop(key, None)
        lines.group_removed(group=key)
        self.notify_changed()

    def pool_empty(self) -> None:
        """The last process and attempt are gone, after ``shut_down``."""
        self.empty.set()
        self._over.set()

    def notify_changed(self) -> None:
        """Wake the tasks that wait for a change."""
        changed, self.changed = self.changed, trio.Event()
        changed.set()


def _requests(count: int) -> str:
    return f"{count} request{'s' if count > 1 else ''}"
