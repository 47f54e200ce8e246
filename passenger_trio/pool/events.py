"""Passes the pool's events to listeners. The pool never waits for a listener.

Laws:

* Every listener gets the published events in order.
* A listener's queue is bounded. When it is full, the oldest event is dropped, and the next event
  that is read has the number of dropped ones.
* A listener without a reference is forgotten.
* When the pool has ended, a listener yields its queued events, and then ends.

``passenger-trio events`` listens over the admin socket, hooks (``pool.hooks``) listen in the
supervisor, and programs listen through ``RunningServer.events``.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from weakref import WeakSet

import attrs
import trio

from passenger_trio.events import KINDS, Event

__all__ = ["EVENTS", "Events", "Listener"]

EVENTS = tuple(KINDS)
"""The names of the events."""

_ROOM = 1000
"""Events."""
_RECENT = 200


class Listener:
    """A queue of events that were not read yet: ``async for event in listener``, in one task.

    ``close``, the end of a ``with`` block, or the loss of the last reference closes it.
    """

    def __init__(self, room: int, ended: bool) -> None:
        self._room = room
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._ended = ended
        self._stirred = trio.Event()

    def hear(self, event: Event) -> None:
        """Add an event to the queue. Called by ``Events``."""
        if len(self._waiting) == self._room:
            self._lost += 1 + self._waiting.popleft().lost_before
        self._waiting.append(event)
        self._stirred.set()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._ended = True
        self._stirred.set()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        self._waiting.clear()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        """Return the next event, and wait for it if there is none yet. Always a checkpoint.

        :raises StopAsyncIteration: the listener is closed, or the pool has ended.
        """
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._stirred = trio.Event()
            await self._stirred.wait()
        event = self._waiting.popleft()
        if self._lost:
            lost, self._lost = self._lost, 0
            event = attrs.evolve(event, lost_before=lost)
        return event


class Events:
    """The publisher. The pool makes one."""

    def __init__(self) -> None:
        self._listeners: WeakSet[Listener] = WeakSet()
        self.recent: deque[Event] = deque(maxlen=_RECENT)
        """The last events, for listeners that come later."""
        self._ended = False

    def publish(self, event: Event) -> None:
        """Pass an event to every listener, at once."""
        self.recent.append(event)
        for listener in list(self._listeners):
            if listener._ended:
                self._listeners.discard(listener)
            else:
                listener.hear(event)

    def listen(self, room: int = _ROOM) -> Listener:
        """Make a listener for the events from now on.

        :param room: the most events that it queues.
        """
        listener = Listener(room, self._ended)
        self._listeners.add(listener)
        return listener

    def end(self) -> None:
        """End all listeners: no event follows."""
        self._ended = True
        for listener in list(self._listeners):
            listener.close()
