"""A Place in the queue for a process: taken at once, waited in as often as need be, left exactly once.

It is apart from ``Pool.checkout`` because a wait may be cut off and gone on with (a client's patience) without losing its turn.

Laws: it is answered once, with a session or an error; whoever leaves it after it was answered with a session gives that session back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import outcome
import trio

from passenger_trio.core.model import SessionOutcome, WaiterId
from passenger_trio.errors import CheckoutError
from passenger_trio.pool.session import Session

__all__ = ["Place", "Queue"]


class Queue(Protocol):
    """What a place needs of its pool."""

    def left(self, place: Place) -> None:
        """Nobody waits in the place any more. Called when it has not been answered."""


class Place:
    """Made by ``Pool.queue_up``. One task waits in it."""

    __slots__ = ("_pool", "_task", "error", "id", "session", "tell")

    def __init__(self, pool: Queue, id: WaiterId) -> None:
        self._pool = pool
        self._task: trio.lowlevel.Task | None = None
        self.id = id
        self.session: Session | None = None
        self.error: CheckoutError | None = None
        self.tell: Callable[[float], None] | None = None
        """For who does not ``wait``: called with the time when it is answered, in the step that answers it. It may not call the pool."""

    @property
    def answered(self) -> bool:
        """Nothing is waited for."""
        return self.session is not None or self.error is not None

    async def wait(self) -> Session:
        """The session, once it is granted. When cancelled, the place is kept: wait again, or ``leave``.

        :raises CheckoutError: the wait has come to nothing.
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
        """The session that it was answered with."""
        session, self.session = self.session, None
        assert session is not None
        return session

    def leave(self) -> None:
        """Give up waiting. Idempotent, and harmless when the session was taken."""
        if self.session is not None:
            # Granted and given up in the same step: as if it had never been.
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
        tell, self.tell = self.tell, None
        if tell is not None:
            tell(now)
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Value(None))
