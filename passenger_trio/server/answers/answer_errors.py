"""Turns errors into responses: a request is refused, no process is available, or the application
fails.

Law (R26): in production a client sees a status, a sentence of ours and an id that is also in the
log, and nothing of the exception. A protocol error ends the connection; an error of the pool or the
application need not.
"""

from __future__ import annotations

from http import HTTPStatus

from passenger_trio.errors import (
    ApplicationRaised,
    AppResponseError,
    CheckoutError,
    IncompleteResponse,
    PoolShutDown,
    ProcessUnreachable,
    RequestError,
    RequestTimeExceeded,
    SpawnError,
)
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.answers.custom_page import FailedRequest
from passenger_trio.server.answers.error_page import (
    Page,
    Rejected,
    application_error_page,
    plain_error,
    spawn_failure_page,
)
from passenger_trio.server.answers.explained_page import Failed, OtherRequest, explained_page
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange

__all__ = ["CLIENT_CLOSED", "answer", "at_stop", "refusal"]

CLIENT_CLOSED = 499
"""In the access log: the client closed the connection before there was a response. What the server ends itself has the status that it sent."""


async def answer(client: Client, exchange: Exchange, error: CheckoutError | AppResponseError) -> None:
    """Send the response for an error that the client did not cause.

    :raises ClientGone: the client's connection broke.
    """
    accept = _field(exchange, b"accept")
    usual = await _page(client, exchange, error, accept)
    page = _own_page(client, exchange, error, accept) or usual
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
    close = client.ends_after_response or isinstance(error, PoolShutDown)
    data = client.codec.write_response(
        status, _reason(status), fields, page.body, date=client.front.date(), close=close
    )
    await client.send(data)
    exchange.bytes_sent = len(page.body) if exchange.head.method != b"HEAD" else 0


async def _page(client: Client, exchange: Exchange, error: CheckoutError | AppResponseError, accept: bytes) -> Page:
    explain = exchange.route.explains_errors
    id = exchange.request_id.decode()
    group = exchange.route.group_name
    rejected = _rejected(client, exchange) if explain else None
    if isinstance(error, SpawnError):
        # The failure was already logged, under its own id.
        return spawn_failure_page(
            error.failure, explain=explain, accept=accept, retry_after=error.retry_after, rejected=rejected
        )
    if isinstance(error, ApplicationRaised):
        # The application's output has the traceback; this line connects it with the page's id.
        lines.application_raised(
            group=group,
            exception=error.name,
            reason=error.message,
            request_id=id,
            pid=exchange.pid,
            status=error.status,
            code=error.code,
        )
        return application_error_page(
            id, error.name, error.message, error.traceback, explain=explain, accept=accept, rejected=rejected
        )
    if isinstance(error, AppResponseError):
        lines.response_failed(
            group=group,
            reason=str(error),
            request_id=id,
            pid=exchange.pid or None,
            status=error.status,
            code=error.code,
        )
    else:
        lines.request_refused(group=group, reason=str(error), request_id=id, status=error.status, code=error.code)
    if not explain:
        return plain_error(error.status, error_id=id, accept=accept)
    return explained_page(await _failed(client, exchange, error, rejected), accept)


def _own_page(
    client: Client, exchange: Exchange, error: CheckoutError | AppResponseError, accept: bytes
) -> Page | None:
    """The embedding program's page, if it has one."""
    own_page = client.front.error_page
    page: Page | None = None
    if own_page is not None:
        with client.front.kernel.contain("error_page", "the usual page is sent"):
            page = own_page(
                FailedRequest(
                    error.status,
                    exchange.request_id.decode(),
                    error.code,
                    exchange.route.group_name,
                    exchange.head.path.decode("latin-1"),
                    accept.decode("latin-1"),
                    error.failure if isinstance(error, SpawnError) else None,
                )
            )
    return page


async def _failed(
    client: Client, exchange: Exchange, error: CheckoutError | AppResponseError, rejected: Rejected | None
) -> Failed:
    """Everything that is known of the failed request. Waits a moment for the exit status of a dying process."""
    route = exchange.route
    pid = exchange.pid if isinstance(error, AppResponseError) else 0
    ends = isinstance(error, IncompleteResponse | ProcessUnreachable | RequestTimeExceeded)
    evidence = await client.front.pool.evidence(route.key, pid, ends=ends)
    now = client.current_time()
    others = [
        OtherRequest(
            one.head.method.decode("latin-1"),
            one.head.path.decode("latin-1"),
            connection.stage.value.removesuffix(" (slow path)"),
            now - one.started,
            one.pid,
        )
        for connection in client.front.connections
        if (one := connection.exchange) is not None and one is not exchange and one.route is route
    ]
    others.sort(key=lambda one: -one.age)
    return Failed(
        error.status,
        exchange.request_id.decode(),
        error.code,
        str(error),
        pid,
        error.retry_after if isinstance(error, CheckoutError) else None,
        evidence,
        others,
        rejected,
    )


def _rejected(client: Client, exchange: Exchange) -> Rejected | None:
    """The newer version of the application that failed to start, if the older one still serves."""
    rejection = client.front.pool.rejection(exchange.route.key)
    if rejection is None or not rejection.kept:
        return None
    return Rejected(rejection.failure, client.current_time() - rejection.at)


def refusal(client: Client, error: RequestError) -> tuple[bytes, int]:
    """The last response of a connection whose request is refused, and the size of its body. The
    response is ``b""`` if another one has already begun.
    """
    page = plain_error(error.status, text=error.text)
    fields = [(b"Content-Type", page.content_type), *error.headers]
    data = client.codec.error_response(error.status, _reason(error.status), fields, page.body, client.front.date())
    return data, len(data.partition(b"\r\n\r\n")[2])


def at_stop(client: Client, exchange: Exchange) -> tuple[bytes, int]:
    """The last response of a connection whose request has none when the server ends, and the size of its body."""
    error = PoolShutDown()
    client.front.rejected[error.code] += 1
    id = exchange.request_id.decode()
    lines.request_refused(
        group=exchange.route.group_name, reason=str(error), request_id=id, status=error.status, code=error.code
    )
    accept = _field(exchange, b"accept")
    page = _own_page(client, exchange, error, accept) or plain_error(error.status, error_id=id, accept=accept)
    fields = [
        (b"Content-Type", page.content_type),
        (b"X-Request-Id", exchange.request_id),
        (b"Cache-Control", b"no-store"),
    ]
    data = client.codec.error_response(error.status, _reason(error.status), fields, page.body, client.front.date())
    return data, len(data.partition(b"\r\n\r\n")[2])


def _reason(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()


def _field(exchange: Exchange, name: bytes) -> bytes:
    """The value of a request field, or ``b""``."""
    return next((value for key, value in exchange.head.fields if key.lower() == name), b"")
