"""The driver of one client connection: requests in turn, through the stages, each within its deadline.

``fast_path`` serves most requests; meanwhile this task sleeps in ``_serve``. A request that it does not do, or that takes
long, leaves it. ``_finish_on_slow_path`` finishes it, stage by stage; then the fast path goes on. The
methods stand in this order.

When the deadline of a stage has passed, the cancel scope around the step is cancelled, and ``_AFTER_TIMEOUT`` names the
next step. Nothing is lost by that: what must survive is in the ``Exchange``, and unread bytes are still in the kernel
(a cancellation is delivered before they are read).

Laws:

* At most one request of a connection is under way (R31). The bytes behind it are read ahead up to ``buffer_sizes.READ_AHEAD``.
* An exchange gives its process back, for whatever reason it ends.
* A fault of ours, a broken law included, costs this one connection (KE1, F13), whether its task, the poller or the
  deadline scanner met it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from passenger_trio.errors import AppResponseError, CheckoutError, RequestError
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.answers.answer_errors import CLIENT_CLOSED, answer
from passenger_trio.server.answers.answer_health import answer_health
from passenger_trio.server.front import Front
from passenger_trio.server.http.buffer_body import buffer_body
from passenger_trio.server.http.checkout_session import abandon_session, checkout_session
from passenger_trio.server.http.client import TASK, Client
from passenger_trio.server.http.end_connection import (
    cut_off,
    cut_short,
    end_separately,
    linger,
    refuse,
    refuse_late_head,
)
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.fast_path import FastPath
from passenger_trio.server.http.forward_response import forward_response
from passenger_trio.server.http.interruptions import ClientGone, HealthAsked
from passenger_trio.server.http.peer import Peer
from passenger_trio.server.http.send_request import try_process
from passenger_trio.server.http.stage import Stage
from passenger_trio.system.raw_stream import RawStream

__all__ = ["Connection"]


class Connection(Client):
    """``run`` is its task."""

    __slots__ = ("_fast_path",)

    def __init__(self, front: Front, stream: RawStream, peer: Peer) -> None:
        super().__init__(front, stream, peer)
        self._fast_path = FastPath(self)

    @property
    def is_movable(self) -> bool:
        """Whether another process could serve the connection instead: it is idle, and nothing of its next request was read."""
        return self.is_idle and self._fast_path.sleeps and not self.codec.buffered and not self.codec.peer_closed

    def hand_over(self) -> None:
        """Another process has the connection: end our part of it. Call it in the step in which the descriptor was sent, so that no byte is read here."""
        self.stage = Stage.MOVED
        self.expire()  # its task sleeps, so it is told at once (``FastPath.on_cancelled``): nobody watches the connection any more

    def idle_as_before(self, since: float, served: int) -> None:
        """The connection came from another process, where it was idle since then: if it still is, its time to be idle goes on.

        :param served: how many requests it had served by then. The next one may have come and been answered meanwhile.
        """
        if self.is_idle and self.served == served and since < self.since:
            self.due -= self.since - since
            self.since = since

    async def run(self) -> None:
        """Serve the connection until it ends."""
        front, kernel, consequence = self.front, self.front.kernel, f"it is closed [{self.peer.address}]"
        ended = False
        front.connections.add(self)
        front.deadline_scanner.wake()
        try:
            with kernel.contain(TASK, consequence) as containment:
                try:
                    await self._run()
                except ClientGone:
                    if self.exchange is not None:
                        self.exchange.bytes_sent = max(0, self.exchange.bytes_sent - self.stream.undelivered)
                ended = True
        finally:
            front.connections.discard(self)
            if front.gate is not None:
                front.gate.connection_ended()
            if containment.error is not None or self.broken:
                front.rejected["internal_error"] += 1
            exchange = self.exchange
            if not ended and containment.error is None:  # cancelled from outside: the server ends
                with kernel.contain(TASK, consequence):
                    cut_off(self)
            if exchange is not None and exchange.relay is not None:
                with kernel.contain(TASK, consequence):
                    exchange.relay.send_final_close()
            with kernel.contain(TASK, consequence):
                self.stream.close()
            if exchange is not None:
                with kernel.contain(TASK, consequence):
                    await self._abandon(exchange, failed=containment.error is not None or self.broken)

    async def _run(self) -> None:
        step: Callable[[Connection], Awaitable[None]] | None = Connection._serve
        while step is not None:
            with self.scope:
                await step(self)
                return
            # A cancellation that came from outside is not caught by our scope and goes on unwinding.
            self.scope = trio.CancelScope()
            self.expired = False
            step = None if self.broken else _AFTER_TIMEOUT.get(self.stage)

    # -- requests in turn ---------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Requests in turn, until the connection is to end: on the fast path, and what does not stay there beside it."""
        while await self._fast_path.run():
            if not await self._serve_on_slow_path():
                break

    async def _serve_on_slow_path(self) -> bool:
        """Finish what has left the fast path: a request, or bytes that are none. True: the fast path may go on."""
        failure, self._fast_path.failure = self._fast_path.failure, None
        exchange = self.exchange
        if exchange is not None:
            return await self._finish_on_slow_path(exchange, failure)
        assert failure is not None
        if isinstance(failure, HealthAsked):
            await answer_health(self, failure)
            if self.codec.finish_message():
                return True
            await linger(self)
            return False
        if not isinstance(failure, RequestError):
            raise failure
        await refuse(self, failure)
        return False

    # -- the slow path ------------------------------------------------------------------------------------------

    async def _finish_on_slow_path(self, exchange: Exchange, failure: Exception | None) -> bool:
        """NOT the way of most requests, which are served by ``fast_path`` and never come here.

        From where the exchange has come to the end of the response, or to where the fast path can take it. True: the fast path may go on.
        """
        try:
            if exchange.tail:
                await self.send(exchange.tail)
                exchange.bytes_sent += exchange.behind
            if failure is not None:
                raise failure
            if not exchange.body_whole and exchange.body_clock is None and await buffer_body(self, exchange):
                return True
            while not exchange.answered:
                if exchange.session is None:
                    if exchange.body_whole and exchange.waiter is None:
                        return True
                    await checkout_session(self, exchange)
                if exchange.sent or try_process(self, exchange):
                    exchange.answered = await forward_response(self, exchange)
            if exchange.relay is not None:
                exchange.drop_upload()
                await exchange.relay.run()
        except RequestError as error:
            await refuse(self, error)
            return False
        except (CheckoutError, AppResponseError) as error:
            self.front.rejected[error.code] += 1
            if exchange.response_begun:
                await cut_short(self, exchange, error)
                return False
            await answer(self, exchange, error)
            if exchange.session is not None:
                await abandon_session(exchange)
        if exchange.ended_early:
            await end_separately(self, exchange)  # its end is still to be told to the process
            return False
        return await self._finish(exchange)

    async def _finish(self, exchange: Exchange) -> bool:
        """The exchange is over. True: the connection may take another request."""
        exchange.drop_upload()
        relay = exchange.relay
        if relay is None:
            self.log(exchange)
        else:
            relay.record_end()
        self.exchange = None
        if relay is None and self.codec.finish_message():
            return True
        if relay is None or relay.lingers:
            await linger(self, may_send=relay is not None)
        return False

    # -- after the deadline of a stage --------------------------------------------------------------------------

    async def _resume(self) -> None:
        """Go on with the request that outlasted the fast path's timeout, then with those that follow."""
        if self.stage is Stage.APP and self.exchange is not None:
            self.exchange.asked = self.since
        self.enter(Stage.SLOW_APP, self.current_time())
        if await self._serve_on_slow_path():
            await self._serve()

    async def _last_look(self) -> None:
        """The idle connection is to end; but a request that has arrived by now was sent in good faith, and is served."""
        try:
            self.codec.receive(self.stream.recv_nowait())
        except (trio.WouldBlock, trio.BrokenResourceError):
            return
        if not self.codec.peer_closed:
            await self._serve()

    async def _relay_timed_out(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        assert exchange.relay is not None
        exchange.relay.send_final_close()
        await self._finish(exchange)

    async def _client_stopped_reading(self) -> None:
        lines.client_stopped_reading(client=self.peer.address)

    # -- the end ------------------------------------------------------------------------------------------------

    async def _abandon(self, exchange: Exchange, *, failed: bool) -> None:
        """The connection is closed and the exchange was not finished: give its process back.

        :param failed: whether a fault of ours has ended it.
        """
        if not exchange.status:
            exchange.status = 500 if failed else CLIENT_CLOSED
        self.exchange = None
        kernel = self.front.kernel
        # One after the other, whatever becomes of each: nothing of it may be left.
        with kernel.contain(TASK):
            exchange.drop_upload()
        with kernel.contain(TASK):
            exchange.stop_app_time()
            if exchange.relay is not None:
                exchange.relay.record_end()
            else:
                self.log(exchange)
        with kernel.contain(TASK):
            if exchange.waiter is not None:
                exchange.waiter.leave()
        if exchange.session is not None:
            await abandon_session(exchange)


_AFTER_TIMEOUT: dict[Stage, Callable[[Connection], Awaitable[None]]] = {
    Stage.IDLE: Connection._last_look,
    Stage.HEAD: refuse_late_head,
    Stage.QUEUE: Connection._resume,
    Stage.APP: Connection._resume,
    Stage.WRITE: Connection._client_stopped_reading,
    Stage.RELAY: Connection._relay_timed_out,
}
"""The stage whose deadline has passed -> the next step. Any other stage: the connection is closed. (One that has moved is open in another process.)"""
