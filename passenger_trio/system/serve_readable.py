"""A task that sleeps while the poller serves its stream: whatever arrives is handled by a step, and the task is woken only when the step says so.

To wake a task costs a pass of Trio's scheduler, before the bytes are even read. A step costs what it does.

Laws: a step neither waits nor lets anybody else have the stream, unless it gives it away for good. After ``serve_readable`` has returned or raised, no step
is called. A cancellation is delivered between two steps, so no bytes are lost. What a step raises is raised in the task.
"""

from __future__ import annotations

from collections.abc import Callable

import outcome
import trio

from passenger_trio.system.poller import READABLE, Poller, Registration
from passenger_trio.system.raw_stream import RawStream

__all__ = ["serve_readable"]


async def serve_readable(poller: Poller, stream: RawStream, step: Callable[[], bool]) -> None:
    """Call ``step`` whenever bytes, or the end, have arrived, until it returns True, or the poller cannot watch the stream any more. Always a checkpoint.

    :param stream: nobody else closes it meanwhile. The step may; it may also give it to another owner, with its registration.
    :param step: returns whether the task is needed. It is called while unread bytes are left, and may find none.
    """
    served = _Served(stream, step)
    try:
        served.registration = stream.registration = poller.register(
            stream.fd, READABLE, served.on_readable, served.on_lost
        )
    except OSError:
        await stream.wait_readable()
        step()
        return
    await trio.lowlevel.wait_task_rescheduled(served.on_cancelled)


class _Served:
    """One call of ``serve_readable``."""

    __slots__ = ("_step", "_stream", "_task", "registration")

    def __init__(self, stream: RawStream, step: Callable[[], bool]) -> None:
        self._stream = stream
        self._step = step
        self._task = trio.lowlevel.current_task()
        self.registration: Registration | None = None
        """None: the task has been woken, or cancelled."""

    def on_readable(self, _: int) -> None:
        try:
            if not self._step():
                return
            result: outcome.Outcome[None] = outcome.Value(None)
        except Exception as error:  # noqa: BLE001  the task raises it, and knows what it means
            result = outcome.Error(error)
        self._leave()
        trio.lowlevel.reschedule(self._task, result)

    def on_lost(self) -> None:
        """The poller watches the stream no more: it had to move to another set, which has no room."""
        if self.registration is not None:
            self._leave()
            trio.lowlevel.reschedule(self._task, outcome.Value(None))

    def on_cancelled(self, _: object) -> trio.lowlevel.Abort:
        self._leave()
        return trio.lowlevel.Abort.SUCCEEDED

    def _leave(self) -> None:
        """No event of the stream comes here any more. If the step has given it away, its registration is the new owner's."""
        registration, self.registration = self.registration, None
        assert registration is not None
        registration.failed = None
        if self._stream.registration is registration and registration.on_ready == self.on_readable:
            self._stream.unregister()
