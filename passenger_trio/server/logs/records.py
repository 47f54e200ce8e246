"""Makes access log records: of a finished request, and of a request that was refused before it had a route.

To add a field to the log, name it in ``access_record.AccessRecord``, fill it here, and write it in ``access_format``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from passenger_trio.codecs.edge import Known
from passenger_trio.errors import RequestError
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.logs.access_record import AccessRecord

__all__ = ["exchange_record", "refusal_record"]


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
