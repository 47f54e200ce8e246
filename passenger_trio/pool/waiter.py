"""A waiter: one place in a group's queue for a process. A request enters it at once, may await it
several times, and leaves it exactly once.

A waiter survives a cancelled ``wait``, so a request that moves from the fast path to its task keeps
its place.

Laws: a waiter is answered once, with a session or an error. Leaving a waiter that holds a session
gives the session back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

import outcome
import trio

from passenger_trio.core.model import SessionOutcome, WaiterId
from passenger_trio.errors import CheckoutError
from passenger_trio.pool.session import Session

__all__ = ["Waiter", "WaiterQueue"]


class WaiterQueue(Protocol):
    """The parts of the pool that a waiter needs."""

    def left(self, waiter: Waiter) -> None:
        """The request gave up waiting. Called only while the waiter has no answer."""


@final
class Waiter:
    """Made by ``Pool.checkout_or_queue``. One task waits, or ``on_granted`` is set."""

    __slots__ = ("_pool", "_task", "error", "id", "on_granted", "session")

    def __init__(self, pool: WaiterQueue, id: WaiterId) -> None:
        self._pool = pool
        self._task: trio.lowlevel.Task | None = None
        self.id: WaiterId = id
        self.session: Session | None = None
        self.error: CheckoutError | None = None
        self.on_granted: Callable[[float], None] | None = None
        """Callback for a waiter that does not block. Runs in the step that answers, with the time
        (monotonic seconds). Must not call the pool.
        """

    @property
    def answered(self) -> bool:
        """Whether the waiter has its session or error."""
        return self.session is not None or self.error is not None

    async def wait(self) -> Session:
        """Return the session, once it is granted. When cancelled, the waiter stays in the queue:
        wait again, or ``leave``.

        :raises CheckoutError: no session is granted.
        """
        if self.session is None and self.error is None:
            self._task = trio.lowlevel.current_task()

            def forget(_: object) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(forget)
        else:
            await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return self.take()

    def take(self) -> Session:
        """Take the granted session out of the waiter."""
        session, self.session = self.session, None
        assert session is not None
        return session

    def leave(self) -> None:
        """Give up waiting. Idempotent, and harmless when the session was taken."""
        if self.session is not None:
            # Granted and given up in the same step: the session never started.
            session, self.session = self.session, None
            session.close(SessionOutcome.NOT_STARTED)
        else:
            self._pool.left(self)

    def answer(self, answer: Session | CheckoutError, now: float) -> None:
        """Called by the pool, once."""
        if isinstance(answer, Session):
            self.session = answer
        else:
            self.error = answer
        on_granted, self.on_granted = self.on_granted, None
        if on_granted is not None:
            on_granted(now)
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Value(None))
