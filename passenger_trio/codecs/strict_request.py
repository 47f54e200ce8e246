"""The strict check of a request head, in front of h11 (R1 to R14, R19, R20).

h11 frames correctly what it accepts, but it accepts more than is safe behind or in front of another server:
bare LF, folded lines, two equal lengths, a length beside a transfer coding, any version, any Host. Two servers
can read such a request in two ways. So each head is checked first, line by line as it arrives (``HeadScan``),
then as a whole (``check_head``). Only then does h11 see it.

Tables first: they say what a request may be, and the functions below apply them.
"""

from __future__ import annotations

import re

import attrs

from passenger_trio.codecs.head import Head, HttpLimits
from passenger_trio.codecs.hosts import valid_host
from passenger_trio.codecs.lines import TOKEN, LineScan, read_field
from passenger_trio.codecs.refusals import refuse
from passenger_trio.late_classes import frozen

__all__ = ["SINGLETONS", "HeadScan", "Known", "check_head", "spoken_version"]

#: Fields that mean nothing good when they come twice (R10).
SINGLETONS = frozenset(
    (
        b"host",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"authorization",
        b"expect",
        b"sec-websocket-key",
        b"sec-websocket-version",
    )
)

#: Protocols that a connection can be upgraded to. A request for any other is ignored (R19).
KNOWN_UPGRADES = frozenset((b"websocket",))

_VERSION = re.compile(rb"HTTP/([0-9]\.[0-9])")
_TARGET = re.compile(rb'[!"$-~]+')  # visible ASCII, no fragment
_ABSOLUTE = re.compile(rb"(?i:https?://)([^/?]*)(/[^?]*)?(?:\?(.*))?")
_LONGEST_KNOWN = 1024
"""The most bytes of an incomplete or invalid request line that go to the log."""
_LENGTH = re.compile(rb"[0-9]{1,19}")


@frozen
class Known:
    """The known parts of a request that failed, for the log. They were not checked."""

    method: bytes = b""
    target: bytes = b""
    version: bytes = b""
    fields: list[tuple[bytes, bytes]] = attrs.field(factory=list)


class HeadScan:
    """Reads one head in pieces. After ``feed`` said True, ``head`` is checked and ``raw`` and ``rest`` hold
    the bytes.
    """

    __slots__ = ("_left", "_limits", "_lines", "fields", "head", "raw", "request_line", "rest")

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._lines = LineScan()
        self._left = max(0, limits.max_header_size - 2)  # of the next line, without its CRLF
        self.request_line: tuple[bytes, bytes, bytes] | None = None
        self.fields: list[tuple[bytes, bytes]] = []
        self.head: Head | None = None
        self.raw = self.rest = b""

    def __len__(self) -> int:
        return len(self._lines.buffer)

    def known(self) -> Known:
        """The known parts of a head that is refused, or late."""
        if self.request_line is not None:
            return Known(*self.request_line, self.fields)
        line = re.split(rb"[\r\n]", bytes(self._lines.buffer[:_LONGEST_KNOWN]), maxsplit=1)[0]
        method, _, rest = line.partition(b" ")
        target, _, protocol = rest.partition(b" ")
        if not TOKEN.fullmatch(method):
            return Known()
        version = _VERSION.fullmatch(protocol)
        return Known(method, target, version[1] if version is not None else b"")

    @property
    def asks_for_head(self) -> bool:
        """Whether the method is HEAD, as far as bytes have arrived. Then even a refusal has no body."""
        return self._lines.buffer.startswith(b"HEAD ")

    def feed(self, data: bytes) -> bool:
        """Look at more bytes; True when the head is complete. No byte is looked at twice.

        :raises RequestError: at the first byte that makes the head wrong (R1 to R14, R19, R20).
        """
        lines, limits = self._lines, self._limits
        lines.feed(data)
        if self.request_line is None:
            line = lines.next_line(limits.max_request_line, "request_line_too_long")
            if line is None:
                return False
            self.request_line = read_request_line(line, limits.methods)
        while True:
            if self._left < limits.max_header_field_size:
                line = lines.next_line(self._left, "headers_too_large")
            else:
                line = lines.next_line(limits.max_header_field_size, "field_too_large")
            if line is None:
                return False
            if not line:
                break
            if len(self.fields) == limits.max_header_fields:
                raise refuse("too_many_fields")
            self._left = max(0, self._left - len(line) - 2)
            self.fields.append(read_field(line))
        self.head = check_head(*self.request_line, self.fields, limits)
        self.raw, self.rest = bytes(lines.buffer[: lines.start]), bytes(lines.buffer[lines.start :])
        return True


def spoken_version(version: bytes) -> bytes:
    """The version of the response for a client of this version: for a later minor version, our latest one (RFC 9110 2.5)."""
    return b"1.0" if version == b"1.0" else b"1.1"


