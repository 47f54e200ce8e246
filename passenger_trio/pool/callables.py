"""Functions of the embedding program that are called at the pool's events (LI7).

Law: one task of its own calls them, in order. So the pool never waits for a function, and an exception costs one call (KE1)."""

from __future__ import annotations

from typing import Protocol

import trio

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.events import Event
from passenger_trio.pool.events import Events

__all__ = ["Callables", "OnEvent"]


class OnEvent(Protocol):
    """A function that is called at the pool's events. ``RunningServer.events`` gives the same events to ``async for``."""

    def __call__(self, event: Event, /) -> None: ...


class Callables:
    """``run`` is its task."""

    def __init__(self, events: Events, on_event: OnEvent, kernel: ErrorKernel) -> None:
        self._events = events
        self._on_event = on_event
        self._kernel = kernel
        self.ended: trio.Event = trio.Event()
        """Set when the pool has ended, and the functions were called for its last event."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, or until the pool has ended. Reports itself as started when it listens."""
        with self._events.listen() as listener:
            task_status.started()
            async for event in listener:
                with self._kernel.contain("on_event"):
                    self._on_event(event)
        self.ended.set()
