"""One direction of a relay: forwards the bytes of its source to its sink. The poller calls it, so it needs no task.

Reads of a WebSocket become smaller the more frames arrive in one (``core.read_size``), because frames are counted one
by one.

Laws:

* A direction keeps the bytes that its sink has not taken, and does not read meanwhile.
* A step does not wait. A fault in it ends the relay.
* A source that has ended is watched for a hang-up only. A source that hung up while reads are paused is not watched at
  all: the poller would call again and again."""

from __future__ import annotations

from collections.abc import Callable

import trio

from passenger_trio.codecs.websocket_frame_ends import FrameEnds
from passenger_trio.core.read_size import ReadSize
from passenger_trio.system.poller import HUNG_UP, READABLE, WRITABLE, Poller
from passenger_trio.system.raw_stream import RawStream

__all__ = ["Down", "RelayDirection", "Up"]

_LEAST_READ = 1024
_STATUS_LINE = 12
"""Bytes of ``HTTP/1.1 101``."""


class RelayDirection:
    """:param piece: the part of the shared receive buffer in which bytes are received within one step. :param over: called when the whole relay is over."""

    __slots__ = (
        "_over",
        "_piece",
        "_poller",
        "_sink",
        "_size",
        "_source",
        "_watched",
        "active",
        "ended",
        "moved",
        "opposite",
        "unsent",
    )

    opposite: RelayDirection
    """The other direction, whose sink is this one's source."""

    def __init__(
        self, source: RawStream, sink: RawStream, poller: Poller, piece: memoryview, over: Callable[[], None]
    ) -> None:
        self._source, self._sink = source, sink
        self._poller = poller
        self._piece = piece
        self._over = over
        self._size = ReadSize(len(piece), min(_LEAST_READ, len(piece)), len(piece))
        self._watched = -1
        """The events for which the source is watched; -1: it is not registered."""
        self.moved = 0
        """Bytes that the sink's kernel has taken."""
        self.active = poller.time
        """When the sink took the last of them, in monotonic seconds."""
        self.unsent = b""
        """Bytes that the sink has not taken."""
        self.ended = False
        """Whether the source has ended."""

    # -- what is watched ----------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Watch the source for the events that either direction can use next.

        :raises OSError: the kernel can watch no more sockets. Never raised if it watches this one already.
        """
        wanted = (0 if self.ended or self.unsent else READABLE) | (WRITABLE if self.opposite.unsent else 0)
        if self._watched < 0:
            self._poller.register(self._source.fd, wanted, self.on_ready, self._over)
        elif wanted != self._watched:
            self._poller.modify(self._source.fd, wanted)
        self._watched = wanted

    def unwatch(self) -> None:
        """Stop watching the source. Idempotent."""
        if self._watched >= 0:
            self._watched = -1
            self._poller.unregister(self._source.fd)

    def on_ready(self, events: int) -> None:
        if events == READABLE:
            self._read()
        else:
            self._on_other_events(events)

    def _on_other_events(self, events: int) -> None:
        if events & (WRITABLE | HUNG_UP) and self.opposite.unsent:
            self.opposite.flush()
        if self._watched < 0 or not events & (READABLE | HUNG_UP):
            return
        if self.ended:
            self._over()
        elif not self.unsent:
            self._read()
        elif events & HUNG_UP:
            self.unwatch()

    # -- bytes --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            count = self._source.recv_into_nowait(self._piece[: self._size.limit])
        except trio.WouldBlock:
            return
        except trio.BrokenResourceError:
            self.broken()
            return
        if count:
            self.give(self._piece[:count])
        else:
            self.end()

    def give(self, piece: bytes | memoryview) -> None:
        """Send a piece to the sink, and keep what it does not take."""
        try:
            sent = self._sink.send_nowait(piece)
        except trio.BrokenResourceError:
            self.refused()
            return
        self.moved += sent
        self.active = self._poller.time
        if sent < len(piece):
            self.unsent = bytes(piece[sent:])  # a copy: the shared receive buffer is used by others after this step
            self._go_on()

    def flush(self) -> None:
        """The sink can take bytes again: send the kept ones."""
        try:
            sent = self._sink.send_nowait(self.unsent)
        except trio.BrokenResourceError:
            self.unsent = b""
            self.refused()
            return
        self.moved += sent
        self.active = self._poller.time
        self.unsent = self.unsent[sent:]
        if not self.unsent:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self.opposite.watch()
            self.watch()
        except OSError:
            self._over()  # the source was not watched, and cannot be: treat it as broken

    # -- ends ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The source has ended: pass the end on."""
        self.ended = True
        self._sink.send_eof()
        self._go_on()

    def broken(self) -> None:
        """The source's connection is broken."""
        self._over()

    def refused(self) -> None:
        """The sink's connection is broken."""
        self._over()


class Up(RelayDirection):
    """To the application. If the application stopped reading but still writes, the client's bytes are dropped, so that the client's end is still seen."""

    __slots__ = ("_refused",)

    def __init__(
        self, source: RawStream, sink: RawStream, poller: Poller, piece: memoryview, over: Callable[[], None]
    ) -> None:
        super().__init__(source, sink, poller, piece, over)
        self._refused = False

    def give(self, piece: bytes | memoryview) -> None:
        if not self._refused:
            super().give(piece)

    def refused(self) -> None:
        self._refused = True
        self._go_on()


class Down(RelayDirection):
    """To the client.

    :param frames: finds the ends of a WebSocket's frames; None: the bytes are no WebSocket.
    :param found: called with the status of a response that the application writes by itself.
    :param in_doubt: called instead of ``end`` when the process has ended a WebSocket without a Close. ``end_now`` may follow.
    """

    __slots__ = ("_broken", "_doubted", "_found", "_front", "_in_doubt", "frames")

    def __init__(
        self,
        source: RawStream,
        sink: RawStream,
        poller: Poller,
        piece: memoryview,
        over: Callable[[], None],
        *,
        frames: FrameEnds | None,
        found: Callable[[int], None] | None,
        in_doubt: Callable[[], None],
    ) -> None:
        super().__init__(source, sink, poller, piece, over)
        self.frames = frames
        self._found = found
        self._front = b""
        """The first bytes of the response that the application writes."""
        self._in_doubt = in_doubt
        self._doubted = self._broken = False

    def watch(self) -> None:
        if not self._doubted:  # a process that is gone has hung up, and that would end all
            super().watch()

    def give(self, piece: bytes | memoryview) -> None:
        if self.frames is not None:
            before = self.frames.frames
            self.frames.feed(piece)
            self._size.found(len(piece), self.frames.frames - before)
        if self._found is not None:
            self._look(piece, self._found)
        super().give(piece)

    def end(self) -> None:
        if self.frames is not None and self.frames.between:
            self._doubt()
        else:
            super().end()

    def broken(self) -> None:
        self._broken = True
        if self.frames is not None and self.frames.between:
            self._doubt()
        else:
            super().broken()

    def _doubt(self) -> None:
        self._doubted = True
        self.unwatch()
        self._in_doubt()

    def end_now(self) -> None:
        """The application wants this end: pass it on to the client."""
        self._doubted, self.frames = False, None
        if self._broken:
            super().broken()
        else:
            super().end()

    def _look(self, piece: bytes | memoryview, found: Callable[[int], None]) -> None:
        """Find the status of a response that the application writes, for the access log."""
        self._front += bytes(piece[: _STATUS_LINE - len(self._front)])
        if len(self._front) == _STATUS_LINE:
            self._found = None
            if self._front.startswith(b"HTTP/1.") and self._front[9:].isdigit():
                found(int(self._front[9:]))
