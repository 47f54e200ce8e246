"""A Session: one process, borrowed for one request, and the stream to it.

A process keeps the streams that were closed in good order (``Process.idle_streams``); a session takes one of these first, which makes it
*reused*: a worker that went away between two requests is noticed only by such a stream's failure (R30).

Laws: a session is closed exactly once, whatever happens; a stream goes back to its process only after a whole response that asked to keep it, and not
to a process that is on its way out; streams in use and idle ones together are never more than the sessions that the process serves at a time (a
worker whose threads wait on idle streams accepts no other). Where nobody has said how many these are, a stream stays only if it is the only one: such a process
may do one thing after another, and would wait on an idle stream while others wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.errors import ProcessUnreachable
from passenger_trio.spawning.spawner import LiveProcess
from passenger_trio.system.sockets import RawStream

if TYPE_CHECKING:
    from passenger_trio.pool.pool import Pool

__all__ = ["Process", "Session"]

_MOST_IDLE = 32
"""Idle streams that are kept to a process that serves many sessions at a time."""


@attrs.define(eq=False)
class Process:
    """A process of the pool."""

    id: ProcessId
    group: GroupKey
    live: LiveProcess
    attached: float
    """Monotonic seconds."""
    idle_streams: list[RawStream] = attrs.field(factory=list)
    streams_in_use: int = 0
    left: trio.Event = attrs.field(factory=trio.Event)
    """Set when it is on its way out."""
    leaving: bool = False
    """It was retired, or is gone: no stream is kept any more."""
    overdue: set[SessionId] = attrs.field(factory=set)
    """Sessions that lasted too long: what the process was killed for."""

    told_detached: bool = False
    """Whether its leaving was made an event."""

    def keep(self, stream: RawStream) -> None:
        """An idle stream, for the next session; if there are many, the one that was used longest ago goes (the process may have ended it long since)."""
        if self.streams_in_use and not self.live.concurrency:
            stream.close()
            return
        self.idle_streams.append(stream)
        if len(self.idle_streams) > _MOST_IDLE:
            self.idle_streams.pop(0).close()

    def leave(self) -> None:
        """Close the idle streams, and keep no other: a worker that is to end waits for them."""
        self.leaving = True
        self.left.set()
        while self.idle_streams:
            self.idle_streams.pop().close()


class Session:
    """Made by the pool when the policy grants it."""

    __slots__ = ("_closed", "_pool", "dialect", "id", "pid", "process", "reused", "stream")

    def __init__(self, pool: Pool, id: SessionId, process: Process) -> None:
        self._pool = pool
        self._closed = False
        self.id = id
        self.process = process
        self.pid = process.live.pid
        self.dialect = process.live.dialect
        self.stream: RawStream | None = None
        self.reused = False

    def connect_nowait(self, *, fresh: bool = False) -> RawStream:
        """The stream to the process: the idle one that was used last, or a new one (always, if ``fresh``).

        :raises ProcessUnreachable: it does not accept one.
        """
        assert self.stream is None
        idle = self.process.idle_streams
        if idle:
            self.stream = idle.pop()
            self.process.streams_in_use += 1
            self.reused = True
            if not fresh:
                return self.stream
            # It gives up its place for the new one: a worker has no thread to spare for that.
            self.drop_stream()
        self.reused = False
        try:
            self.stream = self.process.live.connect_nowait()
        except OSError as exc:
            raise ProcessUnreachable(f"process {self.pid} does not accept a connection: {exc.strerror}") from exc
        self.process.streams_in_use += 1
        return self.stream

    @property
    def is_overdue(self) -> bool:
        """Whether it lasted too long, and the process was killed for that."""
        return self.id in self.process.overdue

    async def wait_left(self, seconds: float) -> None:
        """Return when the process is on its way out, or after so many seconds. For whoever met its end before that was noticed."""
        with trio.move_on_after(seconds):
            await self.process.left.wait()

    def drop_stream(self) -> None:
        """Close the stream; the session stays."""
        stream, self.stream = self.stream, None
        if stream is not None:
            self.process.streams_in_use -= 1
            stream.close()

    def close(self, outcome: SessionOutcome, *, keep_stream: bool = False) -> None:
        """Give the process back. ``keep_stream``: the response was whole and the worker keeps the stream. Idempotent."""
        if self._closed:
            return
        self._closed = True
        stream, self.stream = self.stream, None
        if stream is not None:
            self.process.streams_in_use -= 1
            if keep_stream and outcome is SessionOutcome.DONE and not self.process.leaving:
                self.process.keep(stream)
            else:
                stream.close()
        self._pool.session_closed(self, outcome)
