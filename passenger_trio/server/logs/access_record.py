"""The facts of one finished request, from which each format of the access log makes its line.

``exchange_record`` makes the record of a finished request, ``refusal_record`` that of a request that was refused before it had a route. ``access_format``
and ``format_string`` write records as lines. To add a field, name it and fill it here, and write it there. Records are public (``extensions``): an embedding
program may get each one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from passenger_trio.codecs.strict_request import Known
from passenger_trio.codecs.trace_context import read_traceparent
from passenger_trio.errors import RequestError
from passenger_trio.server.http.exchange import Exchange

__all__ = ["AccessRecord", "exchange_record", "refusal_record"]


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
    """The fields of the request, as received."""
    proxy_time: float = 0.0
    """Seconds that the request has waited before it reached this server, as a trusted proxy says (``X-Request-Start``)."""
    traceparent: bytes = b""
    """The field as the application got it. Unless tracing is on, it was not checked."""

    @property
    def trace(self) -> tuple[str, str]:
        """The ids of the trace, and of the parent of the application's spans; empty: the request has none."""
        found = read_traceparent(self.traceparent) if self.traceparent else None
        return ("", "") if found is None else (found.trace_id, found.span_id)


def exchange_record(exchange: Exchange, peer: str, now: float) -> AccessRecord:
    """The record of a finished exchange.

    :param peer: the address of the connection's other end.
    :param now: monotonic, in seconds.
    """
    head = exchange.head
    referer, agent, traceparent = _told_by(head.fields)
    duration = now - exchange.started
    return AccessRecord(
        exchange.client(peer),
        time.time() - duration,
        head.method,
        head.target,
        head.version,
        exchange.status,
        exchange.bytes_sent,
        referer,
        agent,
        duration,
        exchange.queue_time,
        exchange.pid,
        exchange.route.group_name,
        exchange.request_id,
        exchange.retried,
        exchange.spilled,
        exchange.relay.bytes_up if exchange.relay is not None else 0,
        "",
        b"",
        exchange.app_time,
        head.fields,
        exchange.proxy_time,
        exchange.traceparent or traceparent,
    )


def refusal_record(known: Known, client: str, error: RequestError, size: int, since: float, now: float) -> AccessRecord:
    """The record of a refused request, with the known fields (ED14).

    :param size: of the response body.
    :param since: when the request's first byte arrived, in monotonic seconds.
    """
    referer, agent, _ = _told_by(known.fields)
    host = next((value for name, value in known.fields if name.lower() == b"host"), b"")
    return AccessRecord(
        client,
        time.time() - (now - since),
        known.method,
        known.target,
        known.version or b"?",
        error.status,
        size,
        referer,
        agent,
        now - since,
        0.0,
        0,
        "",
        b"",
        refusal=error.code,
        host=host,
        fields=known.fields,
    )


def _told_by(fields: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes]:
    """Referer, User-Agent and traceparent."""
    referer = agent = traceparent = b""
    for name, value in fields:
        length = len(name)
        if length == 10 and name.lower() == b"user-agent":
            agent = value
        elif length == 7 and name.lower() == b"referer":
            referer = value
        elif length == 11 and name.lower() == b"traceparent":
            traceparent = value
    return referer, agent, traceparent
