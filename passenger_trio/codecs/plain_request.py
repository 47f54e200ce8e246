"""The plain-request parser: makes a ``Head`` of a request that can be read in one way only.

It returns the ``Head`` that the strict check and h11 would make of the same bytes, or None; it refuses
nothing. So it accepts a subset of their language. A differential test and a fuzz target check that
(``tests/codecs/test_plain_request_equals_h11.py``, ``fuzz/client_head.py``). When in doubt, leave a feature
out: the strict check handles it, only slower. This is a second reader on purpose; it shares only the syntax of
a host with the strict check.

Two regular expressions define the language: one for the request line, one for a field line. Their repeats are
possessive, so each byte is looked at once. Clients send the same field lines again and again, so parsed lines
are cached, up to a bound; a cached line costs one dict lookup. Lines with secrets are never cached there. Most
requests of one connection have identical field lines: the connection keeps the last ones (``HeaderCache``) and
compares them as a whole.
"""

from __future__ import annotations

import re

from passenger_trio.codecs.head import Head, HeaderCache, HttpLimits
from passenger_trio.codecs.hosts import valid_host
from passenger_trio.codecs.patterns import compiled

__all__ = ["parse_plain_request"]

_REQUEST_LINE = compiled(
    rb"(GET|POST|HEAD|PUT|DELETE|PATCH|OPTIONS|PROPFIND|REPORT|QUERY)"
    rb" ((/[!\"$->@-~]*+)(?:\?([!\"$-~]*+))?+)"
    rb" HTTP/1\.1\r\n"
)
_FIELD_LINE = compiled(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):([\t -~\x80-\xff]*+)")
_LENGTH = re.compile(rb"[0-9]{1,19}")

# What a field does to the request. Each kind that is not PLAIN may occur once; as bits, so that one integer
# knows which have.
_PLAIN, _HOST, _LENGTH_FIELD, _CONNECTION = 0, 1, 2, 4
_KINDS = {
    b"host": _HOST,
    b"content-length": _LENGTH_FIELD,
    b"connection": _CONNECTION,
    b"content-type": 8,
    b"authorization": 16,
    b"sec-websocket-key": 32,
    b"sec-websocket-version": 64,
}
_NOT_HERE = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"))
_SECRET = frozenset(b"cookie authorization proxy-authorization x-api-key x-auth-token x-csrf-token".split())

_Entry = tuple[int, tuple[bytes, bytes]]
_KNOWN_LINES: dict[bytes, _Entry] = {}
_MOST_KNOWN_LINES = 4096
_LONGEST_KNOWN_LINE = 255


def parse_plain_request(data: bytes, limits: HttpLimits, last: HeaderCache | None = None) -> tuple[Head, int] | None:
    """The head at the start of ``data`` and its length in bytes, or None if it is not complete or not plain.

    Plain is: a common method, origin-form, HTTP/1.1, CRLF, token names, no control character, one valid Host,
    no field that may occur once twice, ``Connection`` only as ``keep-alive`` or ``close``, a body only by a
    plain Content-Length within its limit, none of Transfer-Encoding, Expect, Upgrade, TE, Trailer; and within
    all limits.

    :param last: of a request that was recognised before, under the same limits.
    """
    line = _REQUEST_LINE.match(data)
    if line is None or (limits.methods and line[1] not in limits.methods):
        return None
    start = line.end()
    if last is not None and data.startswith(last.raw, start):
        end = start + len(last.raw)
        return (_head(line, last), end) if end <= limits.plain_head else None
    end = data.find(b"\r\n\r\n", start, limits.plain_head)
    if end < 0:
        return None
    known = _KNOWN_LINES.get
    fields: list[tuple[bytes, bytes]] = []
    add = fields.append
    host = b""
    length: int | None = None
    keep_alive = True
    seen = 0
    for text in data[start:end].split(b"\r\n"):
        entry = known(text)
        if entry is None:
            entry = _read(text)
            if entry is None:
                return None
        kind, field = entry
        add(field)
        if kind:
            if seen & kind:
                return None
            seen |= kind
            if kind == _HOST:
                host = field[1]
            elif kind == _CONNECTION:
                keep_alive = len(field[1]) != 5  # "close", not "keep-alive": _read lets no other word pass
            elif kind == _LENGTH_FIELD:
                length = int(field[1])
                if limits.max_request_body and length > limits.max_request_body:
                    return None
    if not host or len(fields) > limits.max_header_fields:
        return None
    return _head(line, HeaderCache(data[start : end + 4], fields, host, length, keep_alive)), end + 4


def _head(line: re.Match[bytes], cache: HeaderCache) -> Head:
    method, target, path, query = line.groups(b"")
    return Head(
        method,
        target,
        path,
        query,
        b"1.1",
        cache.host,
        cache.fields,
        cache.content_length,
        False,
        False,
        cache.keep_alive,
        b"",
        cache,
    )


def _read(line: bytes) -> _Entry | None:
    """A field line that is not known yet."""
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        return None
    name, value = match.groups()
    value = value.strip(b" \t")
    lower = name.lower()
    if lower in _NOT_HERE:
        return None
    kind = _KINDS.get(lower, _PLAIN)
    if kind == _HOST and not valid_host(value):
        return None
    if kind == _CONNECTION and value.lower() not in (b"keep-alive", b"close"):
        return None
    if kind == _LENGTH_FIELD and not _LENGTH.fullmatch(value):
        return None
    entry = (kind, (name, value))
    if len(line) <= _LONGEST_KNOWN_LINE and lower not in _SECRET:
        if len(_KNOWN_LINES) >= _MOST_KNOWN_LINES:
            _KNOWN_LINES.clear()
        _KNOWN_LINES[line] = entry
    return entry
