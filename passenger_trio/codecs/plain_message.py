"""A message with a plain head: its body has a Content-Length or is empty, and its response is written here.

The writer is small because the client always speaks HTTP/1.1. ``tests/codecs/test_http1_responses.py`` checks
each response against h11's client side and against the bytes of the h11 writer.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.response_framing import Fields, Message
from passenger_trio.codecs.response_head import AppHead
from passenger_trio.codecs.response_lines import NO_BODY, SERVER, status_line, with_standard_fields
from passenger_trio.errors import InvariantBroken

__all__ = ["PlainMessage"]

_FIELD = b": ".join
_LINES = b"\r\n".join
_END_OF_HEAD = b"\r\nServer: %b\r\nContent-Length: %%d\r\n\r\n%%b" % SERVER


class PlainMessage(Message):
    """A message that is read and written here. ``Message`` holds its flags (``must_close``, ``begun``, ``ended``) and decides the framing. Of this class
    the fast path uses only ``answer``."""

    __slots__ = ("_to_read",)

    def __init__(self, head: Head) -> None:
        self._to_read = head.content_length or 0
        super().__init__(head, not self._to_read)

    def read(self, data: bytes) -> tuple[bytes, int]:
        """The body as it is (R13)."""
        if len(data) > self._to_read:
            data = data[: self._to_read]
        self._to_read -= len(data)
        self.body_complete = not self._to_read
        return data, len(data)

    @property
    def raw_left(self) -> int:
        return self._to_read

    def skip(self, count: int) -> None:
        if count > self._to_read:
            raise InvariantBroken("more than the body was taken")
        self._to_read -= count
        self.body_complete = not self._to_read

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
        """As of any message; the common case in one join."""
        if (
            not self.body_complete
            or self.begun
            or self._is_muted(status)
            or (length is not None and length != len(body))
        ):
            return super().whole(status, reason, fields, body, length, date, close)
        self.begun = self.ended = True
        lines = [status_line(status, reason)]
        lines += map(_FIELD, with_standard_fields(fields, date))
        lines.append(b"Content-Length: %d" % len(body))
        if close or self.must_close:
            self.must_close = True
            lines.append(b"Connection: close")
        lines += (b"", body)
        return _LINES(lines)

    def answer(self, app: AppHead, body: bytes, date: bytes, close: bool) -> bytes:
        """As of any message. In the common case the date, the length and the body are added to ``app.lines``, which were made once: equal heads share one ``AppHead`` (``parse_response_head``)."""
        length = app.content_length
        if (
            close
            or self.must_close
            or not self.body_complete
            or self.begun
            or app.status in NO_BODY
            or (length is not None and length != len(body))
            or app.has_date
            or app.has_server
            or self.head.method == b"HEAD"
        ):
            return super().answer(app, body, date, close)
        self.begun = self.ended = True
        lines = app.lines
        if lines is None:
            lines = app.lines = _LINES([status_line(app.status, app.reason), *map(_FIELD, app.fields), b"Date: "])
        return lines + date + _END_OF_HEAD % (len(body), body)

    def _write_head(self, status: int, reason: bytes, fields: Fields, length: int | None, chunked: bool) -> bytes:
        lines = [status_line(status, reason)]
        lines += map(_FIELD, fields)
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        elif chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if self.must_close:
            lines.append(b"Connection: close")
        lines += (b"", b"")
        return _LINES(lines)

    def _write_data(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        if self._chunked:
            return (b"%x\r\n" % len(data), data, b"\r\n")
        return (data,)

    def chunk(self, data: bytes) -> bytes:
        if not self._chunked or self.ended:
            return b""
        return b"%x\r\n%b\r\n" % (len(data), data)

    def _write_end(self, trailers: Fields) -> bytes:
        if trailers:
            return _LINES([b"0", *map(_FIELD, trailers), b"", b""])
        return b"0\r\n\r\n" if self._chunked else b""

    def _write_interim(self, status: int, reason: bytes, fields: Fields) -> bytes:
        return _LINES([status_line(status, reason), *map(_FIELD, fields), b"", b""])
