"""The strict check of a chunked body, in front of h11 (R15, R16, R17; RFC 9112 7.1).

``ChunkScan`` looks at each byte once and returns how many bytes are valid. Only those bytes go to h11, which
decodes them. The two must agree on the length of the body. The accepted grammar is::

    1*16HEXDIG *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) CRLF data CRLF ...
    0 CRLF *( field CRLF ) CRLF

Everything else is refused: a sign, a prefix or a separator in the number, white space behind the number
unless an extension follows, control characters in an extension. White space before the first extension is
valid (BWS, RFC 9110 5.6.3), but h11 does not accept it. ``clean`` is the input for h11 without that white
space, so h11 gets a line with an extension only when the line is complete.

Trailers are checked like header fields and then dropped (RFC 9110 6.5.1). A trailer that would change how the
message is framed, routed, authorised or decoded is refused if it comes from a client. From an application it is left out: its response
is complete without it.
"""

from __future__ import annotations

import enum
import re

from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.lines import LineScan, read_field
from passenger_trio.codecs.patterns import compiled
from passenger_trio.codecs.refusals import refuse
from passenger_trio.errors import RequestError

__all__ = ["FORBIDDEN_TRAILERS", "ChunkScan", "may_trail", "plain_chunks", "plain_size"]

#: Fields that change how a message is framed, routed, authorised or decoded. In a trailer they deceive (R17;
#: RFC 9110 6.5.1).
FORBIDDEN_TRAILERS = frozenset(
    b"transfer-encoding content-length trailer te connection keep-alive upgrade expect host forwarded "
    b"authorization cookie proxy-authorization proxy-authenticate set-cookie www-authenticate "
    b"max-forwards cache-control range content-encoding content-range".split()
)
_FORBIDDEN_PREFIX = b"x-forwarded-"

MAX_SIZE_DIGITS = 16
MAX_EXTENSION = 256
MAX_EXTENSIONS = 16 * 1024
#: So many chunks may be as small as they like; beyond, they must carry so many bytes each on average (R16).
FREE_CHUNKS = 4096
MIN_MEAN_CHUNK = 8

_PLAIN_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_BWS = rb"[ \t]*+"
_EXTENSIONS = compiled(rb"(?:%b;%b%b(?:%b=%b(?:%b|%b))?+)*+" % (_BWS, _BWS, _TOKEN, _BWS, _BWS, _TOKEN, _QUOTED))


def may_trail(name: bytes) -> bool:
    """Whether a field of this name (in lower case) may stand behind a body."""
    return name not in FORBIDDEN_TRAILERS and not name.startswith(_FORBIDDEN_PREFIX)


def plain_size(data: bytes) -> int:
    """The size of the chunk at the start of ``data``, if its line is whole and has no extension; else 0, as for the last one."""
    line = _PLAIN_LINE.match(data)
    return int(line[1], 16) if line is not None else 0


def plain_chunks(data: bytes, most: int) -> tuple[list[bytes], int]:
    """The bodies of the whole plain chunks at the start of ``data``, at most ``most``, and how many bytes the chunks take.

    A chunk is plain if its line is only its size. The last chunk, of size 0, is never included. ``ChunkScan`` and h11 give the same
    result: there is only one way to read plain chunks.
    """
    bodies: list[bytes] = []
    at = 0
    match = _PLAIN_LINE.match
    while len(bodies) < most and (line := match(data, at)) is not None:
        start = line.end()
        stop = start + int(line[1], 16)
        if stop == start or not data.startswith(b"\r\n", stop):
            break
        bodies.append(data[start:stop])
        at = stop + 2
    return bodies, at


