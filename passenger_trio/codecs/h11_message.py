"""A message that h11 frames: every message that the plain-request parser did not parse.

h11 gets only bytes that the strict check accepted: the first byte of the message to its last, and none of
the next message. It parses the head again and decodes the body. Its result must equal that of the strict
check; if the two readers disagree, the request is refused. The h11 connection object lives as long as the
message; between messages there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import h11

from passenger_trio.codecs.chunked import ChunkScan
from passenger_trio.codecs.head import Head, HttpLimits
from passenger_trio.codecs.refusals import refuse
from passenger_trio.codecs.response_framing import Fields, Message
from passenger_trio.codecs.strict_request import spoken_version
from passenger_trio.errors import RequestError, UnfitResponseHead

__all__ = ["H11Message"]


class H11Message(Message):
    __slots__ = ("_chunks", "_connection", "_failure", "_to_read")

    def __init__(self, head: Head, raw: bytes, limits: HttpLimits) -> None:
        """
        :param head: the result of the strict check of ``raw``.
        :raises RequestError: h11 has another result, or refuses ``raw``.
        """
        super().__init__(head, False)
        self._chunks = ChunkScan(limits) if head.chunked else None
        self._to_read = head.content_length or 0
        self._failure: RequestError | None = None
        # h11 never has to refuse for size: what is incomplete is at most one trailer, which is bounded before
        # it.
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_size + 4096)
        self._connection.receive_data(raw)
        request = self._next_event()
        if not isinstance(request, h11.Request) or not _same(request, head):
            raise refuse("readers_disagree")
        self._collect()
        if self.body_complete != (not head.has_body):
            raise refuse("readers_disagree")

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The decoded body. A chunked body passes the strict check first (R15, R16, R17)."""
        if self._failure is not None:
            raise self._failure
        scan = self._chunks
        if scan is None:
            piece = data[: self._to_read]
            used = expected = len(piece)
            self._to_read -= used
            complete = not self._to_read
        else:
            before = scan.total
            used = scan.scan(data)
            piece = scan.clean
            expected, complete = scan.total - before, scan.complete
        if piece:
            self._connection.receive_data(piece)
        body = self._collect()
        if len(body) != expected or complete != self.body_complete:
            raise refuse("readers_disagree")
        if scan is not None and scan.failure is not None:
            if not body:
                raise scan.failure
            self._failure = scan.failure
        return body, used

    def _collect(self) -> bytes:
        """The body that h11 has decoded since the last call."""
        parts: list[bytes] = []
        while not self.body_complete:
            event = self._next_event()
            if isinstance(event, h11.Data):
                parts.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.body_complete = True
            else:
                break
        return b"".join(parts)

    def _next_event(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise refuse("refused_by_h11") from error

    def _write_head(self, status: int, reason: bytes, fields: Fields, length: int | None, chunked: bool) -> bytes:
        if length is not None:
            fields.append((b"Content-Length", b"%d" % length))
        elif chunked:
            fields.append((b"Transfer-Encoding", b"chunked"))
        if self.must_close:
            fields.append((b"Connection", b"close"))
        return self._send_head(h11.Response, status, reason, fields)

    def _write_interim(self, status: int, reason: bytes, fields: Fields) -> bytes:
        return self._send_head(h11.InformationalResponse, status, reason, fields)

    def _send_head(
        self, kind: type[h11.Response | h11.InformationalResponse], status: int, reason: bytes, fields: Fields
    ) -> bytes:
        try:
            return self._connection.send(kind(status_code=status, reason=reason, headers=fields)) or b""
        except h11.LocalProtocolError as error:
            # Fields that somebody has failed to validate: h11 will not write them.
            raise UnfitResponseHead("the response's head cannot be written") from error

    def _write_data(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        # h11 hands on what has a length, and looks no further.
        return self._connection.send_with_data_passthrough(h11.Data(data=cast(bytes, data))) or ()

    def _write_end(self, trailers: Fields) -> bytes:
        return self._connection.send(h11.EndOfMessage(headers=trailers))


def _same(request: h11.Request, head: Head) -> bool:
    """Whether h11 read what the strict check read. h11 writes ``chunked`` in lower case, else it keeps what
    it found.
    """
    version = spoken_version(request.http_version)
    if (request.method, request.target, version) != (head.method, head.target, head.version):
        return False
    fields = head.fields
    if head.chunked:
        fields = [(name, b"chunked" if name.lower() == b"transfer-encoding" else value) for name, value in fields]
    return request.headers.raw_items() == fields
