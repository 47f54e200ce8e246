"""A Session: one process, borrowed for one request, and the stream to it.

A process keeps the streams that are at a boundary (``Process.idle_streams``). A session
takes one of these first; its stream is then *reused*. If a worker ended between two requests, only the
failure of such a stream shows that (R30).

Laws:

* A session is closed exactly once, whatever happens.
* A stream goes back to its process only after a complete response that asked to keep it.
* It does not go back to a process that is leaving, nor while more streams are open than the process
  serves at a time: a worker whose threads wait on idle streams accepts no other.
* If the concurrency of a process is unknown, a stream stays only if it is the only one. Such a
  process may handle one stream after another, and would wait on an idle stream while other streams
  wait for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import attrs
import trio

from passenger_trio.codecs.worker_protocol import WorkerProtocol
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.errors import ProcessUnreachable
from passenger_trio.late_classes import define
from passenger_trio.spawning.spawner import ServingProcess
from passenger_trio.system.raw_stream import RawStream

__all__ = ["EXIT_NOTICED_AFTER", "Process", "Session", "SessionOwner"]

_DONE = SessionOutcome.DONE
EXIT_NOTICED_AFTER = 0.2
"""Seconds in which the pool notices the exit of a process that has hung up (``Session.wait_left``). Most take a few milliseconds."""
_MOST_IDLE = 32
"""The most idle streams kept to one process that serves many sessions at a time."""


_Live_co = TypeVar("_Live_co", bound=ServingProcess, covariant=True)


@define(eq=False)
class Process(Generic[_Live_co]):
    """A process, as its sessions share it. A pool has ``Process[LiveProcess]``."""

    id: ProcessId
    group: GroupKey
    live: _Live_co
    attached: float
    """Monotonic seconds."""
    route: bytes = attrs.field(factory=lambda: secrets.token_hex(8).encode())
    """The name of the process in the cookies of sticky sessions. The pool makes it, and every front uses the same one."""
    idle_streams: list[RawStream] = attrs.field(factory=list)
    left: trio.Event = attrs.field(factory=trio.Event)
    """Set when the process is leaving."""
    leaving: bool = False
    """The process was retired, or is gone: it keeps no more streams."""
    streams: int = 0
    """Open streams, in use or idle. A stream that the application has taken over does not count: it
    occupies no place of the worker's.
    """
    overdue: set[SessionId] = attrs.field(factory=set)
    """Sessions that lasted too long, for which the process was killed."""
    drained: bool = False
    """The drain time of the process's sessions has expired, and the process is ended for that."""
    killed: bool = False
    """The process got SIGKILL, so the end of a stream does not show that the process ended it on purpose."""
    detach_announced: bool = False
    """Whether the event of its detaching was published."""
    on_detach: set[Callable[[], None]] = attrs.field(factory=set)
    """Callbacks of long-lived sessions, called when the process is detached."""

    def keep(self, stream: RawStream) -> None:
        """Keep a used stream for the next session, or close it if it would block other streams.

        If too many streams are idle, the one unused for the longest time is closed: the process may
        have ended it already.
        """
        others_in_use = self.streams - 1 - len(self.idle_streams)
        if self.has_too_many_streams or (others_in_use and not self.live.concurrency):
            stream.close()
            self.streams -= 1
            return
        self.idle_streams.append(stream)
        if stream.registration is not None:
            stream.registration.on_ready = partial(self._stirred, stream)
        if len(self.idle_streams) > _MOST_IDLE:
            self.idle_streams.pop(0).close()
            self.streams -= 1

    def _stirred(self, stream: RawStream, events: int) -> None:
        """Close an idle stream: it has ended, or the worker sent bytes without a request (R41)."""
        self.idle_streams.remove(stream)
        stream.close()
        self.streams -= 1

    def leave(self) -> None:
        """Close the idle streams, and keep no other: a worker that is ending waits for their end."""
        self.leaving = True
        self.left.set()
        self.close_idle_streams()

    def close_idle_streams(self) -> None:
        """Close the streams that no session uses."""
        while self.idle_streams:
            self.idle_streams.pop().close()
            self.streams -= 1

    @property
    def has_too_many_streams(self) -> bool:
        """Whether more streams are open than the worker serves at a time, so that one may have to
        wait for another's end.
        """
        return 0 < self.live.concurrency < self.streams


class SessionOwner(Protocol):
    """The parts of the pool that a session needs. Each call is a fact for the policy, and is made once."""

    @property
    def current_time(self) -> Callable[[], float]:
        """The time, in monotonic seconds."""

    def is_alone(self, process: Process[Any]) -> bool: ...

    def session_long_lived(self, session: Session) -> None: ...

    def session_uncounted(self, session: Session) -> None: ...

    def oob_work_wanted(self, session: Session) -> None: ...

    def session_closed(self, session: Session, outcome: SessionOutcome, now: float) -> None: ...


