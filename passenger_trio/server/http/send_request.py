"""Stage: send the request. Take a stream to the process, and write head, body and end of the request in one write."""

from __future__ import annotations

import math

import trio

from passenger_trio.codecs.websocket_handshake import check_key
from passenger_trio.core.descriptors import SHORT_OF_DESCRIPTORS
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import CheckoutError, ProcessUnreachable, RequestError
from passenger_trio.pool.session import Session
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.peer import Peer
from passenger_trio.system.raw_stream import RawStream

__all__ = ["send_request", "try_process"]

_STILL_WARM = 0.001
"""Seconds for which an idle stream is assumed to be still open."""
_CONNECT_TRIES = 3
"""Processes that are tried when nothing could be sent to any (R30)."""


def send_request(exchange: Exchange, peer: Peer, now: float, all_told: float = -math.inf) -> RawStream:
    """Write the request, as far as it has arrived, to a stream of ``exchange.session``, and return the stream.

    Does not call the pool. May be called again if it has raised.

    :raises ProcessUnreachable: the process does not accept a stream.
    :raises RequestError: the head is longer than a worker accepts (431), or the key of a WebSocket handshake is invalid (400).
    """
    session = exchange.session
    assert session is not None
    head, upload = exchange.head, exchange.upload
    connection_pairs = peer.cgi_pairs  # made once for each connection (``Listener``)
    if head.upgrade:
        connection_pairs = _ask_for_websocket(exchange, session, connection_pairs)
    whole = exchange.body_whole and upload is None
    data, exchange.framing = session.worker_protocol.request(
        head,
        connection_pairs,
        exchange.route.script_name,
        peer.trusted,
        exchange.id_pairs if exchange.spans is None else exchange.spans.ask(exchange, now),
        exchange.body,
        whole,  # the rest follows beside the response (send_body)
        head.content_length,
    )
    stream = session.stream or _stream(exchange, session, now, all_told)
    exchange.sent = True
    exchange.unsent = b""
    exchange.body_sent = whole
    try:
        sent = stream.send_nowait(data)
        if sent < len(data):
            # ``send_body`` sends the rest while the response is received: a worker that answers without reading must not wait for us while we wait for it.
            exchange.unsent = memoryview(data)[sent:]
            exchange.body_sent = False
    except trio.BrokenResourceError:
        # The response side sees the end of the stream and judges it; there may even be a response.
        pass
    return stream


def try_process(client: Client, exchange: Exchange) -> bool:
    """Call ``send_request``, and judge the process. False: the process could not be reached, so check out another one.

    :raises ProcessUnreachable: so many processes could not be reached that no other is tried.
    :raises CheckoutError: no descriptor is left for a stream.
    :raises RequestError: see ``send_request``.
    """
    try:
        exchange.asked = now = client.current_time()
        send_request(exchange, client.peer, now).unregister()  # from here on the task reads it, and not the poller
    except RequestError:
        exchange.give_back(SessionOutcome.NOT_STARTED)
        raise
    except ProcessUnreachable as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in SHORT_OF_DESCRIPTORS:
            # The server is short of descriptors (F32): the process is not to blame.
            exchange.give_back(SessionOutcome.NOT_STARTED)
            client.front.warn_rarely(f"cannot connect to a process: {error.__cause__.strerror}")
            client.front.make_room(8)
            raise CheckoutError(f"cannot open a stream to a process: {error.__cause__.strerror}") from error
        # Nothing was sent: any request may go elsewhere. The process is judged by the policy.
        exchange.give_back(SessionOutcome.PROCESS_FAILED)
        exchange.unreachable += 1
        if exchange.unreachable >= _CONNECT_TRIES:
            raise
        return False
    return True


def _ask_for_websocket(exchange: Exchange, session: Session, connection_pairs: bytes) -> bytes:
    """The connection's pairs for a process that accepts WebSockets. Any other process gets an ordinary request.

    :raises RequestError: the handshake has no key.
    """
    exchange.wants_websocket = exchange.head.upgrade == b"websocket" and session.process.live.websocket
    if not exchange.wants_websocket:
        return connection_pairs
    check_key(exchange.head)
    return connection_pairs.replace(b"REQUEST_SCHEME\0http", b"REQUEST_SCHEME\0ws", 1)


def _stream(exchange: Exchange, session: Session, now: float, all_told: float) -> RawStream:
    """A stream to the process: an idle one, unless it has ended meanwhile, or the process has sent something without a request (R41).

    A new one is opened for a second try; also if the process may close idle streams at any time and this request must not be sent twice (R30).
    A probe costs as much as a read. It is skipped if the poller has looked at the stream since it became idle, and has nothing else to tell; also if
    another request left the stream less than a millisecond ago, this request has waited in the queue, and the process uses a loader of ours.

    :param all_told: see ``Poller.all_told``.
    """
    new = exchange.retried > 0 or not (
        session.worker_protocol.keeps_idle or exchange.head.method in exchange.route.retried_methods
    )
    stream = session.connect_nowait(new=new)
    handed_on = exchange.queued and session.worker_protocol.keeps_idle
    while (
        session.reused
        and not (handed_on and now - stream.idle_since < _STILL_WARM)
        and not (stream.idle_since < all_told and stream.registration is not None)
    ):
        try:
            stream.recv_nowait(1)
        except trio.WouldBlock:
            break  # nothing to read: it is still open
        except trio.BrokenResourceError:
            pass
        session.drop_stream()
        stream = session.connect_nowait()
    return stream
