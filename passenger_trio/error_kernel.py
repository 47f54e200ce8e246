"""The error kernel: it keeps an unexpected exception from ending the server (KE1).

A nursery is one-for-all: an exception that no task expects would end all its tasks. Here such an
exception ends only the work that the task was for. The code that starts a task chooses one of three
ways:

* ``supervise``: for a task that lasts as long as the server (a listener, the poller). It is started
  again after a delay.
* ``contain``: for a task that serves one caller or connection. It ends, and only that one is
  affected.
* ``report``: for a step that handles its own failure (a callback). The exception is logged and
  counted.

The pool does not rely on the error kernel. When the policy fails, or performing a command fails,
none of the pool's decisions can be trusted. The pool stores such an exception, and its own task
raises it (``Pool.run``), whichever task made the call.

Laws:

* An exception, or a group of them, ends here. Anything but an ``Exception`` passes, also out of the
  middle of a group: ``trio.Cancelled``, ``KeyboardInterrupt``, ``SystemExit``.
* A fault is logged with its traceback the first time it comes from a place. Later faults from that
  place are logged without it, at the 2nd, 4th, 8th ... time. Every fault is counted.
* ``core/task_and_front_restarts.py`` decides how long a failed task waits, and when it has failed too often. Then
  the owner of the task is told (``escalate``). If there is no owner, the operator is told, by a
  critical log line and by ``status``, which names the task while it keeps failing; and the task is
  started again for ever.
* ``on_logged`` also receives every logged fault. The pool records it, so a dump of the flight
  recorder shows the fault among the pool's facts.
* Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import trio

from passenger_trio.core.task_and_front_restarts import LONGEST, TaskRestarts
from passenger_trio.late_classes import define
from passenger_trio.log_lines import tasks as lines

__all__ = ["ErrorKernel", "Fault"]

_PLACES = 512
"""The number of places that are remembered, so that each logs one traceback."""

_Place = tuple[str, type[BaseException], str, int]


@define
class Fault:
    """The faults of the tasks with one name."""

    count: int = 0
    last: str = ""
    """The last fault: its type and its text."""
    at: float = 0.0
    """The time of the last fault, in monotonic seconds."""
    restarts: TaskRestarts | None = None
    """For a supervised task."""

    def is_failing(self, now: float) -> bool:
        """Whether a supervised task keeps failing."""
        return self.restarts is not None and self.restarts.is_failing(now)


class ErrorKernel:
    """One for each server. It counts the faults of all its tasks."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}
        """By the name of the task."""
        self.on_logged: Callable[[str, str, int], None] = lambda task, what, times: None
        """Called for each logged fault: the task, the fault, and how often it has come from its place."""
        self._places: dict[_Place, int] = {}

    @property
    def total(self) -> int:
        """The number of faults."""
        return sum(fault.count for fault in self.faults.values())

    def statistics(self, now: float) -> dict[str, Any]:
        """The faults as ``status`` shows them, as JSON values."""
        return {
            "total": self.total,
            "tasks": {
                task: {
                    "count": fault.count,
                    "last": fault.last,
                    "age": now - fault.at,
                    "failing": fault.is_failing(now),
                }
                for task, fault in self.faults.items()
            },
        }

    def report(self, task: str, error: BaseException, consequence: str = "") -> None:
        """Log and count a fault. Raises nothing.

        :param task: the name of the failed task, for people. All tasks of a kind share it:
            ``"hooks"``, ``"connection"``.
        :param consequence: the result, as the rest of a sentence: ``"it is started again"``.
        """
        text = _describe(error)
        fault = self.faults.setdefault(task, Fault())
        fault.count += 1
        fault.last = text
        fault.at = trio.current_time()
        place = _place(task, error)
        times = self._places[place] = self._places.pop(place, 0) + 1
        if len(self._places) > _PLACES:
            del self._places[next(iter(self._places))]
        if times & (times - 1) == 0:
            self._tell(task, text, times)
        if times == 1:
            lines.task_failed(task=task, consequence=consequence, reason=text, times=times, exc_info=error)
        elif times & (times - 1) == 0:
            lines.task_failed_again(task=task, consequence=consequence, reason=text, times=times)

    def _tell(self, task: str, text: str, times: int) -> None:
        try:
            self.on_logged(task, text, times)
        except Exception as error:  # noqa: BLE001  this is the error kernel: a callback cannot make it fail
            lines.fault_unrecorded(task=task, reason=_describe(error), exc_info=error)

    def contain(self, task: str, consequence: str = "") -> Containment:
        """Return a context manager. An unexpected exception in the block ends there, and ends the block."""
        return Containment(self, task, consequence)

    async def supervise(
        self,
        task: str,
        run: Callable[..., Awaitable[None]],
        *arguments: Any,
        escalate: Callable[[], None] | None = None,
    ) -> None:
        """Run ``run(*arguments)`` again whenever it fails, until it returns or is cancelled.

        :param escalate: called when it has failed too often, instead of another start. Its owner
            then does without it.
        """
        await self._supervise(task, lambda _: run(*arguments), escalate, trio.TASK_STATUS_IGNORED, must_start=False)

    async def supervise_started(
        self,
        task: str,
        run: Callable[..., Awaitable[None]],
        *,
        must_start: bool = False,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """The same for a ``run(task_status=...)``, and for ``nursery.start``.

        :param must_start: raise what ``run`` raises before its first start, because the server
            needs the task. Otherwise such a failure counts as started, and the task is started
            again like after any other failure.
        """
        await self._supervise(task, lambda status: run(task_status=status), None, task_status, must_start=must_start)

    async def _supervise(
        self,
        task: str,
        run: Callable[[_Started], Awaitable[None]],
        escalate: Callable[[], None] | None,
        task_status: trio.TaskStatus[None],
        *,
        must_start: bool,
    ) -> None:
        restarts = TaskRestarts()
        status = _Started(task_status)
        while True:
            containment = Containment(self, task, "it is started again", lambda: status.told or not must_start)
            with containment:
                await run(status)
            if containment.error is None:
                return
            status.started()
            verdict = restarts.failed(trio.current_time())
            self.faults[task].restarts = restarts
            if verdict.escalates:
                if escalate is not None:
                    lines.task_given_up(task=task, reason=self.faults[task].last)
                    with self.contain(task):
                        escalate()
                    return
                lines.task_missing(task=task, seconds=LONGEST, reason=self.faults[task].last)
            await trio.sleep(verdict.wait)


class _Started:
    """A ``TaskStatus`` whose ``started`` may be called more than once."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status = status
        self.told = False

    def started(self, value: None = None) -> None:
        if not self.told:
            self.told = True
            self._status.started()


class Containment:
    """See ``ErrorKernel.contain``. ``error`` is the exception that ended here."""

    __slots__ = ("_consequence", "_holds", "_kernel", "_task", "error")

    def __init__(
        self, kernel: ErrorKernel, task: str, consequence: str, holds: Callable[[], bool] | None = None
    ) -> None:
        """:param holds: whether exceptions end here; called when there is one."""
        self._kernel = kernel
        self._task = task
        self._consequence = consequence
        self._holds = holds
        self.error: Exception | None = None

    def __enter__(self) -> Containment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None or (self._holds is not None and not self._holds()):
            return False
        rest: BaseException | None = None
        if isinstance(error, Exception):  # also a group with nothing but Exceptions in it
            self.error = error
        elif isinstance(error, BaseExceptionGroup):
            self.error, rest = error.split(Exception)
        if self.error is None:
            return False
        self._kernel.report(self._task, self.error, self._consequence)
        if rest is not None:
            raise rest
        return True


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  this is the error kernel: str() of an exception may fail
        text = "(it cannot say what)"
    if isinstance(error, BaseExceptionGroup):
        text = "; ".join(_describe(one) for one in error.exceptions)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(task: str, error: BaseException) -> _Place:
    """Where the exception was raised: the innermost frame, of the first exception of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    file, line = "", 0
    traceback = error.__traceback__
    while traceback is not None:
        file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return task, type(error), file, line
