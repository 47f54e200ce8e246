"""Stage: borrow a process. At once if one is free; else wait in the pool's queue, and watch the client meanwhile."""

from __future__ import annotations

import trio

from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import CheckoutError
from passenger_trio.pool.waiter import Waiter
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.client_watch import ClientWatch
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.stage import Stage

__all__ = ["abandon_session", "checkout_session"]


async def checkout_session(client: Client, exchange: Exchange) -> None:
    """Borrow a process into ``exchange.session``, and see the client's connection break meanwhile.

    If the fast path took a place in the queue, it waits in that.

    :raises CheckoutError: none can be had.
    :raises ClientGone: the client has left.
    """
    waiter = exchange.waiter
    if waiter is None:
        now = client.current_time()
        found = client.front.pool.checkout_or_queue(exchange.route.key, now, exchange.avoided, exchange.sticky_route)
        if type(found) is not Waiter:
            exchange.use_session(found)
            return
        exchange.waiter = waiter = found
        exchange.queued = now
    client.enter(Stage.SLOW_QUEUE, client.current_time())
    if waiter.answered:
        await _wait(client, exchange, waiter)
    else:
        await _wait_and_watch(client, exchange, waiter)
    client.enter(Stage.SLOW_APP, client.current_time())


async def _wait(client: Client, exchange: Exchange, waiter: Waiter) -> None:
    """Wait in a waiter, which is over when this returns or raises anything but a cancellation.

    What it was granted is the exchange's in the same step: a cancellation that comes with it must not lose it.
    """
    try:
        session = await waiter.wait()
    except CheckoutError:
        exchange.waiter = None
        raise
    exchange.waiter = None
    exchange.use_session(session)
    exchange.queue_time += client.current_time() - exchange.queued


async def _wait_and_watch(client: Client, exchange: Exchange, waiter: Waiter) -> None:
    waiting = trio.CancelScope()
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        waiting.cancel()

    watch = ClientWatch(client, leave)
    watch.begin()
    try:
        with waiting:
            await _wait(client, exchange, waiter)
    finally:
        watch.end()
    if gone:
        # Whatever was granted in the same moment is given back unused, when the connection ends.
        raise ClientGone


async def abandon_session(exchange: Exchange) -> None:
    """Abandon an exchange: half-close the worker's stream, which the contract defines as "abort" (spawn_servers/CONTRACT.md), and give the process back when it is done.

    Until the worker ends its side it counts as busy. HTTP has no "abort" but closing the stream, and no answer to that.
    """
    session, exchange.session = exchange.session, None
    assert session is not None
    outcome = SessionOutcome.NOT_STARTED
    try:
        if exchange.upgraded:
            # The stream is the application's own, which is told by the end of both directions.
            outcome = SessionOutcome.CLIENT_GONE
        elif session.stream is not None:
            outcome = SessionOutcome.CLIENT_GONE
            if session.worker_protocol.awaits_end:
                session.stream.send_eof()
                while await session.stream.recv():
                    pass
    except trio.BrokenResourceError:
        pass
    finally:
        session.close(outcome)
