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

    If the fast path has entered the queue already, this stage waits in the same place.

    :raises CheckoutError: no process can be borrowed.
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
    """Wait for the answer of a waiter. Only a cancellation leaves the waiter in the queue.

    A granted session is stored in the exchange in the same step, so that a cancellation in that step does not lose it.
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
        # A session that was granted in the same moment is given back unused when the connection ends.
        raise ClientGone


async def abandon_session(exchange: Exchange) -> None:
    """Abandon an exchange: half-close the worker's stream, which the contract defines as "abort" (spawn_servers/CONTRACT.md), and give the process back when it is done.

    The worker counts as busy until it ends its side. In HTTP, closing the stream is the only "abort", and the worker does not answer it.
    """
    session, exchange.session = exchange.session, None
    assert session is not None
    outcome = SessionOutcome.NOT_STARTED
    try:
        if exchange.upgraded:
            # The application has taken over the stream: ending both directions tells it.
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
