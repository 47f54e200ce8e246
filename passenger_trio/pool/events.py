"""Who listens to what happens in the pool, without the pool ever waiting for them.

Laws: what is published reaches every listener that is there, in order; a listener holds no more than its room, whatever it does: one that does not keep up loses the oldest,
and the next that it hears says how many; one that nobody holds any more is forgotten. When the pool has ended a listener hears what it has not heard, and then the end.

``passenger-trio events`` listens over the admin socket, hooks (``pool.hooks``) in the supervisor, programs by ``RunningServer.events``.
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
"""Their names."""

_ROOM = 1000
"""Events."""


class Listener:
    """What somebody has not heard yet: ``async for event in listener``, for one task. It is closed by ``close``, or at the end of a ``with`` block, or when nobody holds it."""

    def __init__(self, room: int, ended: bool) -> None:
        self._room = room
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._ended = ended
        self._stirred = trio.Event()

    def hear(self, event: Event) -> None:
        """Called by ``Events``."""
        if len(self._waiting) == self._room:
            self._lost += 1 + self._waiting.popleft().lost_before
        self._waiting.append(event)
        self._stirred.set()

    def close(self) -> None:
        """Nothing more is heard. Idempotent."""
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
        """The next event, when there is one. Always a checkpoint.

        :raises StopAsyncIteration: it is closed, or the pool has ended.
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
    """Made by the pool."""

    def __init__(self) -> None:
        self._listeners: WeakSet[Listener] = WeakSet()
        self._ended = False

    def publish(self, event: Event) -> None:
        """Tell everybody, at once."""
        for listener in list(self._listeners):
            if listener._ended:
                self._listeners.discard(listener)
            else:
                listener.hear(event)

    def listen(self, room: int = _ROOM) -> Listener:
        """From now on it hears what happens.

        :param room: events that it holds at most.
        """
        listener = Listener(room, self._ended)
        self._listeners.add(listener)
        return listener

    def end(self) -> None:
        """Nothing more will happen."""
        self._ended = True
        for listener in list(self._listeners):
            listener.close()
