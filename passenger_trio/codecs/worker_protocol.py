"""How the supervisor speaks to a worker: the session protocol or HTTP/1.1, behind one interface.

A ``WorkerProtocol`` belongs to a worker and is chosen at spawn (``ready``, in CONTRACT.md, names the protocol of its
socket). It makes the bytes of a request, and readers of responses. Every reader returns the events of the
session protocol (``INTERIM``, ``HEAD`` as pairs, ``DATA``, ``ERROR``, ``END`` with flags), so the code that
forwards a response does not depend on the protocol.

The ``BodyEncoding`` that comes with the head encodes the request body: its pieces may be sent with ``sendfile``
between the bytes of ``before`` and ``after``.
"""

from __future__ import annotations

from typing import Protocol

from passenger_trio.codecs.cgi_fields import cgi_pairs
from passenger_trio.codecs.head import Head
from passenger_trio.codecs.refusals import refuse
from passenger_trio.codecs.session_protocol import (
    BODY_END,
    MAX_FRAME,
    MAX_HEAD,
    ResponseReader,
    encode_data,
    encode_data_head,
    encode_head,
    encode_request,
    read_whole_response,
)

__all__ = ["SESSION", "SESSION_ENCODING", "BodyEncoding", "Reader", "WorkerProtocol"]


class Reader(Protocol):
    """Reads one response; see ``session_protocol.ResponseReader`` for what each call promises."""

    begun: bool
    pieces: int
    """What was read so far, in units of one small piece of a body (KE7)."""

    @property
    def ends_with_stream(self) -> bool:
        """Whether the body that is read now ends with the stream, and not by itself."""

    def feed(self, data: bytes) -> None: ...
    def feed_eof(self, broken: bool = False) -> None:
        """The stream ended. :param broken: not in good order, so the end of the stream is not the end of a body."""

    def take_body(self, view: memoryview) -> tuple[list[memoryview], int]: ...
    def next_event(self) -> tuple[int, bytes] | None: ...
    def take_rest(self) -> bytes:
        """After ``UPGRADE``: the raw bytes that came behind it."""


class BodyEncoding:
    """How the pieces of a request body are written. This one is the session protocol's, and the base of the others."""

    __slots__ = ()

    most = MAX_FRAME
    """Bytes of the longest piece."""
    after = b""
    """What follows the bytes of each piece."""
    end = BODY_END
    """What follows the last piece."""

    def piece(self, data: bytes) -> bytes:
        """A whole piece, which is not empty."""
        return encode_data(data)

    def before(self, size: int) -> bytes:
        """What stands before the ``size`` bytes of a piece that does not pass through here."""
        return encode_data_head(size)


SESSION_ENCODING = BodyEncoding()


class WorkerProtocol(Protocol):
    """One way of speaking to processes; has no state."""

    @property
    def name(self) -> str:
        """The ``protocol`` of a socket in CONTRACT.md."""

    @property
    def awaits_end(self) -> bool:
        """A process is told by half a close that nobody waits for its response, and says by the other half when it is done with it. Else
        the stream is closed, and that is that.
        """

    @property
    def keeps_idle(self) -> bool:
        """A process that lives keeps an idle stream. Else it may end one at any moment, also while a request is on the way to it (R30)."""

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
        """The request, as far as it is here: all of it, if ``body`` is the ``whole`` body. More pieces go by the framing.

        :param connection_pairs: see ``cgi_fields.cgi_pairs``, as for the three that follow.
        :param length: of the whole body, if that is known.
        :raises RequestError: the head is longer than a process takes (431).
        """

    def read_whole_response(self, data: bytes, method: bytes) -> tuple[bytes, bytes, int] | None:
        """(payload of ``HEAD``, body, flags) when ``data`` is exactly one plain whole response; else None: let a reader look."""

    def reader(self, method: bytes, *, upgrade: bool = False, websocket: bool = False) -> Reader:
        """:param method: of the request. :param upgrade: whether it asks for one. :param websocket: see ``session_protocol.ResponseReader``."""


class _SessionProtocol:
    __slots__ = ()

    name = "session"
    awaits_end = True
    keeps_idle = True

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
        pairs = cgi_pairs(head, connection_pairs, script_name, trusted, id_pairs)
        if len(pairs) > MAX_HEAD:
            # Only limits that were set far above their defaults let such a head come here.
            raise refuse("headers_too_large")
        if whole:
            return encode_request(pairs, body), SESSION_ENCODING
        data = encode_head(pairs)
        return data + encode_data(body) if body else data, SESSION_ENCODING

    def read_whole_response(self, data: bytes, method: bytes) -> tuple[bytes, bytes, int] | None:
        return read_whole_response(data)

    def reader(self, method: bytes, *, upgrade: bool = False, websocket: bool = False) -> Reader:
        return ResponseReader(websocket=websocket)


SESSION: WorkerProtocol = _SessionProtocol()
