"""Reads a response of a worker that speaks HTTP/1.1. Sans-I/O.

A response passes the strict check first (``http1_worker_head``, ``chunked``: R24). Then h11 parses heads and
chunked bodies; a body that ends by its length or with the stream is counted here. Both must agree. Chunks without extensions that have arrived
completely are parsed without h11; ``tests/codecs`` shows that the result is equal.

Laws:

* All at once and byte by byte give the same events. Body bytes are never held back.
* Bytes are parsed when they are asked for: a call of ``next_event`` parses one head, or at most ``RUN`` chunks, whose
  bodies are one piece (KE7). ``pieces`` counts what was parsed, in small chunks.
* A stream is reused only after a response that ended by itself, with no bytes behind it. Bytes behind the end
  belong to no response: they cost the stream, and nothing else.
* A 101 ends HTTP on the stream if the request asked for an upgrade; otherwise it is malformed.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from passenger_trio.codecs.chunked import ChunkScan, plain_chunks, plain_size
from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.http1_worker_head import Body, HeadScan, WorkerHead, malformed
from passenger_trio.codecs.session_protocol import (
    DATA,
    END,
    FLAG_CLOSE,
    HEAD,
    INTERIM,
    INTERIM_COST,
    MAX_HEAD,
    RUN,
    UPGRADE,
)
from passenger_trio.errors import IncompleteResponse, MalformedResponse

if TYPE_CHECKING:
    import h11

__all__ = ["HttpReader"]

_LIMITS = HttpLimits(max_header_size=MAX_HEAD, max_header_field_size=MAX_HEAD, max_request_body=0)
"""The limits on the trailer of a chunked body."""
_KEEP, _CLOSE = b"", bytes([FLAG_CLOSE])
_CAREFUL = 128
"""Bytes of chunks that are not plain, for one call. Each such chunk costs as much as ``_CAREFUL_COST`` small plain ones."""
_CAREFUL_COST = 16


class _State(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    OVER = enum.auto()
    """The whole response was read. The event ``END`` may still be queued."""
    RAW = enum.auto()
    """The stream carries another protocol."""


class HttpReader:
    """See ``session_protocol.ResponseReader``, which has the same methods.

    :param method: the method of the request.
    :param upgrade: whether the request asks for an upgrade. If so, a 101 gives ``HEAD`` and then ``UPGRADE``; after that all bytes are raw.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_events",
        "_failure",
        "_flags",
        "_head",
        "_left",
        "_method",
        "_scan",
        "_state",
        "_unparsed",
        "_upgrade",
        "begun",
        "pieces",
    )

    def __init__(self, method: bytes, *, upgrade: bool = False) -> None:
        self._method = method
        self._upgrade = upgrade
        self._unparsed = b""
        self._state = _State.HEAD
        self._scan: HeadScan | None = None
        self._head: WorkerHead | None = None
        self._connection: h11.Connection | None = None
        self._chunks: ChunkScan | None = None
        self._left = 0
        """Bytes that are missing of a body that ends by its length."""
        self._events: deque[tuple[int, bytes]] = deque()
        """Parsed events that ``next_event`` has not returned yet."""
        self._failure: MalformedResponse | None = None
        """The error behind those events."""
        self._flags = _KEEP
        self.begun = False
        self.pieces = 0
        """The work of parsing so far, counted in small chunks."""

    @property
    def ends_with_stream(self) -> bool:
        return self._state is _State.BODY and self._head is not None and self._head.body is Body.CLOSE

    def feed(self, data: bytes) -> None:
        """Add received bytes. Bytes behind the end are dropped. ``next_event`` raises errors, after the valid events."""
        if data:
            self.begun = True
            self._unparsed = self._unparsed + data if self._unparsed else data

    def _parse(self) -> None:
        """Parse one piece of the fed bytes. Call it only if there are any."""
        data, self._unparsed = self._unparsed, b""
        try:
            self._unparsed = self._read(data)
        except MalformedResponse as failure:
            self._failure = failure

    def _read(self, data: bytes) -> bytes:
        """Parse one piece, and return the rest of ``data``."""
        if self._state is _State.OVER or self._failure is not None:
            return b""
        if self._state is _State.HEAD:
            return self._read_head(data)
        assert self._head is not None
        if self._head.body is Body.CHUNKED:
            return self._read_chunks(data)
        piece = data[: self._left] if self._head.body is Body.LENGTH else data
        self.pieces += 1
        self._events.append((DATA, piece))
        self._count(len(piece))
        return data[len(piece) :]

    def _read_head(self, data: bytes) -> bytes:
        events = self._events
        scan = self._scan
        if scan is None:
            scan = self._scan = HeadScan()
        if not scan.feed(data, self._method):
            return b""
        head, self._scan = scan.head, None
        assert head is not None
        self._check_by_h11(head, scan.raw)
        if head.status == 101:
            if not self._upgrade or head.version == b"1.0":
                raise malformed("it switches protocols, which was not asked for")
            self._state = _State.RAW
            events.extend(((HEAD, head.payload), (UPGRADE, b"")))
            return scan.rest
        if head.status < 200:
            self.pieces += INTERIM_COST
            if head.status != 100:  # that is between us and the process, which was not asked to say so
                events.append((INTERIM, head.payload))
            return scan.rest
        self._head, self._state, self._left = head, _State.BODY, head.length
        self._flags = _KEEP if head.keep else _CLOSE
        self.pieces += 1
        events.append((HEAD, head.payload))
        if head.body is Body.CHUNKED:
            self._chunks = ChunkScan(_LIMITS, is_ours=True)
        elif head.body is Body.NONE or (head.body is Body.LENGTH and not head.length):
            self._end()
        return scan.rest

    def _check_by_h11(self, head: WorkerHead, raw: bytes) -> None:
        """Compare with h11.

        :raises MalformedResponse: h11 reads the head in another way, or not at all.
        """
        import h11  # here: the start of the server does not wait for it (DE10)

        connection = self._connection
        try:
            if connection is None:
                connection = self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD + 4096)
                # Of the request it needs to know what decides about the response.
                asked = [(b"Host", b"process"), *([(b"Upgrade", b"x"), (b"Connection", b"Upgrade")] * self._upgrade)]
                connection.send(h11.Request(method=self._method, target=b"/", headers=asked))
                connection.send(h11.EndOfMessage())
            connection.receive_data(raw)
            event = connection.next_event()
        except h11.ProtocolError as error:
            raise malformed("h11 refuses it") from error
        fields = [
            (name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in head.fields
        ]
        if (
            not isinstance(event, h11.Response | h11.InformationalResponse)
            or (event.status_code, event.http_version) != (head.status, head.version)
            or event.headers.raw_items() != fields
        ):
            raise malformed("it can be read in two ways")

    def _read_chunks(self, data: bytes) -> bytes:
        scan = self._chunks
        assert scan is not None
        left = scan.left
        if not left:
            if scan.between:  # and so is h11
                pieces, at = plain_chunks(data, RUN)
                if pieces:
                    self.pieces += len(pieces)
                    self._events.append((DATA, b"".join(pieces)))
                    return data[at:]
            left = plain_size(data) if scan.between else 0
        # One chunk that is not whole, or a few bytes of what else there is.
        size = left + 2 if left else _CAREFUL
        return self._read_carefully(data[:size]) + data[size:]

    def _read_carefully(self, data: bytes) -> bytes:
        """Read chunks by the strict check and h11, and return the rest of ``data``."""
        import h11

        scan, connection, events = self._chunks, self._connection, self._events
        assert scan is not None
        assert connection is not None
        before = scan.total
        good = scan.scan(data)
        if scan.clean:  # nothing would be the end
            connection.receive_data(scan.clean)
        size, ended = 0, False
        try:
            while not ended and not isinstance(event := connection.next_event(), type(h11.NEED_DATA)):
                self.pieces += _CAREFUL_COST
                if isinstance(event, h11.Data):
                    size += len(event.data)
                    events.append((DATA, bytes(event.data)))
                ended = isinstance(event, h11.EndOfMessage)
        except h11.RemoteProtocolError as error:
            raise malformed("h11 refuses its chunks") from error
        if size != scan.total - before or ended != scan.complete:
            raise malformed("its chunks can be read in two ways")
        if scan.failure is not None:
            raise malformed(scan.failure.text[0].lower() + scan.failure.text[1:].rstrip("."))
        if ended:
            self._end()
        return data[good:]

    def _count(self, size: int) -> None:
        """``size`` more bytes of a plain body have arrived."""
        assert self._head is not None
        if self._head.body is Body.LENGTH:
            self._left -= size
            if not self._left:
                self._end()

    def _end(self) -> None:
        self._state = _State.OVER
        self._events.append((END, self._flags))

    def feed_eof(self, broken: bool = False) -> None:
        """The stream has ended.

        :raises IncompleteResponse: the response is not whole. (A body without a length is whole, unless the stream was ``broken``.)
        """
        while self._unparsed and self._state is not _State.RAW:
            self._parse()
        if self._state in (_State.OVER, _State.RAW) or self._failure is not None:
            return
        if self._state is _State.BODY and self._head is not None and self._head.body is Body.CLOSE and not broken:
            self._state = _State.OVER
            self._events.append((END, _CLOSE))
            return
        raise IncompleteResponse(
            "the process closed the connection in the middle of its response"
            if self.begun
            else "the process closed the connection before it answered"
        )

    def take_body(self, view: memoryview) -> tuple[list[memoryview], int]:
        """For large bodies: the body pieces in ``view``, which are not copied, and how many bytes of ``view`` they take."""
        head = self._head
        if (
            self._events
            or self._unparsed
            or self._state is not _State.BODY
            or head is None
            or head.body is Body.CHUNKED
            or not view
        ):
            return [], 0
        self.begun = True
        self.pieces += 1
        piece = view[: self._left] if head.body is Body.LENGTH else view
        self._count(len(piece))
        return [piece], len(piece)

    def take_piece(self, data: bytes) -> bytes:
        """Nothing is taken: what a chunk is, the strict check says."""
        return b""

    def next_event(self) -> tuple[int, bytes] | None:
        """:raises MalformedResponse: the bytes are no response."""
        events = self._events
        while not events:
            if self._failure is not None:
                raise self._failure
            if not self._unparsed or self._state is _State.RAW:
                return None
            self._parse()
        kind, payload = events.popleft()
        if kind == END and self._unparsed:
            self._unparsed, payload = b"", _CLOSE
        return kind, payload

    def take_rest(self) -> bytes:
        """The raw bytes behind an upgrade."""
        rest, self._unparsed = self._unparsed, b""
        return rest
