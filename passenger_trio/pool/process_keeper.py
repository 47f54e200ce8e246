"""The process keeper: one task supervises one process of the pool, from ready to gone.

It reads the process's output and reports, waits for its exit, and ends it by the termination
sequence (``core.termination``: ask, SIGTERM, SIGKILL). An exit is always expected: the policy learns
of it at once, and the keeper ends normally. When the keeper is cancelled, it kills the process;
that part is shielded, with a deadline.

Law: whatever fails here, the process is ended and the policy is told once. A reader that fails is
started again. If it keeps failing, the process is ended, because it would block on a pipe that
nobody reads. If the termination sequence or the wait for the exit fails, the process gets SIGKILL
(KE1).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import trio

from passenger_trio.core.termination import TERM_TIME, Action, Event, Progress, step
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.session import Process
from passenger_trio.spawning.exit_status import describe_exit, exit_fields
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["Keeper"]

_KILL_TIME = 5.0
"""Seconds to wait for a killed process. Only the kernel can delay its end."""

_TASK = "a process keeper"
_LATE = "it did not end in time"


class Keeper:
    """:param on_exit: called once, at the moment when the exit is seen."""

    def __init__(
        self,
        process: Process[LiveProcess],
        shutdown_timeout: float,
        on_exit: Callable[[Process[LiveProcess]], None],
        on_end: Callable[[Process[LiveProcess], int | None, str], None] = lambda process, status, why: None,
        kernel: ErrorKernel | None = None,
    ) -> None:
        self.process = process
        self._kernel = kernel or ErrorKernel()
        self._shutdown_timeout = shutdown_timeout
        self._within: float | None = None
        """The shutdown timeout, if it is shorter than the application's own."""
        self._on_exit = on_exit
        self._on_end = on_end
        self._state = Progress.SERVING
        self._retire = trio.Event()
        self._why = ""

    def retire(self, why: str) -> None:
        """Let the process finish its requests, then end it."""
        self._why = why
        self._retire.set()

    def hasten(self, seconds: float) -> None:
        """Give the process at most so many seconds after it is asked to end. No effect if it was asked already."""
        if seconds < self._shutdown_timeout:
            self._shutdown_timeout = self._within = seconds

    def kill(self, why: str) -> None:
        """End the process now."""
        self._why = why
        self._happens(Event.KILL_NOW)

    async def keep(self) -> None:
        """Run until the process is gone."""
        live = self.process.live
        read_output = partial(self._kernel.supervise, "a reader of an application's output", escalate=self._unread)
        try:
            with self._kernel.contain(_TASK, "the process is ended"):
                async with trio.open_nursery() as watchers:
                    watchers.start_soon(read_output, live.read_output)
                    watchers.start_soon(self._walk_down)
                    await live.wait_exit()
                    self._gone()  # at once: from the next step on, the policy must not route to it
                    watchers.cancel_scope.cancel()
        finally:
            # Also on cancellation, and on cancellation in the step in which the process ends.
            await self._see_off()

    async def _see_off(self) -> None:
        """Do each step of the end, even if another one fails."""
        live = self.process.live
        if self._state is not Progress.GONE:
            if self._state in (
                Progress.ASKED,
                Progress.TERMED,
            ):  # the server's whole time is over before the process's own
                lines.process_killed(group=self.process.group, pid=live.pid, reason=_LATE)
            self._why = self._why or "the pool is cut off"
            with self._kernel.contain(_TASK):
                self.process.leave()
            with self._kernel.contain(_TASK), trio.move_on_after(_KILL_TIME, shield=True) as kill_time:
                self._happens(Event.KILL_NOW)
                await live.wait_exit()
            if kill_time.cancelled_caught:
                lines.process_stays(group=self.process.group, pid=live.pid)
            with self._kernel.contain(_TASK):
                self._gone()
        status = None
        with self._kernel.contain(_TASK), trio.CancelScope(shield=True):  # bounded: the process is gone
            status = await live.wait_exit_status()
        with self._kernel.contain(_TASK):
            how, group = describe_exit(status), self.process.group
            code, name = exit_fields(status)
            if self._why:
                lines.process_ended(group=group, pid=live.pid, how=how, reason=self._why, status=code, signal=name)
            else:
                lines.process_died(group=group, pid=live.pid, how=how, status=code, signal=name)
        with self._kernel.contain(_TASK):
            self._on_end(self.process, status, self._why)
        with self._kernel.contain(_TASK):
            # Sessions can still read the bytes that the kernel holds. No new stream can be opened.
            live.close()

    async def _walk_down(self) -> None:
        """Run the termination sequence: each step that has no effect in time leads to the next. The
        exit of the process cancels it.
        """
        with self._kernel.contain(_TASK, "the process is killed") as containment:
            await self._retire.wait()
            self._happens(Event.RETIRE)
            for wait in (self._shutdown_timeout, TERM_TIME):
                await trio.sleep(wait)
                self._happens(Event.GRACE_EXPIRED)
        if containment.error is not None:
            self._happens(Event.KILL_NOW)

    def _unread(self) -> None:
        self.kill("its output cannot be read")

    def _happens(self, event: Event) -> None:
        self._state, action = step(self._state, event)
        with self._kernel.contain(_TASK):  # if a signal cannot be sent, the sequence goes on
            self._act(action, event)

    def _act(self, action: Action, event: Event) -> None:
        live = self.process.live
        if action is Action.ASK:
            if not live.ask_to_stop(self._within):
                self._happens(Event.GRACE_EXPIRED)  # it cannot be asked: go to the next step at once
        elif action is Action.TERM:
            live.signal_group(signal.SIGTERM)
        elif action is Action.KILL:
            if event is Event.GRACE_EXPIRED:
                lines.process_killed(group=self.process.group, pid=live.pid, reason=_LATE)
            self.process.killed = True
            live.signal_group(signal.SIGKILL)

    def _gone(self) -> None:
        self._state, _ = step(self._state, Event.EXITED)
        self._on_exit(self.process)