class Session:
    """Made by the pool when the policy grants it."""

    __slots__ = (
        "_closed",
        "_on_detach",
        "_pool",
        "_taken_over",
        "id",
        "pid",
        "process",
        "reused",
        "stream",
        "worker_protocol",
    )

    def __init__(self, pool: SessionOwner, id: SessionId, process: Process[ServingProcess]) -> None:
        self._pool = pool
        self._closed = False
        self._on_detach: Callable[[], None] | None = None
        self._taken_over = False
        self.id: SessionId = id
        self.process: Process[ServingProcess] = process
        self.pid: int = process.live.pid
        self.worker_protocol: WorkerProtocol = process.live.worker_protocol
        """The protocol of the process, as it declared when it became ready: ``SESSION`` (our loaders), or HTTP/1.1."""
        self.stream: RawStream | None = None
        """The stream to the process, once ``connect_nowait`` has taken one. An idle one is still registered with the poller."""
        self.reused: bool = False
        """Whether the stream had a request before."""

    def connect_nowait(self, *, new: bool = False) -> RawStream:
        """Return a stream to the process: the idle one that was used last, or a new one. With ``new`` always
        a new one.

        :raises ProcessUnreachable: the process does not accept a connection.
        """
        assert self.stream is None
        idle = self.process.idle_streams
        if idle:
            self.stream = idle.pop()
            self.reused = True
            if not new:
                return self.stream
            # Close it to free its place for the new one: a worker has no spare thread for both.
            self.drop_stream()
        self.reused = False
        try:
            self.stream = self.process.live.connect_nowait()
        except OSError as exc:
            raise ProcessUnreachable(f"process {self.pid} does not accept a connection: {exc.strerror}") from exc
        self.process.streams += 1
        return self.stream

    @property
    def now(self) -> float:
        """The time, in monotonic seconds."""
        return self._pool.current_time()

    @property
    def is_alone(self) -> bool:
        """Whether no other process of the application serves."""
        return self._pool.is_alone(self.process)

    @property
    def is_overdue(self) -> bool:
        """Whether the session lasted too long, and the process was ended for that."""
        return self.process.drained or self.id in self.process.overdue

    async def wait_left(self, seconds: float) -> None:
        """Return when the process is leaving, or after that many seconds. For callers that saw the
        process's end before the pool noticed it.
        """
        with trio.move_on_after(seconds):
            await self.process.left.wait()

    def set_long_lived(self, tell: Callable[[], None], *, taken_over: bool = True) -> None:
        """Mark the session as long-lived: exempt from ``max_request_time``.

        ``tell`` is called when the process is detached, and the process then waits for the session.
        If the process is already detached, ``tell`` is called at once.
        """
        self._taken_over = taken_over
        self.process.streams -= taken_over
        self._pool.session_long_lived(self)
        self.call_on_detach(tell)

    def call_on_detach(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` when the process is detached; at once, if it already is."""
        self._on_detach = tell
        self.process.on_detach.add(tell)
        if self.process.detach_announced:
            tell()

    def set_uncounted(self) -> None:
        """Stop counting the session in the concurrency of its process."""
        self._pool.session_uncounted(self)

    def want_oob_work(self) -> None:
        """The process has asked for out-of-band work, in this session, which may have ended (OP14)."""
        self._pool.oob_work_wanted(self)

    def drop_stream(self) -> None:
        """Close the stream; the session stays."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()
            self.process.streams -= 1

    def put_back_stream(self) -> None:
        """The stream is at a boundary: give it back to its process. The session stays."""
        stream, self.stream = self.stream, None
        if stream is not None and not self.process.leaving:
            stream.idle_since = self._pool.current_time()
            self.process.keep(stream)
        elif stream is not None:
            stream.close()
            self.process.streams -= 1

    def close(self, outcome: SessionOutcome, *, keep_stream: bool = False, now: float | None = None) -> None:
        """Give the process back. Idempotent.

        :param keep_stream: the response was complete, and the worker keeps the stream.
        :param now: the time, from a caller that has just read it.
        """
        if self._closed:
            return
        self._closed = True
        process = self.process
        if now is None:
            now = self._pool.current_time()
        stream, self.stream = self.stream, None
        if stream is not None:
            if keep_stream and outcome is _DONE and not process.leaving:
                stream.idle_since = now
                process.keep(stream)
            else:
                stream.close()
                process.streams -= not self._taken_over
        if self._on_detach is not None:
            process.on_detach.discard(self._on_detach)
        # Checkouts.session_closed; with several fronts the front's ledger.
        self._pool.session_closed(self, outcome, now)
