"""The error kernel: what stands between an unexpected exception and the life of the server (KE1).

A nursery is one-for-all, so an exception that no task expects would end all of them. Here it costs what its task was for, and nothing else. There are three
ways, and whoever starts a task chooses one:

=================  ================================================================  ==========================================
``supervise``      a task that lasts as long as the server (a listener, the watch)   it is started again, after a while
``contain``        a task that is there for somebody (a caller, a connection)        it ends, and only whom it was for is hurt
``report``         a step that knows itself what to do next (a callback)             it is logged and counted
=================  ================================================================  ==========================================

The one thing that is not in its hands is the pool: when the policy fails, or the performing of a command, nothing that the pool decides can be believed any more.
The pool keeps such an exception, and its own task raises it (``Pool.run``), whoever called.

Laws:

* An exception, or a group of them, ends here. What is no ``Exception`` goes on, also out of the middle of a group: ``trio.Cancelled``, ``KeyboardInterrupt``, ``SystemExit``.
* A fault is logged with its traceback the first time that it comes from its place, then without it when it has come twice as often; it is always counted.
* How long a failed task waits, and when its failing is past an accident, is decided in ``core/restarts.py``. What is past it is told to who has the task
  (``escalate``), else to the operator: an error in the log, and ``status`` names the task for as long as it lasts. It is tried again for ever.
* What is logged is told to ``on_logged`` as well: the pool has it recorded, so that a dump of the flight recorder shows the fault among what the pool was told.
* Nothing here raises.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import attrs
import trio

from passenger_trio.core.restarts import LONGEST, Restarts

__all__ = ["ErrorKernel", "Fault"]

_PLACES = 512
"""Places of faults that are remembered, so that each is logged whole once."""

_log = logging.getLogger("passenger_trio.kernel")

_Place = tuple[str, type[BaseException], str, int]


@attrs.define
class Fault:
    """What went wrong in the tasks of one name."""

    count: int = 0
    last: str = ""
    """The last one: its type and its text."""
    at: float = 0.0
    """When that was, in monotonic seconds."""
    restarts: Restarts | None = None
    """Of a task that is supervised."""

    def is_failing(self, now: float) -> bool:
        """Whether it is a task that fails again and again."""
        return self.restarts is not None and self.restarts.is_failing(now)


class ErrorKernel:
    """One for each server; all its tasks' faults are counted here."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}
        """By the name of the task."""
        self.on_logged: Callable[[str, str, int], None] = lambda task, what, times: None
        """Told of each fault that is logged: the task, the fault, and how often it has come from its place."""
        self._places: dict[_Place, int] = {}

    @property
    def total(self) -> int:
        """All faults."""
        return sum(fault.count for fault in self.faults.values())

    def statistics(self, now: float) -> dict[str, Any]:
        """What ``status`` shows, as JSON has it."""
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

        :param task: what failed, for people, and the same for all tasks of a kind: ``"hooks"``, ``"connection"``.
        :param consequence: what follows, as the rest of a sentence: ``"it is started again"``.
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
        more = f" ({consequence})" if consequence else ""
        if times & (times - 1) == 0:
            self._tell(task, text, times)
        if times == 1:
            _log.error(
                "%s failed%s: %s; this is a fault of passenger_trio, please report it",
                task,
                more,
                text,
                exc_info=(type(error), error, error.__traceback__),
            )
        elif times & (times - 1) == 0:
            _log.error("%s failed%s, for the %dth time like this: %s", task, more, times, text)

    def _tell(self, task: str, text: str, times: int) -> None:
        try:
            self.on_logged(task, text, times)
        except Exception:  # noqa: BLE001  this is the error kernel: who listens does not make it fail
            _log.exception("a fault cannot be recorded")

    def contain(self, task: str, consequence: str = "") -> Containment:
        """A context: what the block raises by mistake ends here, and with it the block."""
        return Containment(self, task, consequence)

    async def supervise(
        self,
        task: str,
        run: Callable[..., Awaitable[None]],
        *arguments: Any,
        escalate: Callable[[], None] | None = None,
    ) -> None:
        """``run(*arguments)``, again and again for as long as it fails; until it returns, or is cancelled.

        :param escalate: called when it has failed too often, in place of another start: its owner does without.
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

        :param must_start: what it raises before it has started for the first time goes on: without it there is no server. Otherwise the starting is
            then done with, and it is tried again like any other failure.
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
        restarts = Restarts()
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
                    _log.error("%s fails again and again, and is given up: %s", task, self.faults[task].last)
                    with self.contain(task):
                        escalate()
                    return
                _log.critical(
                    "%s fails again and again, and the server does without it: it is tried again every %.0f seconds. The last time: %s",
                    task,
                    LONGEST,
                    self.faults[task].last,
                )
            await trio.sleep(verdict.wait)


class _Started:
    """A ``TaskStatus`` that may be told more than once."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status = status
        self.told = False

    def started(self, value: None = None) -> None:
        if not self.told:
            self.told = True
            self._status.started()


class Containment:
    """See ``ErrorKernel.contain``. ``error`` is what ended here."""

    __slots__ = ("_consequence", "_holds", "_kernel", "_task", "error")

    def __init__(
        self, kernel: ErrorKernel, task: str, consequence: str, holds: Callable[[], bool] | None = None
    ) -> None:
        """:param holds: whether anything ends here, asked when there is something."""
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
        if isinstance(error, Exception):  # also a group that has nothing else in it
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
    except Exception:  # noqa: BLE001  this is the error kernel: an exception that cannot be told is still one
        text = "(it cannot say what)"
    if isinstance(error, BaseExceptionGroup):
        text = "; ".join(_describe(one) for one in error.exceptions)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(task: str, error: BaseException) -> _Place:
    """Where it was raised: the innermost frame, of the first one of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    file, line = "", 0
    traceback = error.__traceback__
    while traceback is not None:
        file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return task, type(error), file, line
