"""Events of the pool: what happened, told to whoever listens, without ever waiting for them.

An event is a name and a few plain values. A listener that does not keep up loses events, and is told how many; it never slows the pool.
``passenger-trio events`` listens over the admin socket, hooks (``pool.hooks``) listen in the supervisor.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import trio

__all__ = ["EVENTS", "Events", "Listener"]

EVENTS = (
    "process_attached",
    "process_detached",
    "process_exited",
    "spawn_failed",
    "queue_full",
    "request_time_exceeded",
    "memory_limit_exceeded",
    "drain_time_exceeded",
    "restart_ended",
    "restart_rejected",
)
"""Their names, which are stable."""

_ROOM = 1000

Event = dict[str, Any]


@attrs.define(eq=False)
class Listener:
    """What somebody has not heard yet."""

    _receive: trio.MemoryReceiveChannel[Event]
    lost: int = 0

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._receive:
            lost, self.lost = self.lost, 0
            yield {**event, "lost_before": lost} if lost else event


class Events:
    """Made by the pool."""

    def __init__(self) -> None:
        self._listeners: dict[Listener, trio.MemorySendChannel[Event]] = {}

    def publish(self, name: str, **fields: Any) -> None:
        """Tell everybody, at once and in order."""
        if not self._listeners:
            return
        event = {"event": name, "time": time.time(), **fields}
        for listener, send in self._listeners.items():
            try:
                send.send_nowait(event)
            except trio.WouldBlock:
                listener.lost += 1

    @contextmanager
    def listen(self, room: int = _ROOM) -> Iterator[Listener]:
        """Within the block the listener hears what happens."""
        send, receive = trio.open_memory_channel[Event](room)
        listener = Listener(receive)
        self._listeners[listener] = send
        try:
            yield listener
        finally:
            del self._listeners[listener]
            send.close()
            receive.close()
