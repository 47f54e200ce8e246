"""What a process sends goes to a client that keeps up, without a step of the connection's task: a piece of a stream, after however long a pause, is one
step of the poller (``_pass_on``).

The task sleeps meanwhile (``serve_readable``). It is woken by whatever takes more than that:

* The response is over, or has failed; the process's stream has ended; the connection is no longer HTTP.
* The response turns out to be an event stream, which gets a scope of its own.
* The client has not taken everything: the buffer has the rest, and a task that writes it.
* The pieces are many, and take turns (KE7); or a read was as long as it may be, and more is waiting: that is the task's, whose steps leave others their time.

Laws: a step reads once, and handles a bounded number of pieces. What it does not get to do is done by the task from the same state, in the same order.
"""

from __future__ import annotations

import attrs
import trio

from passenger_trio.codecs.session_protocol import DATA
from passenger_trio.core.buffer_sizes import RECEIVE_SIZE
from passenger_trio.core.read_size import STEP, ReadSize, SmallReads
from passenger_trio.late_classes import define
from passenger_trio.server.http.response_events import ResponseEvents
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.serve_readable import serve_readable

__all__ = ["PassThrough"]

_FIRST_READ, _LEAST_READ = 16 * 1024, 1536
"""Bytes; see ``core.read_size``."""
_SMALL_PIECE = 1024
"""Bytes of a read whose body is copied to be sent: that costs less than to send it as several pieces."""


@define(eq=False)
class PassThrough(ResponseEvents):
    """A response of which the poller may pass on what comes."""

    stream: RawStream = attrs.field(kw_only=True)
    """The process's."""
    _size: ReadSize = attrs.field(factory=lambda: ReadSize(_FIRST_READ, _LEAST_READ, RECEIVE_SIZE))
    _small: SmallReads = attrs.field(factory=SmallReads)
    _pieces: int = 0
    """The reader's count of pieces at the last read."""
    _is_bulk: bool = False
    """Whether the last read was as long as it could be."""
    _room: int = 0
    """Bytes that may be read at once, because the buffer may have to take them."""
    _ended: bool | None = None
    """Whether the process's stream is broken, once its end has come."""

    @property
    def _is_flood(self) -> bool:
        return self._size.is_flood or self._small.are_flood

    @property
    def _passes_through(self) -> bool:
        return not (self.writer.is_behind or self._is_bulk or self._is_flood)

    async def _pass_through(self) -> bool:
        """Let the poller pass on what comes, until the task is needed. Always a checkpoint.

        :return: False: the process's stream has ended (``_ended``).
        """
        self._room = self.buffer.room()
        await serve_readable(self.client.front.poller, self.stream, self._pass_on)
        return self._ended is None

    def _pass_on(self) -> bool:
        """A step of the poller. True: the task is needed."""
        if self.writer.is_behind:
            return True  # a probe, or an interim response of ours
        limit = self._size.limit
        try:
            data = self.stream.recv_nowait(limit if limit < self._room else self._room)
        except trio.WouldBlock:
            return False
        except trio.BrokenResourceError:
            self._ended = True
            return True
        if not data:
            self._ended = False
            return True
        reader, limited, before = self.reader, self._filling, self.reader.pieces
        if len(data) <= _SMALL_PIECE and (piece := reader.take_piece(data)):
            # One small frame, as most streams send. It is what is done below, in fewer steps.
            self._pieces = reader.pieces
            self._small.found(len(data), self.client.current_time())
            if chunk := self.client.codec.response_chunk(piece):
                self.body += len(piece)
                return not self.writer.pass_on(chunk) or self._small.are_flood
            self._take(DATA, piece)
        else:
            self._take_read(memoryview(data))
            while (event := reader.next_event()) is not None:
                self._take(*event)
                if reader.pieces - before >= STEP:
                    return True
        self.writer.flush()
        return self._over or self._filling is not limited or not self._passes_through

    def _take_read(self, view: memoryview) -> None:
        """Of the bytes of one read, give body bytes to the client at once, and all others to the reader."""
        reader, count = self.reader, len(view)
        pieces, taken = reader.take_body(view)
        read = reader.pieces
        self._is_bulk = count >= self._size.limit
        self._size.found(count, read - self._pieces)
        self._small.found(count, self.client.current_time())
        self._pieces = read
        if pieces:
            self._take_pieces(pieces)
            self.writer.flush()
        if taken < count:
            reader.feed(bytes(view[taken:]))
