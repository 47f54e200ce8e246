"""A server that accepts connections, as those see it who steer it: a program, the admin API, the signals.

It knows the pool and the front. It never knows how they are composed (``tree``), nor who steers.
"""

from __future__ import annotations

import attrs
import trio

from passenger_trio.options import Config
from passenger_trio.pool.events import Listener as EventListener
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.spawning.detect import DetectedApp

__all__ = ["RunningServer"]


@attrs.define(eq=False)
class RunningServer:
    """A server that accepts connections."""

    config: Config
    addresses: list[str]
    """URLs, with the real port when any free one was asked for."""
    admin_socket: str
    apps: list[DetectedApp]
    pool: Pool
    front: Front
    _stop: trio.Event = attrs.field(factory=trio.Event)

    def stop(self) -> None:
        """Drain: no new connection, finish what is under way, then end. Returns at once; ``serve`` or the context ends when it is done."""
        self._stop.set()
        self.pool.notify_changed()  # who waits for the start does so no longer

    def restart(self) -> None:
        """Restart every application, rolling. Returns at once."""
        self.pool.restart_all(tuple(self.pool.group_tasks))

    def reopen_logs(self) -> None:
        """After a rotation. Returns at once."""
        if self.front.access_log is not None:
            self.front.access_log.reopen()

    def events(self) -> EventListener:
        """What happens from now on: ``async for event in server.events()`` gives values of ``passenger_trio.events``, in order, until the server has ended.

        Whoever does not keep up loses the oldest: no more than 1000 events wait, and ``lost_before`` says how many are missing. It is for one task;
        ``close`` it, or use it in a ``with`` block, or let it go.
        """
        return self.pool.events.listen()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def wait_stopping(self) -> None:
        """Return when ``stop`` was called."""
        await self._stop.wait()