class _Expect(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_CR = enum.auto()
    DATA_LF = enum.auto()
    TRAILER = enum.auto()
    NOTHING = enum.auto()


class ChunkScan:
    """The state of one chunked body."""

    __slots__ = (
        "_clean",
        "_expect",
        "_extensions",
        "_given",
        "_is_ours",
        "_left",
        "_limits",
        "_line",
        "_trailer_left",
        "_trailers",
        "chunks",
        "clean",
        "failure",
        "total",
    )

    def __init__(self, limits: HttpLimits, *, is_ours: bool = False) -> None:
        """:param is_ours: whether the sender is an application. If so, any number of small chunks is accepted, and a forbidden trailer is left out instead of refused."""
        self._limits = limits
        self._is_ours = is_ours
        self._expect = _Expect.SIZE
        self._left = 0
        self._line: LineScan | None = None
        self._extensions = 0
        self._trailers = 0
        self._trailer_left = max(0, limits.max_header_size - 2)  # of the next line, without its CRLF
        self._clean: list[bytes] = []
        self._given = 0
        self.clean = b""
        """The valid bytes of the last ``scan``, as input for h11: without white space in front of extensions."""
        self.total = 0
        """Bytes of the body so far, without the framing."""
        self.chunks = 0
        self.failure: RequestError | None = None
        """What is wrong after the valid bytes. After that nothing may be scanned."""

    @property
    def between(self) -> bool:
        """Whether the next byte is the first of a chunk's line."""
        return self._expect is _Expect.SIZE and self._line is None

    @property
    def left(self) -> int:
        """Bytes of the current chunk's body that have not come."""
        return self._left

    @property
    def complete(self) -> bool:
        """Whether the body is complete: the CRLF that ends the trailer has arrived."""
        return self._expect is _Expect.NOTHING

    def scan(self, data: bytes) -> int:
        """How many bytes of ``data`` are valid and belong to this body. Fewer than all if the body ends there, or
        there is a ``failure``.
        """
        at, end = 0, len(data)
        good = self._given = 0
        try:
            while at < end:
                match self._expect:
                    case _Expect.SIZE:
                        at = self._size(data, at)
                    case _Expect.DATA:
                        step = min(self._left, end - at)
                        self._left -= step
                        self.total += step
                        at += step
                        if not self._left:
                            self._expect = _Expect.DATA_CR
                    case _Expect.DATA_CR:
                        # The pair in one comparison where both bytes are there.
                        if data.startswith(b"\r\n", at):
                            at += 2
                            self._expect = _Expect.SIZE
                        elif data[at] == 0x0D and at + 1 == end:
                            at += 1
                            self._expect = _Expect.DATA_LF
                        else:
                            raise refuse("bad_chunk_end")
                    case _Expect.DATA_LF:
                        if data[at] != 0x0A:
                            raise refuse("bad_chunk_end")
                        at += 1
                        self._expect = _Expect.SIZE
                    case _Expect.TRAILER:
                        at = self._trailer(data, at)
                    case _Expect.NOTHING:
                        break
                good = at
        except RequestError as error:
            self.failure = error
        rest = data[self._given : good]
        if self._clean:
            self.clean = b"".join((*self._clean, rest))
            self._clean.clear()
        else:
            self.clean = rest
        return good

    def _size(self, data: bytes, at: int) -> int:
        plain = _PLAIN_LINE.match(data, at) if self._line is None else None
        if plain is not None:
            at = plain.end()
            size = int(plain[1], 16)
        else:
            self._give_until(data, at)
            line, at = self._next_line(data, at, MAX_SIZE_DIGITS + MAX_EXTENSION, "chunk_line_too_long")
            self._given = at  # not before it is whole, and right
            if line is None:
                return at
            digits = _SIZE.match(line)
            if digits is None:
                raise refuse("bad_chunk_size")
            behind = line[digits.end() :].lstrip(b" \t")
            if behind[:1] != b";" and (behind or len(line) > digits.end()):
                raise refuse("bad_chunk_size")
            extension = len(line) - digits.end()
            if extension > MAX_EXTENSION:
                raise refuse("chunk_line_too_long")
            if not _EXTENSIONS.fullmatch(line, digits.end()):
                raise refuse("bad_chunk_extension")
            self._extensions += extension
            if self._extensions > MAX_EXTENSIONS:
                raise refuse("chunk_extensions_too_large")
            size = int(digits[0], 16)
            self._clean.append(digits[0] + behind + b"\r\n")
        if not size:
            self._expect = _Expect.TRAILER
            return at
        self.chunks += 1
        most = self._limits.max_request_body
        if most and self.total + size > most:
            raise refuse("body_too_large")
        if (
            not self._is_ours
            and self.chunks > FREE_CHUNKS
            and self.total < (self.chunks - FREE_CHUNKS) * MIN_MEAN_CHUNK
        ):
            raise refuse("tiny_chunks")
        self._left = size
        self._expect = _Expect.DATA
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        limits = self._limits
        if self._is_ours:
            self._give_until(data, at)
        if self._trailer_left < limits.max_header_field_size:
            line, at = self._next_line(data, at, self._trailer_left, "headers_too_large")
        else:
            line, at = self._next_line(data, at, limits.max_header_field_size, "field_too_large")
        if self._is_ours:
            self._given = at
        if line is None:
            return at
        if not line:
            self._expect = _Expect.NOTHING
            if self._is_ours:
                self._clean.append(b"\r\n")
            return at
        self._trailers += 1
        if self._trailers > limits.max_header_fields:
            raise refuse("too_many_fields")
        self._trailer_left = max(0, self._trailer_left - len(line) - 2)
        name = read_field(line)[0].lower()
        if self._is_ours:
            if may_trail(name):
                self._clean.append(line + b"\r\n")
        elif not may_trail(name):
            raise refuse("forbidden_trailer")
        return at

    def _give_until(self, data: bytes, at: int) -> None:
        """Give out the bytes before ``at`` unchanged, once, even if the bytes behind them are refused."""
        if self._given < at:
            self._clean.append(data[self._given : at])
            self._given = at

    def _next_line(self, data: bytes, at: int, limit: int, too_long: str) -> tuple[bytes | None, int]:
        """(A line, the position of the byte after it). The line may have begun in earlier data. Copies at most one line."""
        scan = self._line
        if scan is None:
            scan = self._line = LineScan()
        newline = data.find(b"\n", at, at + limit + 2)
        stop = newline + 1 if newline >= 0 else min(len(data), at + limit + 2)
        scan.feed(data[at:stop])
        line = scan.next_line(limit, too_long)
        if line is not None:
            self._line = None
        return line, stop
