"""HTTP/1.1 to a worker: the client's side of HTTP for Node.js and for programs that know nothing of us. Sans-I/O.

This module encodes requests, and recognises a plain response that arrives in one read. ``http1_worker_response`` reads all other
responses; ``tests/codecs`` shows that both give the same result.
"""

from __future__ import annotations

from passenger_trio.codecs.cgi_fields import forwarded_fields
from passenger_trio.codecs.head import Head
from passenger_trio.codecs.http1_worker_head import Body, parse_plain_head
from passenger_trio.codecs.http1_worker_response import HttpReader
from passenger_trio.codecs.session_protocol import FLAG_CLOSE
from passenger_trio.codecs.worker_protocol import SESSION, BodyEncoding, Reader, WorkerProtocol
from passenger_trio.errors import MalformedResponse

__all__ = ["HTTP", "WORKER_PROTOCOLS"]

_USUALLY_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


class _Plain(BodyEncoding):
    """A body whose length the head has told."""

    __slots__ = ()

    most = 1 << 62
    end = b""

    def piece(self, data: bytes) -> bytes:
        return data

    def before(self, size: int) -> bytes:
        return b""


class _Chunks(BodyEncoding):
    __slots__ = ()

    after = b"\r\n"
    end = b"0\r\n\r\n"

    def piece(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)

    def before(self, size: int) -> bytes:
        return b"%x\r\n" % size


_PLAIN, _CHUNKS = _Plain(), _Chunks()


class _HttpProtocol:
    __slots__ = ()

    name = "http"
    awaits_end = False
    keeps_idle = False

    def request(
        self,
        head: Head,
        connection_pairs: bytes,
        script_name: bytes,
        trusted: bool,
        id_pairs: bytes,
        body: bytes,
        whole: bool,
        length: int | None,
    ) -> tuple[bytes, BodyEncoding]:
        """See ``WorkerProtocol``. The process does not get ``script_name``: like a proxy, the server passes on the target unchanged."""
        target = head.path + b"?" + head.query if head.query or head.target.endswith(b"?") else head.path
        lines = [b"%b %b HTTP/1.1" % (head.method, target)]
        lines += [b"%b: %b" % field for field in forwarded_fields(head, connection_pairs, trusted, id_pairs)]
        framing: BodyEncoding = _PLAIN
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        elif head.has_body:
            framing = _CHUNKS
            lines.append(b"Transfer-Encoding: chunked")
        elif head.method in _USUALLY_WITH_BODY:
            lines.append(b"Content-Length: 0")  # RFC 9110 8.6; some servers insist
        lines += (b"", framing.piece(body) if body else b"")
        data = b"\r\n".join(lines)
        return data + framing.end if whole else data, framing

    def read_whole_response(self, data: bytes, method: bytes) -> tuple[bytes, bytes, int] | None:
        try:
            found = parse_plain_head(data, method)
        except MalformedResponse:
            return None  # the reader tells
        if found is None:
            return None
        head, end = found
        if head.body is Body.NONE:
            length = 0
        elif head.body is Body.LENGTH:
            length = head.length
        else:
            return None
        if len(data) != end + length:
            return None
        return head.payload, data[end:], 0 if head.keep else FLAG_CLOSE

    def reader(self, method: bytes, *, upgrade: bool = False, websocket: bool = False) -> Reader:
        # Nobody asks for messages: a WebSocket is a matter between the process and the client here.
        return HttpReader(method, upgrade=upgrade)


HTTP: WorkerProtocol = _HttpProtocol()
WORKER_PROTOCOLS: dict[str, WorkerProtocol] = {protocol.name: protocol for protocol in (SESSION, HTTP)}
"""The name of a protocol (``protocol`` of a socket in CONTRACT.md) -> the protocol."""
