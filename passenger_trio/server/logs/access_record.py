"""The facts of one finished request, from which each format of the access log makes its line.

``records`` fills an ``AccessRecord``; ``access_format`` and ``format_string`` write it. Public by ``extensions``: a program may get each record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from passenger_trio.codecs.trace_context import read_traceparent

__all__ = ["AccessRecord"]


class AccessRecord(NamedTuple):
    """The facts of a request after its response. Bytes are as the client sent them."""

    remote: str
    """The client's address; ``""`` for a client on a Unix socket."""
    time: float
    """When the request arrived: seconds since 1970."""
    method: bytes
    """``b""`` if no request could be parsed."""
    target: bytes
    version: bytes
    """``b"1.1"``"""
    status: int
    bytes_sent: int
    referer: bytes
    agent: bytes
    duration: float
    """Seconds."""
    queue_time: float
    """Seconds."""
    pid: int
    group: str
    request_id: bytes
    retried: int = 0
    spilled: int = 0
    """Bytes of the exchange that were buffered on disk."""
    received: int = 0
    """Bytes that the client sent over an upgraded connection."""
    refusal: str = ""
    """For a request that was refused before it had a route: the reason, as a word (``codecs.refusals``)."""
    host: bytes = b""
    """The host of such a request, if known."""
    app_time: float = 0.0
    """Seconds from when the process got the request until it was free."""
    fields: Sequence[tuple[bytes, bytes]] = ()
    """Of the request, as they came."""
    proxy_time: float = 0.0
    """Seconds that the request has waited in front of us, as a trusted proxy says (``X-Request-Start``)."""
    traceparent: bytes = b""
    """As the application got it; it may be anything, unless tracing is on."""

    @property
    def trace(self) -> tuple[str, str]:
        """The ids of the trace and of the span that the application's spans are below; empty: the request has none."""
        found = read_traceparent(self.traceparent) if self.traceparent else None
        return ("", "") if found is None else (found.trace_id, found.span_id)
