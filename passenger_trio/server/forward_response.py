"""Stages 9 to 11: the response, from the process to the client.

The fast lane reads once, within its patience, and when that is a whole response it is one write to the client. Everything else goes through
``pump``, which forwards each piece as it comes.

Laws: the process is given back before the client has taken the last byte; a request is sent to a second process only while no byte of a response has
come, only once, and only when that is safe (R30); whatever is wrong with a response is judged here, once: what the pool is told, what the client sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from passenger_trio.codecs.response_head import parse
from passenger_trio.codecs.response_lines import NO_BODY
from passenger_trio.codecs.session_protocol import FLAG_CLOSE
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import (
    AppResponseError,
    IncompleteResponse,
    MalformedResponse,
    RequestTimeExceeded,
    UnfitResponseHead,
)
from passenger_trio.server.exchange import Exchange
from passenger_trio.server.pump import pump
from passenger_trio.server.stage import Stage
from passenger_trio.server.upgrade import relay

if TYPE_CHECKING:
    from passenger_trio.server.connection import Connection

__all__ = ["forward_response"]

_DYING = 0.2
"""Seconds in which the exit of a process that has hung up is waited for, before the request is sent to another. Most take a few milliseconds."""


async def forward_response(connection: Connection, exchange: Exchange) -> bool:
    """Forward the response. False: the process went away before it answered, and the request may be sent to another.

    :raises AppResponseError: the response is none, or not whole; the process has been given back, unless it still computes.
    :raises RequestError: the rest of the request body is not what it should be.
    :raises ClientGone: the client's connection broke.
    """
    session = exchange.session
    assert session is not None
    stream = session.stream
    assert stream is not None
    try:
        if connection.stage is Stage.APP and exchange.body_sent:
            connection.enter_patiently(Stage.APP, connection.now())
            try:
                data = await stream.recv(65536, connection)
            except trio.BrokenResourceError:
                data = b""
            whole = session.dialect.whole_response(data, exchange.head.method)
            if whole is not None:
                await _forward_whole(connection, exchange, *whole)
                return True
            exchange.reader = session.dialect.reader(
                exchange.head.method, upgrade=bool(exchange.head.upgrade), websocket=exchange.wants_websocket
            )
            exchange.reader.feed(data)
            if not data:
                exchange.reader.feed_eof()
        await pump(connection, exchange)
        if exchange.upgraded:
            await relay(connection, exchange)
        return True
    except IncompleteResponse:
        if session.is_overdue:
            exchange.give_back(SessionOutcome.DONE)
            raise RequestTimeExceeded(_overdue(connection, exchange)) from None
        again = exchange.repeatable and (exchange.reader is None or not exchange.reader.begun)
        if again:
            # If it is dying, the second try must not go to it: until its exit is seen it may look like the best choice.
            connection.enter(Stage.SLOW_APP, connection.now())
            await session.wait_left(_DYING)
        # The process is not to blame before its exit has been seen: an application may raise in the middle of a response.
        exchange.give_back(SessionOutcome.DONE)
        if again:
            exchange.retried += 1
            exchange.reader = None
            return False
        raise
    except MalformedResponse:
        exchange.give_back(SessionOutcome.PROCESS_FAILED)
        raise
    except UnfitResponseHead:
        # The process is well, and may be at the rest of its response: whoever tells the client sees to both.
        raise
    except AppResponseError:
        exchange.give_back(SessionOutcome.DONE)
        raise


async def _forward_whole(connection: Connection, exchange: Exchange, payload: bytes, body: bytes, flags: int) -> None:
    session = exchange.session
    assert session is not None
    exchange.session = None
    # The response is here: whatever becomes of it, the process is free.
    session.close(SessionOutcome.DONE, keep_stream=not flags & FLAG_CLOSE)
    app = parse(payload)
    codec = connection.codec
    data = codec.answer(app, body, date=connection.front.date(), close=connection.ends_after_response)
    exchange.status = app.status
    exchange.response_begun = True
    if exchange.head.method != b"HEAD" and app.status not in NO_BODY:
        exchange.bytes_sent = len(body) - codec.overrun
    await connection.send(data)
    if codec.short:
        raise IncompleteResponse("the application sent less than the Content-Length that it declared")


def _overdue(connection: Connection, exchange: Exchange) -> str:
    seconds = connection.now() - exchange.started
    request = f"{exchange.head.method.decode()} {exchange.head.path.decode('latin-1')}"
    return f"{request} was not finished after {seconds:.1f} s, and its process was killed"
