"""The marks of a request: its id (``X-Request-ID``) and when it was first seen (``X-Request-Start``), as the application gets them (OB4).

A proxy that is trusted has seen the request before us: what it says goes on, if it can be read. What anybody else says is dropped, for an
application would measure its queue by it, and find another client's request under it. What is missing is made by the server.

``own`` are the pairs of a request that we answer for. The id is the first of them, then comes the start; of tracing, what was made may follow
(``server/tracing``). They take the place of the client's in what the application is sent (``cgi_fields``).

Knows bytes and seconds. Reads no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

__all__ = ["NO_MARKS", "Marks", "own_pairs", "proxy_time", "read_marks", "request_id_of"]

_SANE_ID = re.compile(rb"[A-Za-z0-9_.:/+=@-]{1,128}")
_START = re.compile(rb"(?:t=)?([0-9]{9,19}(?:\.[0-9]{1,9})?)")
_SCALES = (1.0, 1e3, 1e6, 1e9)
"""nginx and kamal-proxy write seconds or milliseconds, Apache microseconds; nobody writes the unit."""
_EARLIEST, _LATEST = 946_684_800.0, 4_102_444_800.0
"""The years 2000 and 2100: of the units of a number, at most one puts it between them."""
_LONGEST_WAIT = 3600.0
"""Seconds. More than that is another clock, and no queue."""

_ID_AT = len(b"HTTP_X_REQUEST_ID\0")
_NAMES = {12: b"x-request-id", 15: b"x-request-start"}


@attrs.frozen
class Marks:
    """What the fields say.

    :ivar request_id: ``b""``: nothing sane.
    :ivar start: as it came; ``b""``: nothing that can be read.
    :ivar started: the same in seconds since 1970; 0: unknown.
    """

    request_id: bytes = b""
    start: bytes = b""
    started: float = 0.0


NO_MARKS = Marks()


def read_marks(fields: Sequence[tuple[bytes, bytes]]) -> Marks:
    """What the fields of a trusted peer say. A field that occurs twice says nothing."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        wanted = _NAMES.get(len(name))
        if wanted is not None and (lower := name.lower()) == wanted:
            found[lower] = b"" if lower in found else value
    if not found:
        return NO_MARKS
    id, start = found.get(b"x-request-id", b""), found.get(b"x-request-start", b"")
    started = _seconds(start)
    return Marks(id if _SANE_ID.fullmatch(id) else b"", start if started else b"", started)


def _seconds(start: bytes) -> float:
    match = _START.fullmatch(start)
    if match is not None:
        for scale in _SCALES:
            if _EARLIEST <= (seconds := float(match[1]) / scale) < _LATEST:
                return seconds
    return 0.0


def proxy_time(marks: Marks, now: float) -> float:
    """Seconds that the request has waited in front of us; 0 where that is unknown, or the proxy's clock is not ours.

    :param now: seconds since 1970.
    """
    waited = now - marks.started
    return waited if 0.0 < waited < _LONGEST_WAIT else 0.0


def own_pairs(request_id: bytes, start: bytes) -> bytes:
    """:param start: for ``X-Request-Start``; ``b""``: it is not told (a request of the server's own)."""
    if not start:
        return b"HTTP_X_REQUEST_ID\0%b\0" % request_id
    return b"HTTP_X_REQUEST_ID\0%b\0HTTP_X_REQUEST_START\0%b\0" % (request_id, start)


def request_id_of(own: bytes) -> bytes:
    """The id in a request's own pairs."""
    return own[_ID_AT : own.index(0, _ID_AT)]
