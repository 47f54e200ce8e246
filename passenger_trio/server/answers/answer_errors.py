"""Errors to responses: what a client is told when its request is refused, no process can be had, or the application fails.

Law (R26): in production a client sees a status, a sentence of ours and an id that is also in the log; nothing of the exception. An error of the wire
ends the connection; an error of the pool or the application does not have to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from passenger_trio.codecs.forwarded import read_origin
from passenger_trio.errors import (
    ApplicationRaised,
    AppResponseError,
    CheckoutError,
    PoolShutDown,
    RequestError,
    SpawnError,
)
from passenger_trio.server.answers.error_page import (
    Page,
    Rejected,
    application_error_page,
    plain_error,
    spawn_failure_page,
)
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.logs.access_log import AccessRecord

if TYPE_CHECKING:
    from passenger_trio.server.http.connection import Connection

__all__ = ["CLIENT_CLOSED", "access_record", "answer", "refusal", "refusal_record"]

CLIENT_CLOSED = 499
"""In the access log: the client was gone before there was a response."""

_log = logging.getLogger("passenger_trio.server")


async def answer(connection: Connection, exchange: Exchange, error: CheckoutError | AppResponseError) -> None:
    """Send the response for an error that is not the client's.

    :raises ClientGone: the client's connection broke.
    """
    page = _page(connection, exchange, error, _field(exchange, b"accept"))
    status = error.status
    fields = [
        (b"Content-Type", page.content_type),
        (b"X-Request-Id", exchange.request_id),
        (b"Cache-Control", b"no-store"),
    ]
    if isinstance(error, CheckoutError) and error.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % error.retry_after))
    exchange.status = status
    exchange.response_begun = True
    close = connection.ends_after_response or isinstance(error, PoolShutDown)
    data = connection.codec.whole_response(
        status, _reason(status), fields, page.body, date=connection.front.date(), close=close
    )
    await connection.send(data)
    exchange.bytes_sent = len(page.body) if exchange.head.method != b"HEAD" else 0


def _page(connection: Connection, exchange: Exchange, error: CheckoutError | AppResponseError, accept: bytes) -> Page:
    explain = exchange.route.explains_errors
    id = exchange.request_id.decode()
    group = exchange.route.group_name
    rejected = _rejected(connection, exchange) if explain else None
    if isinstance(error, SpawnError):
        # The failure was logged when it happened, under its own id.
        return spawn_failure_page(
            error.failure, explain=explain, accept=accept, retry_after=error.retry_after, rejected=rejected
        )
    if isinstance(error, ApplicationRaised):
        # The traceback is in the application's output; this line joins it with the page's id.
        _log.error("%s raised %s: %s [request %s] [pid %d]", group, error.name, error.message, id, exchange.pid)
        return application_error_page(
            id, error.name, error.message, error.traceback, explain=explain, accept=accept, rejected=rejected
        )
    if isinstance(error, AppResponseError):
        _log.error("%s: %s [request %s] [pid %d]", group, error, id, exchange.pid)
        return plain_error(
            error.status, error_id=id, accept=accept, text=f"{error}." if explain else "", rejected=rejected
        )
    _log.warning("%s: %s [request %s]", group, error, id)
    return plain_error(error.status, error_id=id, accept=accept, rejected=rejected)


def _rejected(connection: Connection, exchange: Exchange) -> Rejected | None:
    """The newer version of the application that did not start, if that is how things are."""
    rejection = connection.front.pool.rejection(exchange.route.key)
    if rejection is None or not rejection.kept:
        return None
    return Rejected(rejection.failure, connection.now() - rejection.at)


def refusal(connection: Connection, error: RequestError) -> tuple[bytes, int]:
    """The connection's last response: the request is refused; ``b""`` when a response has begun already. And how much of it is body."""
    page = plain_error(error.status, text=error.text)
    fields = [(b"Content-Type", page.content_type), *error.headers]
    data = connection.codec.error_response(
        error.status, _reason(error.status), fields, page.body, connection.front.date()
    )
    return data, len(data.partition(b"\r\n\r\n")[2])


def _reason(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()


def _field(exchange: Exchange, name: bytes) -> bytes:
    """The value of a request field, or ``b""``."""
    return next((value for key, value in exchange.head.fields if key.lower() == name), b"")


def access_record(connection: Connection, exchange: Exchange, now: float) -> AccessRecord:
    """What the access log keeps of an exchange that is over. ``now`` is monotonic."""
    head = exchange.head
    referer, agent = _from_and_by(head.fields)
    duration = now - exchange.started
    return AccessRecord(
        exchange.client(connection.remote),
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
    )


def refusal_record(connection: Connection, error: RequestError, size: int, since: float, now: float) -> AccessRecord:
    """The same of a request that was refused before it was anybody's: what is known of it (ED14).

    :param size: of the body that it was answered with. :param since: when its first byte came, in monotonic seconds.
    """
    known = connection.codec.known
    referer, agent = _from_and_by(known.fields)
    host = next((value for name, value in known.fields if name.lower() == b"host"), b"")
    origin = read_origin(known.fields, connection.front.trusts) if connection.trusted else None
    return AccessRecord(
        (origin.client if origin is not None else "") or connection.remote,
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
    )


def _from_and_by(fields: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Referer and User-Agent."""
    referer = agent = b""
    for name, value in fields:
        length = len(name)
        if length == 10 and name.lower() == b"user-agent":
            agent = value
        elif length == 7 and name.lower() == b"referer":
            referer = value
    return referer, agent
