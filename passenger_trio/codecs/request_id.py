"""A request's id (``X-Request-ID``) and when it was first seen (``X-Request-Start``), as the application gets them (OB4).

A trusted proxy has seen the request before the server. Its id and start are passed on, if they can be read. Those of any other client are
dropped: the application would measure its queue by them, and find another client's request under the id. The server makes what is missing.

``id_pairs`` are the CGI pairs (name and value, each ends with NUL) that the server sets for one request: first the id, then the start.
``server/tracing`` may append the position in a trace. They replace the client's fields of the same names (``cgi_fields``).

This module knows bytes and seconds. It reads no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from passenger_trio.late_classes import frozen

__all__ = ["NO_REQUEST_ID", "RequestId", "make_id_pairs", "proxy_time", "read_request_id", "request_id_of"]

_SANE_ID = re.compile(rb"[A-Za-z0-9_.:/+=@-]{1,128}")
_START = re.compile(rb"(?:t=)?([0-9]{9,19}(?:\.[0-9]{1,9})?)")
_SCALES = (1.0, 1e3, 1e6, 1e9)
"""Units of a start as parts of a second. nginx and kamal-proxy write seconds or milliseconds, Apache microseconds; the value never names its unit."""
_EARLIEST, _LATEST = 946_684_800.0, 4_102_444_800.0
"""The years 2000 and 2100. For any number, at most one unit gives a time between them."""
_LONGEST_WAIT = 3600.0
"""Seconds. A longer wait shows that the proxy's clock differs."""

_ID_AT = len(b"HTTP_X_REQUEST_ID\0")
_NAMES = {12: b"x-request-id", 15: b"x-request-start"}


@frozen
class RequestId:
    """The values of the fields.

    :ivar request_id: ``b""``: no usable id.
    :ivar start: as received; ``b""``: no readable start.
    :ivar started: the start in seconds since 1970; 0: unknown.
    """

    request_id: bytes = b""
    start: bytes = b""
    started: float = 0.0


NO_REQUEST_ID = RequestId()


def read_request_id(fields: Sequence[tuple[bytes, bytes]]) -> RequestId:
    """Read the fields of a trusted peer. A field that occurs twice is ignored."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        wanted = _NAMES.get(len(name))
        if wanted is not None and (lower := name.lower()) == wanted:
            found[lower] = b"" if lower in found else value
    if not found:
        return NO_REQUEST_ID
    id, start = found.get(b"x-request-id", b""), found.get(b"x-request-start", b"")
    started = _seconds(start)
    return RequestId(id if _SANE_ID.fullmatch(id) else b"", start if started else b"", started)


def _seconds(start: bytes) -> float:
    match = _START.fullmatch(start)
    if match is not None:
        for scale in _SCALES:
            if _EARLIEST <= (seconds := float(match[1]) / scale) < _LATEST:
                return seconds
    return 0.0


def proxy_time(said: RequestId, now: float) -> float:
    """Seconds that the request has waited before it reached this server; 0: unknown, or the proxy's clock differs.

    :param now: seconds since 1970.
    """
    waited = now - said.started
    return waited if 0.0 < waited < _LONGEST_WAIT else 0.0


def make_id_pairs(request_id: bytes, start: bytes) -> bytes:
    """The pairs of a request. :param start: the value of ``X-Request-Start``; ``b""``: left out (a request of the server itself)."""
    if not start:
        return b"HTTP_X_REQUEST_ID\0%b\0" % request_id
    return b"HTTP_X_REQUEST_ID\0%b\0HTTP_X_REQUEST_START\0%b\0" % (request_id, start)


def request_id_of(id_pairs: bytes) -> bytes:
    """The id in a request's pairs."""
    return id_pairs[_ID_AT : id_pairs.index(0, _ID_AT)]
