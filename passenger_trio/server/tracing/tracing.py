"""The position of a request in its trace, before an application gets it (``--tracing``, OB4).

=========  ====================================================================================================
``pass``   the fields of W3C Trace Context are passed on like other fields. This mode has no object here, and costs nothing
``make``   ``TraceMaker`` parses the fields strictly, drops invalid ones, and makes a trace if the request has none
``spans``  as ``make``, and makes the server's own spans through OpenTelemetry (``spans.py``)
=========  ====================================================================================================

Why ``pass`` is the default: a made ``traceparent`` decides for the application. By OpenTelemetry's own rule the
application records its spans if that flag says so, and ignores its own sampling rate. And ``make`` costs work for each
request (ARCHITECTURE.md).

Laws: the exchange's pairs contain the position at most once, and then the request's fields contain none. A made trace
says that it may be recorded: the access log records it, and without the flag most applications would record nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from passenger_trio.codecs.trace_context import TraceParent, new_traceparent, read_trace, without_trace
from passenger_trio.server.http.exchange import Exchange

__all__ = ["TraceMaker", "Tracing", "drop_trace", "trace_pairs"]


class Tracing(Protocol):
    """Handles the position of each request in its trace."""

    def begin(self, exchange: Exchange, now: float) -> None:
        """A request begins. Raises nothing. :param now: monotonic, in seconds."""


class TraceMaker:
    """``make``."""

    def __init__(self) -> None:
        self._bits = random.Random().getrandbits
        """Random bits, seeded by the system. The id of a trace is no secret."""

    def begin(self, exchange: Exchange, now: float) -> None:
        parent, _, goes_on = read_trace(exchange.head.fields)
        if parent is not None and goes_on:
            return
        if not goes_on:
            drop_trace(exchange)
        parent = parent or new_traceparent(self._bits(128), self._bits(64))
        exchange.id_pairs += trace_pairs(parent, ())
        exchange.traceparent = parent.encode()


def drop_trace(exchange: Exchange) -> None:
    """Take a position out of the fields that go on."""
    head = exchange.head
    head.fields = without_trace(head.fields)
    head.header_cache = None  # the cache was made for the fields as received


def trace_pairs(parent: TraceParent, members: Sequence[tuple[str, str]]) -> bytes:
    """A position in a trace as pairs for the application (``request_id``)."""
    pairs = b"HTTP_TRACEPARENT\0%b\0" % parent.encode()
    if members:
        pairs += b"HTTP_TRACESTATE\0%b\0" % ",".join(f"{key}={value}" for key, value in members).encode("ascii")
    return pairs
