"""The end of a connection: the last response, and giving the client time to read it.

Laws:

* After a refusal nothing more is read as a request (R18).
* A response that cannot be finished does not look whole (R24, R25).
* A connection lingers while its client may still be sending: closing it earlier could destroy the last response (R29)."""

from __future__ import annotations

import trio

from passenger_trio.codecs import refusals
from passenger_trio.codecs.forwarded_client import read_origin
from passenger_trio.core.lingering import LINGER_BYTES, LINGER_TIME
from passenger_trio.errors import RequestError
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.answers.answer_errors import at_stop, refusal
from passenger_trio.server.http.checkout_session import abandon_session
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.logs.access_record import refusal_record

__all__ = ["cut_off", "cut_short", "end_separately", "linger", "refuse", "refuse_late_head"]


async def refuse(client: Client, error: RequestError) -> None:
    """Answer a request that is refused, and let the connection end.

    :raises ClientGone: the client's connection broke.
    """
    client.front.rejected[error.code] += 1
    exchange = client.exchange
    lines.bad_request(status=error.status, code=error.code, client=client.peer.address)
    if exchange is not None and exchange.session is not None and exchange.session.stream is not None:
        exchange.session.stream.send_eof()  # "abort": the worker need not wait until the client has left
    if exchange is not None and exchange.response_begun:
        await cut_short(client, exchange, error)
        return
    if error.code == "body_truncated":
        return  # the client has left in the middle of its request: there is nobody to answer
    data, size = refusal(client, error)
    if exchange is not None:
        exchange.status = error.status
        await client.send(data)
        exchange.bytes_sent = size
        await end_separately(client, exchange)
        return
    since = client.since if client.stage is Stage.HEAD else min(client.refused_since, client.current_time())
    try:
        await client.send(data)
    except ClientGone:
        size = 0
        raise
    finally:
        _log_refusal(client, error, size, since)
    await linger(client)


async def refuse_late_head(client: Client) -> None:
    """The head of a request did not come in time (R27)."""
    await refuse(client, refusals.refuse("header_timeout"))


def _log_refusal(client: Client, error: RequestError, size: int, since: float) -> None:
    peer, known = client.peer, client.codec.known
    origin = read_origin(known.fields, client.front.trusted.trusts) if peer.trusted else None
    address = (origin.client if origin is not None else "") or peer.address
    client.front.log_refusal(refusal_record(known, address, error, size, since, client.current_time()))


async def cut_short(client: Client, exchange: Exchange, error: Exception) -> None:
    """The response cannot be finished: end the connection in a way that shows the client that the response is not whole (R24, R25)."""
    lines.response_cut_short(
        group=exchange.route.group_name,
        bytes_sent=exchange.bytes_sent,
        request_id=exchange.request_id.decode(),
        reason=str(error),
        pid=exchange.pid or None,
    )
    if exchange.head.version == b"1.0":
        client.stream.reset_on_close()
        if client.peer.user is not None:
            # A Unix socket knows no reset.
            client.front.warn_rarely(
                "an HTTP/1.0 client of the Unix socket cannot tell that; let the proxy speak HTTP/1.1 (nginx: proxy_http_version 1.1)"
            )
    else:
        await end_separately(client, exchange)


def cut_off(client: Client) -> None:
    """The server ends, and the request in hand with it. A client that has no byte of a response is told so, as far as that can be done at once."""
    exchange = client.exchange
    if exchange is None or exchange.status or exchange.response_begun:
        return
    data, size = at_stop(client, exchange)
    exchange.status = 503
    try:
        exchange.bytes_sent = size if client.stream.send_nowait(data) == len(data) else 0
        client.stream.send_eof()
        for _ in range(LINGER_BYTES // 65536):  # what is unread when a socket is closed would destroy the response
            if not client.stream.recv_nowait():
                break
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.WouldBlock):
        pass


async def end_separately(client: Client, exchange: Exchange) -> None:
    """The response is over and the connection is to end, but the process is not done with the request. End the connection and the session side by side,
    so that lingering for the client does not hold the process. Logs the exchange now.
    """
    client.exchange = None
    exchange.drop_upload()
    exchange.stop_app_time()
    client.log(exchange)
    if exchange.waiter is not None:
        exchange.waiter.leave()
    async with trio.open_nursery() as parting:
        parting.start_soon(_linger_and_close, client)
        if exchange.session is not None:
            await abandon_session(exchange)


async def _linger_and_close(client: Client) -> None:
    try:
        await linger(client)
    finally:
        client.stream.close()


async def linger(client: Client, *, may_send: bool = False) -> None:
    """Let the client read the last response before its connection closes, by reading what it still sends (R29).

    Returns at once if the client has sent its whole request and nothing more.

    :param may_send: whether the client may send at any time, because it speaks another protocol than HTTP.
    """
    client.stream.send_eof()
    codec = client.codec
    dropped = 0
    try:
        if codec.body_complete and not codec.buffered and not may_send:
            dropped = len(client.stream.recv_nowait())
            if not dropped:
                return
        client.enter(Stage.LINGER, client.current_time())
        with trio.move_on_after(
            LINGER_TIME
        ):  # not the stage's deadline, which would also cancel the task that ends the session
            while dropped < LINGER_BYTES and (data := await client.stream.recv()):
                dropped += len(data)
    except (trio.BrokenResourceError, trio.WouldBlock):
        pass
