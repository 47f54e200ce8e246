"""The strict check of a response head, in front of h11 (R24), for workers that speak HTTP.

h11 accepts two equal lengths, a length beside a transfer coding, bare LF and folded lines. Each can be read in
two ways, and then one client could get another client's response. Such a head raises ``MalformedResponse``. A
valid head becomes the pairs of the session protocol's ``R`` and ``I`` frames and is handled like every other
head from there on (``response_head``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Final

from passenger_trio.codecs.lines import LineScan, read_field
from passenger_trio.codecs.patterns import compiled
from passenger_trio.codecs.response_lines import NO_BODY
from passenger_trio.codecs.session_protocol import MAX_HEAD
from passenger_trio.errors import MalformedResponse, RequestError
from passenger_trio.late_classes import define

__all__ = ["Body", "HeadScan", "WorkerHead", "malformed", "parse_plain_head", "read_head"]

Fields = Sequence[tuple[bytes, bytes]]

MAX_FIELDS: Final = 1000

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TEXT = rb"[\t -~\x80-\xff]*+"
_STATUS_LINE = compiled(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (%s))?+" % _TEXT)
_PLAIN = compiled(rb"HTTP/1\.[01] [2-5][0-9][0-9](?: %s)?+\r\n(?:%s:%s\r\n)*+\r\n" % (_TEXT, _TOKEN, _TEXT))
_LENGTH = re.compile(rb"[0-9]{1,18}")
_START = b"HTTP/1."


class Body(enum.Enum):
    """What ends the body."""

    NONE = enum.auto()
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    CLOSE = enum.auto()
    """The end of the stream."""


@define
class WorkerHead:
    """The head of a response, interim or not."""

    status: int
    payload: bytes
    """The payload of a frame ``R`` or ``I``."""
    fields: Fields
    version: bytes
    reason: bytes
    body: Body
    length: int
    """The length of a body that ends by its length."""
    keep: bool
    """Whether the process keeps the stream."""


def malformed(text: str) -> MalformedResponse:
    return MalformedResponse(f"the process sent a response that is not HTTP: {text}")


def read_head(status_line: bytes, fields: Fields, method: bytes) -> WorkerHead:
    """Check the lines together, and make the head.

    :param method: the method of the request.
    :raises MalformedResponse: the head can be read in two ways, or in none.
    """
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise malformed("its first line is no status line")
    version, status, reason = match[1], int(match[2]), match[3] or b""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    keep = version == b"1"
    parts = [match[2], reason]
    for name, value in fields:
        parts += (name, value)
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            lengths.append(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            codings.append(value)
        elif size == 10 and name.lower() == b"connection":
            keep = keep and b"close" not in [word.strip(b" \t") for word in value.lower().split(b",")]
    if codings:
        if lengths:
            raise malformed("it has both Content-Length and Transfer-Encoding")
        if version == b"0" or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise malformed("its Transfer-Encoding is not the word chunked, once, in HTTP/1.1")
    if lengths and (len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0])):
        raise malformed("its Content-Length is not one number")
    length = int(lengths[0]) if lengths else 0
    if status < 200 or status in NO_BODY or method == b"HEAD":
        body = Body.NONE
    elif codings:
        body = Body.CHUNKED
    elif lengths:
        body = Body.LENGTH
    else:
        body, keep = Body.CLOSE, False
    parts.append(b"")
    return WorkerHead(status, b"\0".join(parts), fields, b"1." + version, reason, body, length, keep)


def parse_plain_head(data: bytes, method: bytes) -> tuple[WorkerHead, int] | None:
    """A plain final head at the start of ``data``, and its length. None: use ``HeadScan``, which gives the same result for plain heads.

    :raises MalformedResponse: see ``read_head``.
    """
    match = _PLAIN.match(data)
    if match is None or match.end() > MAX_HEAD:
        return None
    status_line, *lines = data[: match.end() - 4].split(b"\r\n")
    if len(lines) > MAX_FIELDS:
        return None
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    return read_head(status_line, fields, method), match.end()


class HeadScan:
    """Reads one head in pieces. An error is found at the byte that causes it."""

    __slots__ = ("_fields", "_left", "_lines", "_status_line", "head", "raw", "rest")

    def __init__(self) -> None:
        self._lines = LineScan()
        self._status_line: bytes | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._left = MAX_HEAD - 2  # of the next line, without its CRLF
        self.head: WorkerHead | None = None
        self.raw = self.rest = b""

    def feed(self, data: bytes, method: bytes) -> bool:
        """Look at more bytes. True: the head is complete, and ``head``, ``raw`` (its bytes) and ``rest`` (the bytes behind it) are set.

        :raises MalformedResponse: the bytes are no head.
        """
        lines = self._lines
        lines.feed(data)
        if not (lines.buffer.startswith(_START) or _START.startswith(lines.buffer)):
            raise malformed("it does not begin like a status line")
        try:
            while (line := lines.next_line(self._left, "headers_too_large")) is not None:
                self._left = max(0, self._left - len(line) - 2)
                if self._status_line is None:
                    self._status_line = line
                elif line:
                    if len(self._fields) == MAX_FIELDS:
                        raise malformed("it has too many header fields")
                    self._fields.append(read_field(line))
                else:
                    self.head = read_head(self._status_line, self._fields, method)
                    self.raw, self.rest = bytes(lines.buffer[: lines.start]), bytes(lines.buffer[lines.start :])
                    return True
        except RequestError as error:
            # The words of the check are those for requests, and fit.
            raise malformed(error.text[0].lower() + error.text[1:].rstrip(".")) from None
        return False
