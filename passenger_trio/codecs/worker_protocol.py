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
    """Reads one response. ``session_protocol.ResponseReader`` describes each call."""

    begun: bool
    pieces: int
    """The work of reading so far, counted in small pieces of a body (KE7)."""

    @property
    def ends_with_stream(self) -> bool:
        """Whether only the end of the stream ends the current body."""

    def feed(self, data: bytes) -> None: ...
    def feed_eof(self, broken: bool = False) -> None:
        """The stream ended. :param broken: whether it broke, so that its end is not the end of a body."""

    def take_body(self, view: memoryview) -> tuple[list[memoryview], int]: ...
    def take_piece(self, data: bytes) -> bytes: ...
    def next_event(self) -> tuple[int, bytes] | None: ...
    def take_rest(self) -> bytes:
        """After ``UPGRADE``: the raw bytes behind it."""


class BodyEncoding:
    """How the pieces of a request body are encoded. This class is the session protocol's, and the base of the others."""

    __slots__ = ()

    most = MAX_FRAME
    """The most bytes of a piece."""
    after = b""
    """The bytes after each piece."""
    end = BODY_END
    """The bytes after the last piece."""

    def piece(self, data: bytes) -> bytes:
        """A whole encoded piece. ``data`` must not be empty."""
        return encode_data(data)

    def before(self, size: int) -> bytes:
        """The prefix of a piece of ``size`` bytes that are sent without passing through here."""
        return encode_data_head(size)


SESSION_ENCODING = BodyEncoding()


class WorkerProtocol(Protocol):
    """A protocol between the server and a process. Has no state."""

    @property
    def name(self) -> str:
        """The ``protocol`` of a socket in CONTRACT.md."""

    @property
    def awaits_end(self) -> bool:
        """Whether an abort has an end: a half-close tells the process that nobody waits for its response, and the process closes its half when it is
        done. If False, the server just closes the stream.
        """

    @property
    def keeps_idle(self) -> bool:
        """Whether a live process keeps each idle stream open. If False, it may end one at any moment, even while a request is on the way (R30)."""

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
        """Encode the request, as far as it has arrived: completely, if ``body`` is the ``whole`` body. The ``BodyEncoding`` is for the rest of the body.

        :param connection_pairs: see ``cgi_fields.cgi_pairs``, also for the next three parameters.
        :param length: the length of the whole body, if it is known.
        :raises RequestError: the head is longer than a process accepts (431).
        """

    def read_whole_response(self, data: bytes, method: bytes) -> tuple[bytes, bytes, int] | None:
        """(Payload of ``HEAD``, body, flags) if ``data`` is exactly one whole, plain response. None: use a reader."""

    def reader(self, method: bytes, *, upgrade: bool = False, websocket: bool = False) -> Reader:
        """A reader for one response.

        :param method: the method of the request.
        :param upgrade: whether the request asks for an upgrade.
        :param websocket: see ``session_protocol.ResponseReader``.
        """


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
