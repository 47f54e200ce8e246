"""One request and its response: what both kinds of message have in common.

A message is made with its ``Head`` and ends with its response. The reader that made the head determines the
kind: ``PlainMessage`` reads and writes by itself, ``H11Message`` leaves both to an h11 connection. The framing
decisions are made here, once for both: whether a body may be sent at all (R23), how it is framed, whether the
connection is kept, and what happens when an application declares one length and sends another (R24).

Order of calls: ``begin``, then ``body`` any number of times, then ``end``; or ``whole`` instead of the three.
Any other order is our bug and raises ``InvariantBroken``.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.response_head import AppHead, check_fields
from passenger_trio.codecs.response_lines import NO_BODY, with_standard_fields
from passenger_trio.errors import InvariantBroken, UnfitResponseHead

__all__ = ["Fields", "Message"]

Fields = list[tuple[bytes, bytes]]


_NONE: Fields = []


class Message:
    """The common half. The four ``_write`` methods and ``read`` make a kind."""

    __slots__ = (
        "_chunked",
        "_left",
        "_muted",
        "_probed",
        "begun",
        "body_complete",
        "continued",
        "ended",
        "head",
        "must_close",
        "overrun",
        "short",
    )

    def __init__(self, head: Head, body_complete: bool) -> None:
        self.head = head
        self.body_complete = body_complete
        """Whether the request was read completely."""
        self.begun = False
        self.ended = False
        self.continued = False
        self.must_close = not head.keep_alive
        self.overrun = 0
        """Bytes that the application sent beyond its declared length."""
        self.short = False
        """Whether the response ended before its declared length."""
        self._muted = self._chunked = self._probed = False
        self._left: int | None = None

    def read(self, data: bytes) -> tuple[bytes, int]:
        """(The body in ``data``, the number of bytes of ``data`` that it takes).

        :raises RequestError: R13, R15, R16, R17. The valid part is returned first.
        """
        raise NotImplementedError

    @property
    def raw_left(self) -> int:
        """Bytes of the body that are missing, if the caller may take them directly from the socket (``skip``); else 0."""
        return 0

    def skip(self, count: int) -> None:
        """The caller has taken ``count`` bytes of ``raw_left``."""
        raise InvariantBroken("a body was taken that needs to be read")

    def begin(self, status: int, reason: bytes, fields: Fields, length: int | None, date: bytes, close: bool) -> bytes:
        """The head of the response (R22, R23). If the request body was not read completely, the connection closes after it."""
        if self.begun:
            raise InvariantBroken("a response was begun twice")
        head = self.head
        bodiless = status in NO_BODY
        self._muted = bodiless or head.method == b"HEAD"
        if status == 204:
            length = None
        chunked = length is None and not bodiless and head.version == b"1.1"
        if close or not self.body_complete or (length is None and not chunked and not self._muted):
            self.must_close = True
        self._chunked = chunked and not self._muted
        self._left = None if self._muted else length
        out = self._write_head(status, reason, with_standard_fields(fields, date), length, chunked)
        self.begun = True  # not before: a head that cannot be written leaves the way to an error response open
        return out

    def body(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        """The pieces to send for ``data``, which is not copied. Bytes beyond the declared length are cut off (R24)."""
        if not self.begun or self.ended:
            raise InvariantBroken("response body outside of a response")
        if self._muted or not data:
            return ()
        left = self._left
        if left is not None:
            beyond = len(data) - left
            if beyond > 0:
                self.overrun += beyond
                self.must_close = True
                data = data[:left]
                if not data:
                    return ()
            self._left = left - len(data)
        return self._write_data(data)

    def chunk(self, data: bytes) -> bytes:
        """``body`` for a small piece of a chunked body, in one piece. ``b""``: the body is not chunked, or not written here."""
        return b""

    def end(self, trailers: Fields = _NONE) -> bytes:
        """The bytes that end the response, with trailers if the body is chunked (RFC 9112 7.1.2). If the body was too short there are none, and the connection must close (R24)."""
        if not self.begun or self.ended:
            raise InvariantBroken("the end of a response that is not under way")
        self.ended = True
        if self._left:
            self.short = True
            self.must_close = True
            return b""
        return self._write_end(trailers if self._chunked else _NONE)

    def whole(
        self,
        status: int,
        reason: bytes,
        fields: Fields,
        body: bytes,
        length: int | None,
        date: bytes,
        close: bool,
    ) -> bytes:
        """``begin``, ``body`` and ``end`` in one. Without ``length`` the body's own length counts, if there can be a body."""
        if length is None and not self._is_muted(status):
            length = len(body)
        return b"".join((self.begin(status, reason, fields, length, date, close), *self.body(body), self.end()))

    def answer(self, app: AppHead, body: bytes, date: bytes, close: bool) -> bytes:
        """Like ``whole``, for an application's response."""
        return self.whole(app.status, app.reason, app.fields, body, app.content_length, date, close)

    def _is_muted(self, status: int) -> bool:
        return status in NO_BODY or self.head.method == b"HEAD"

    def interim(self, status: int, reason: bytes, fields: Fields) -> bytes:
        """A 1xx response, empty for an HTTP/1.0 client (R20, R21; RFC 9110 15.2).

        :raises UnfitResponseHead: the status is not 1xx or is 101, or a field is not one.
        """
        if self.begun:
            raise InvariantBroken("an interim response after the response")
        if not 100 <= status <= 199 or status == 101:
            raise UnfitResponseHead(f"an interim response has the status {status}")
        kept = check_fields(reason, fields)
        if self.head.version == b"1.0":
            return b""
        if status == 100:
            self.continued = True
        return self._write_interim(status, reason, kept)

    def probe(self) -> bytes:
        """Bytes without a meaning, to be sent between two pieces of the response: if the client has left, its kernel answers them with a reset. ``b""``: there are none.

        Before the head this is a ``100 Continue``, which a client that did not ask for it discards (RFC 9110 15.2.1). In a chunked body it is a leading zero of the
        next size (RFC 9112 7.1: ``1*HEXDIG``, and ``1*"0"`` for the last). Once in a response; never in a body of another framing.
        """
        if self._probed or self.ended:
            return b""
        self._probed = True
        if not self.begun:
            return self.interim(100, b"Continue", [])
        return b"0" if self._chunked else b""

    def switch(self, reason: bytes, fields: Fields) -> bytes:
        """The head of status 101. After it the connection is no longer HTTP, in either direction.

        :raises InvariantBroken: the request asks for no upgrade, or was answered already.
        """
        if self.begun or not self.head.upgrade:
            raise InvariantBroken("a connection is upgraded that cannot be")
        out = self._write_interim(101, reason, fields)
        self.begun = True  # not before, as in ``begin``
        return out

    def hand_over(self) -> None:
        """The application takes over the connection: this message is its last."""
        self.begun = self.must_close = True

    def _write_head(self, status: int, reason: bytes, fields: Fields, length: int | None, chunked: bool) -> bytes:
        raise NotImplementedError

    def _write_data(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        raise NotImplementedError

    def _write_end(self, trailers: Fields) -> bytes:
        raise NotImplementedError

    def _write_interim(self, status: int, reason: bytes, fields: Fields) -> bytes:
        raise NotImplementedError