def read_request_line(line: bytes, methods: frozenset[bytes] = frozenset()) -> tuple[bytes, bytes, bytes]:
    """Method, target and the version to use.

    :param methods: the methods that are served; empty: all (RFC 9110 16.1) except CONNECT.
    :raises RequestError: R2, R3, R4; RFC 9112 3. The version comes first: the preface of HTTP/2 gets 505.
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        raise refuse("bad_request_line")
    method, target, protocol = parts
    version = _VERSION.fullmatch(protocol)
    if version is None:
        raise refuse("bad_version")
    if version[1][:1] != b"1":
        raise refuse("version_not_supported")
    if not TOKEN.fullmatch(method):
        raise refuse("bad_method")
    if method == b"CONNECT":
        raise refuse("connect_refused")
    if methods and method not in methods:
        raise refuse("unknown_method")
    if not _TARGET.fullmatch(target):
        raise refuse("bad_target")
    return method, target, spoken_version(version[1])


def check_head(
    method: bytes, target: bytes, version: bytes, fields: list[tuple[bytes, bytes]], limits: HttpLimits
) -> Head:
    """Check the lines together, and make the head.

    :raises RequestError: R3, R5, R10, R12, R13, R14, R19, R20.
    """
    once: dict[bytes, bytes] = {}
    lists: dict[bytes, list[bytes]] = {b"connection": [], b"upgrade": []}
    for name, value in fields:
        lower = name.lower()
        if lower in SINGLETONS:
            if lower in once:
                raise refuse("duplicate_field")
            once[lower] = value
        elif lower in lists:
            lists[lower] += [word.strip(b" \t") for word in value.lower().split(b",")]
    path, query, host = read_target(method, target, once.get(b"host"), version)
    length, chunked = read_framing(version, once, limits)
    expectation = once.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        raise refuse("unknown_expectation")
    connection = lists[b"connection"]
    upgrade = b""
    if b"upgrade" in connection and version == b"1.1":
        upgrade = next((word for word in lists[b"upgrade"] if word in KNOWN_UPGRADES), b"")
    if upgrade:
        if chunked or length:
            raise refuse("upgrade_with_body")
        if method != b"GET":
            upgrade = b""
        elif once.get(b"sec-websocket-version") != b"13":
            raise refuse("websocket_version")
    return Head(
        method,
        target,
        path,
        query,
        version,
        host,
        fields,
        content_length=length,
        chunked=chunked,
        # HTTP/1.0 has no interim responses: the expectation is ignored there (RFC 9110 10.1.1).
        expect_continue=expectation is not None and version == b"1.1",
        keep_alive=version == b"1.1" and b"close" not in connection,
        upgrade=upgrade,
    )


def read_target(method: bytes, target: bytes, host: bytes | None, version: bytes) -> tuple[bytes, bytes, bytes]:
    """Path, query and authority of a target whose bytes were checked. An empty Host counts as missing (RFC 9112 3.2, 3.3).

    :raises RequestError: R3, R5; RFC 9112 3.2.
    """
    if host is None:
        if version == b"1.1":
            raise refuse("missing_host")
    elif host and not valid_host(host):
        raise refuse("bad_host")
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
        return path, query, host or b""
    if target == b"*":
        if method != b"OPTIONS":
            raise refuse("bad_target")
        return b"*", b"", host or b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not valid_host(absolute[1]):
        raise refuse("bad_target")
    # The Host field is ignored then (RFC 9112 3.2.2).
    authority, maybe_path, maybe_query = absolute.groups()
    if maybe_path is None and maybe_query is None and method == b"OPTIONS":
        return b"*", b"", authority  # RFC 9112 3.2.4
    return maybe_path or b"/", maybe_query or b"", authority


def read_framing(version: bytes, once: dict[bytes, bytes], limits: HttpLimits) -> tuple[int | None, bool]:
    """Content length, and whether the body comes in chunks.

    :raises RequestError: R12, R13, R14; RFC 9112 6.
    """
    length, coding = once.get(b"content-length"), once.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise refuse("length_and_encoding")
        if version == b"1.0":
            raise refuse("transfer_encoding_in_1_0")
        # bytes.lower() knows ASCII only, so no other letter can become one of ours.
        if coding.lower() != b"chunked":
            raise refuse(_wrong_coding(coding))
        return None, True
    if length is None:
        return None, False
    if not _LENGTH.fullmatch(length):
        raise refuse("bad_content_length")
    number = int(length)
    if limits.max_request_body and number > limits.max_request_body:
        raise refuse("body_too_large")
    return number, False


def _wrong_coding(value: bytes) -> str:
    """A list of tokens with ``chunked`` nowhere but at its end names a coding that we lack (501); the rest is
    malformed.
    """
    codings = [word.strip(b" \t").lower() for word in value.split(b",")]
    if all(TOKEN.fullmatch(word) for word in codings) and b"chunked" not in codings[:-1]:
        return "unknown_transfer_coding"
    return "bad_transfer_encoding"
