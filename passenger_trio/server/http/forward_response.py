"""Stage: forward the response, on the slow path. ``response_forwarder`` passes each piece on as it comes; this judges what is wrong with a response.

Laws: the process is given back before the client has taken the last byte. A request is sent to a second process only while no byte of a response has
arrived, only once, and only where that is safe (R30). What is wrong with a response is judged here, once: what the pool is told, and what the client sees.
"""

from __future__ import annotations

from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import (
    AppResponseError,
    IncompleteResponse,
    MalformedResponse,
    RequestTimeExceeded,
    UnfitResponseHead,
)
from passenger_trio.pool.session import EXIT_NOTICED_AFTER, Session
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.response_forwarder import forward_in_pieces
from passenger_trio.server.http.stage import Stage

__all__ = ["forward_response"]


async def forward_response(client: Client, exchange: Exchange) -> bool:
    """Forward the response. False: the process went away before it answered, and the request may be sent to another.

    :raises AppResponseError: there is no valid response, or it is not whole. The process has been given back, unless it still computes.
    :raises RequestError: the rest of the request body is invalid, too long or late.
    :raises ClientGone: the client's connection broke.
    """
    session = exchange.session
    assert session is not None
    try:
        await forward_in_pieces(client, exchange)
        if exchange.upgraded:
            from passenger_trio.server.upgraded.relay import (
                Relay,  # here: the start of the server does not wait for it (DE10)
            )

            assert session.stream is not None
            exchange.relay = Relay(client, exchange, session.stream)
        return True
    except IncompleteResponse:
        if session.is_overdue:
            problem = _overdue(client, exchange, session)
            exchange.give_back(SessionOutcome.DONE)
            raise RequestTimeExceeded(problem) from None
        # The process is not to blame before its exit has been seen: an application may raise in the middle of a response.
        outcome = SessionOutcome.BROKEN_OFF
        again = False
        if exchange.reader is None or not exchange.reader.begun:
            # The process may have ended a reused stream between two requests, which is no fault.
            outcome = SessionOutcome.NOT_STARTED if session.reused else SessionOutcome.UNANSWERED
            again = exchange.repeatable
        if again and session.is_alone:
            # If it is dying, the second try must not go to it: until its exit is seen it is the only choice.
            client.enter(Stage.SLOW_APP, client.current_time())
            await session.wait_left(EXIT_NOTICED_AFTER)
        exchange.give_back(outcome)
        if again:
            exchange.avoided = session.process.id
            exchange.retried += 1
            exchange.route.tally.retried += 1
            exchange.reader = None
            return False
        raise
    except MalformedResponse:
        exchange.give_back(SessionOutcome.PROCESS_FAILED)
        raise
    except UnfitResponseHead:
        # The process works, and may still send the rest of its response. The caller that answers the client gives it back, too.
        raise
    except AppResponseError:
        exchange.give_back(SessionOutcome.DONE)
        raise


def _overdue(client: Client, exchange: Exchange, session: Session) -> str:
    seconds = client.current_time() - exchange.started
    request = f"{exchange.head.method.decode()} {exchange.head.path.decode('latin-1')}"
    end = "ended: it was to go" if session.process.drained else "killed"
    return f"{request} was not finished after {seconds:.1f} s, and its process was {end}"
