"""One client connection: requests in turn, one cancel scope, one deadline that moves with the stage.

Each stage says what it is and how long it may last (``enter``); when the deadline has passed, the timekeeper cancels the scope, which unwinds the
stage, and ``_deadline_passed`` looks up what that means: an idle connection is closed, a late head is answered with 408, an application that has not
answered within the patience of the fast lane is waited for in the slow lane. What must survive that is in the ``Exchange``, and in the kernel: whoever
waits for bytes here is told of the cut before he reads them (``RawStream.recv``).

Laws: at most one request of a connection is under way (R31), and bytes behind it are read ahead no further than ``stage.READ_AHEAD``; after a refusal nothing more is
read as a request (R18); a connection that ends while the client may still be sending lingers, so that the last response is not lost (R29); an exchange that is
left for whatever reason gives its process back; a fault of ours, a broken law among them, costs the one connection (KE1, F13), whoever ran into it: its task, the
switchboard in a step for it, the timekeeper.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import trio

from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.errors import AppResponseError, CheckoutError, RequestError
from passenger_trio.server.answers import answer_errors
from passenger_trio.server.front import Front
from passenger_trio.server.http.buffer_body import buffer_body
from passenger_trio.server.http.checkout_session import abandon_session, checkout_session
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.fast_path import FastLane
from passenger_trio.server.http.forward_response import forward_response
from passenger_trio.server.http.send_request import try_process
from passenger_trio.server.http.stage import PATIENCE, ClientGone, Stage
from passenger_trio.server.upgraded.relay import Relay
from passenger_trio.server.upgraded.websocket import WebSocket
from passenger_trio.system.sockets import RawStream

__all__ = ["Connection"]

_TASK = "a connection"
"""For the error kernel."""
_LINGER_TIME = 2.0
_LINGER_BYTES = 256 * 1024

_log = logging.getLogger("passenger_trio.server")


class Connection:
    """``run`` is its task."""

    __slots__ = (
        "_lane",
        "_opened",
        "address_pairs",
        "broken",
        "codec",
        "cut",
        "due",
        "exchange",
        "front",
        "now",
        "peer_user",
        "remote",
        "scope",
        "served",
        "since",
        "stage",
        "stream",
        "trusted",
        "turn",
    )

    def __init__(
        self,
        front: Front,
        stream: RawStream,
        remote: str,
        trusted: bool,
        address_pairs: bytes,
        peer_user: int | None = None,
    ) -> None:
        """:param remote: the peer's address. :param trusted: whether its forwarded fields are believed (R11).
        :param address_pairs: the connection's part of every request head for an application.
        :param peer_user: on a Unix socket.
        """
        self.front = front
        self.stream = stream
        self.remote = remote
        self.address_pairs = address_pairs
        self.trusted = trusted
        self.peer_user = peer_user
        self.codec = ClientSide(front.limits, plain_parser=front.options.plain_parser)
        self.exchange: Exchange | None = None
        self.now = front.now
        self.stage = Stage.IDLE
        self.since = self._opened = self.now()
        """When the stage began, in monotonic seconds."""
        self.due = math.inf
        """When the stage must be over."""
        self.turn = 0
        """Counts stages, so that a deadline can tell whether its stage is still there."""
        self.scope = trio.CancelScope()
        self.cut = False
        """Whether the scope is cancelled."""
        self.broken = False
        """Whether a step for it has failed: it is cut off, and not gone on with."""
        self.served = 0
        """Requests."""
        self._lane = FastLane(self)

    # -- the timer ----------------------------------------------------------------------------------------------

    def enter(self, stage: Stage, now: float, seconds: float = math.inf) -> None:
        """A stage begins, and may last for ``seconds``."""
        self.stage = stage
        self.since = now
        self.due = now + seconds
        self.turn += 1

    def enter_patiently(self, stage: Stage, now: float) -> None:
        """A stage of the fast lane begins: it lasts for ``PATIENCE``, which is kept more exactly."""
        self.stage = stage
        self.since = now
        self.due = now + PATIENCE
        self.turn += 1
        self.front.timekeeper.soon(self)

    @property
    def is_idle(self) -> bool:
        """Between two requests, and not told to end."""
        return self.stage is Stage.IDLE and not self.cut

    def close_idle(self) -> None:
        """End the connection, which must be idle."""
        self.cut_off()

    def cut_off(self) -> None:
        """The stage is over, whatever it waits for."""
        self.cut = True
        self.scope.cancel()

    def give_up(self) -> None:
        """A step for it has failed."""
        self.broken = True
        self.cut_off()

    def break_off(self, error: Exception) -> None:
        """A step for it has failed, which nobody knows yet. Raises nothing."""
        self.front.kernel.report(_TASK, error, f"it is closed [{self.remote}]")
        with self.front.kernel.contain(_TASK):
            self.give_up()

    def overdue(self, now: float) -> None:
        """The stage should be over by now. Called by the timekeeper; runs no task."""
        exchange = self.exchange
        if self.stage is Stage.WEBSOCKET and exchange is not None and isinstance(exchange.relay, WebSocket):
            exchange.relay.tick(now)
        elif self.stage is Stage.WRITE and self.stream.takes_more:
            # Whoever waits for that is told in this very step, and gives the client its whole time again: a cut would end the connection behind what he sends.
            pass
        elif self.stage is not Stage.RELAY or self._relay_is_due(now):
            self.cut_off()

    def _relay_is_due(self, now: float) -> bool:
        relay = self.exchange.relay if self.exchange is not None else None
        return not isinstance(relay, Relay) or relay.is_due(now)

    async def run(self) -> None:
        """Serve the connection until it ends."""
        front, kernel, consequence = self.front, self.front.kernel, f"it is closed [{self.remote}]"
        front.connections.add(self)
        try:
            with kernel.contain(_TASK, consequence) as containment:
                try:
                    await self._run()
                except ClientGone:
                    if self.exchange is not None:
                        self.exchange.bytes_sent = max(0, self.exchange.bytes_sent - self.stream.undelivered)
        finally:
            front.connections.discard(self)
            if containment.error is not None or self.broken:
                front.rejected["internal_error"] += 1
            exchange = self.exchange
            if exchange is not None and isinstance(exchange.relay, WebSocket):
                with kernel.contain(_TASK, consequence):
                    exchange.relay.last_words()
            with kernel.contain(_TASK, consequence):
                self.stream.close()
            if exchange is not None:
                with kernel.contain(_TASK, consequence):
                    await self._leave(exchange)

    async def _run(self) -> None:
        step: Callable[[], Awaitable[None]] | None = self._serve
        while step is not None:
            with self.scope:
                await step()
                return
            # A cancellation that came from outside is not caught by our scope and goes on unwinding.
            self.scope = trio.CancelScope()
            self.cut = False
            step = None if self.broken else self._deadline_passed()

    def _deadline_passed(self) -> Callable[[], Awaitable[None]] | None:
        """What the expired deadline of the stage means: the next step, or None for closing."""
        match self.stage:
            case Stage.APP | Stage.QUEUE:
                return self._resume
            case Stage.HEAD | Stage.BODY:
                return self._refuse_late
            case Stage.IDLE:
                return self._last_look
            case Stage.RELAY:
                return self._relay_over
            case Stage.WRITE:
                _log.info("a client that takes nothing is closed [%s]", self.remote)
                return None
            case _:
                return None

    # -- requests in turn ---------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Requests in turn, until the connection is to end: in the fast lane, and what does not stay there beside it."""
        while await self._lane.ride():
            if not await self._attend():
                break

    async def _resume(self) -> None:
        """Go on with the request that outlasted the patience of the fast lane, where it was, then with those that follow."""
        self.enter(Stage.SLOW_APP, self.now())
        if await self._attend():
            await self._serve()

    async def _last_look(self) -> None:
        """The idle connection is to end; but a request that has come by now was sent in good faith, and is served."""
        try:
            self.codec.receive(self.stream.recv_nowait())
        except (trio.WouldBlock, trio.BrokenResourceError):
            return
        if not self.codec.peer_closed:
            await self._serve()

    async def _attend(self) -> bool:
        """From where the exchange has come, or from a request that is none. True: the lane may go on."""
        failure, self._lane.failure = self._lane.failure, None
        exchange = self.exchange
        if exchange is not None:
            return await self._answer(exchange, failure)
        assert failure is not None
        if not isinstance(failure, RequestError):
            raise failure
        await self._refuse(failure)
        return False

    async def _answer(self, exchange: Exchange, failure: Exception | None) -> bool:
        """From where the exchange has come to the end of the response, or to where the lane can take it. True: the lane may go on."""
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
                    if exchange.body_whole and exchange.place is None:
                        return True
                    await checkout_session(self, exchange)
                if exchange.sent or try_process(self, exchange):
                    exchange.answered = await forward_response(self, exchange)
        except RequestError as error:
            await self._refuse(error)
            return False
        except (CheckoutError, AppResponseError) as error:
            self.front.rejected[error.code] += 1
            if exchange.response_begun:
                await self._truncate(exchange, error)
                return False
            await answer_errors.answer(self, exchange, error)
            if exchange.session is not None:
                await abandon_session(exchange)
        if exchange.dismissed:
            await self._part(exchange)  # its end is still to be told to the process
            return False
        return await self._finish(exchange)

    async def _finish(self, exchange: Exchange) -> bool:
        """The exchange is over. True: the connection may take another request."""
        exchange.drop_upload()
        if isinstance(exchange.relay, WebSocket):
            await exchange.relay.run()
            self.exchange = None
            return False
        self.log(exchange)
        self.exchange = None
        if self.codec.is_ready_again():
            return True
        await self._linger(may_send=exchange.upgraded)
        return False

    async def _relay_over(self) -> None:
        """The relay was cut off: nothing came over it for too long, or its time to drain is over."""
        exchange = self.exchange
        assert exchange is not None
        assert isinstance(exchange.relay, Relay)
        exchange.relay.tell_end()
        await self._finish(exchange)

    @property
    def ends_after_response(self) -> bool:
        """Whether the response under way is the connection's last, for reasons of ours."""
        options = self.front.options
        return (
            self.front.draining
            or 0 < options.max_requests_per_connection <= self.served
            or 0 < options.max_connection_age <= self.since - self._opened
        )

    # -- writing ------------------------------------------------------------------------------------------------

    async def send(self, data: bytes | memoryview) -> None:
        """Give bytes to the client; waits while it takes none, for which a deadline is set (R27).

        :raises ClientGone: the connection is broken.
        """
        try:
            sent = self.stream.send_nowait(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                stage = self.stage
                while rest:
                    self.enter(Stage.WRITE, self.now(), self.front.options.write_timeout)
                    await trio.lowlevel.wait_writable(self.stream.socket)
                    rest = rest[self.stream.send_nowait(rest) :]
                self.enter(stage, self.now())
        except trio.BrokenResourceError:
            raise ClientGone from None

    # -- endings ------------------------------------------------------------------------------------------------

    async def _refuse(self, error: RequestError) -> None:
        """Answer a request that is refused, and let the connection end."""
        self.front.rejected[error.code] += 1
        exchange = self.exchange
        _log.info("a request is refused: %d %s [%s]", error.status, error.code, self.remote)
        if exchange is not None and exchange.session is not None and exchange.session.stream is not None:
            exchange.session.stream.send_eof()  # the worker need not wait until the client has gone, too
        if exchange is not None and exchange.response_begun:
            await self._truncate(exchange, error)
            return
        if error.code == "body_truncated":
            return  # of a request that was cut off nobody is left to be told
        data, size = answer_errors.refusal(self, error)
        if exchange is not None:
            exchange.status = error.status
            await self.send(data)
            exchange.bytes_sent = size
            await self._part(exchange)
            return
        since = self.since if self.stage is Stage.HEAD else self.now()
        try:
            await self.send(data)
        except ClientGone:
            size = 0
            raise
        finally:
            self.front.log_refusal(answer_errors.refusal_record(self, error, size, since, self.now()))
        await self._linger()

    async def _refuse_late(self) -> None:
        """A head or a body did not come in time (R27)."""
        what = "header" if self.stage is Stage.HEAD else "body"
        await self._refuse(RequestError(408, f"{what}_timeout", f"The {what} of the request did not arrive in time."))

    async def _truncate(self, exchange: Exchange, error: Exception) -> None:
        """The response cannot be finished: let the connection end so that the client cannot take it for whole (R24, R25)."""
        _log.warning(
            "a response of %s was cut short after %d bytes [request %s]: %s",
            exchange.route.group_name,
            exchange.bytes_sent,
            exchange.request_id.decode(),
            error,
        )
        if exchange.head.version == b"1.0":
            self.stream.reset_on_close()
            if self.peer_user is not None:
                # A Unix socket knows no reset.
                self.front.warn_rarely(
                    "an HTTP/1.0 client of the Unix socket cannot tell that; let the proxy speak HTTP/1.1 (nginx: proxy_http_version 1.1)"
                )
        else:
            await self._part(exchange)

    async def _part(self, exchange: Exchange) -> None:
        """The response is over, and the connection is to end, before the process is done with the request: each is let go by itself, so that a process
        is not held for as long as the client is lingered for. The exchange is logged now.
        """
        self.exchange = None
        exchange.drop_upload()
        self.log(exchange)
        if exchange.place is not None:
            exchange.place.leave()
        async with trio.open_nursery() as parting:
            parting.start_soon(self._linger_and_close)
            if exchange.session is not None:
                await abandon_session(exchange)

    async def _linger_and_close(self) -> None:
        try:
            await self._linger()
        finally:
            self.stream.close()

    async def _linger(self, *, may_send: bool = False) -> None:
        """R29: let the client read the last response before the connection goes, by reading what it still sends.

        A client that has sent all that it had to, and no more, is not waited for.

        :param may_send: it may send whenever it likes, in another protocol.
        """
        self.stream.send_eof()
        codec = self.codec
        dropped = 0
        try:
            if codec.body_complete and not codec.buffered and not may_send:
                dropped = len(self.stream.recv_nowait())
                if not dropped:
                    return
            self.enter(Stage.LINGER, self.now())
            with trio.move_on_after(
                _LINGER_TIME
            ):  # not the stage's deadline: that would cut whoever still ends a session, too
                while dropped < _LINGER_BYTES and (data := await self.stream.recv()):
                    dropped += len(data)
        except (trio.BrokenResourceError, trio.WouldBlock):
            pass

    async def _leave(self, exchange: Exchange) -> None:
        """The connection is closed and the exchange was not finished: give its process back."""
        if not exchange.status:
            exchange.status = answer_errors.CLIENT_CLOSED
        self.exchange = None
        kernel = self.front.kernel
        # One after the other, whatever becomes of each: nothing of it may be left.
        with kernel.contain(_TASK):
            exchange.drop_upload()
        with kernel.contain(_TASK):
            if isinstance(exchange.relay, WebSocket):
                exchange.relay.note_end()
            else:
                self.log(exchange)
        with kernel.contain(_TASK):
            if exchange.place is not None:
                exchange.place.leave()
        if exchange.session is not None:
            await abandon_session(exchange)

    def log(self, exchange: Exchange) -> None:
        """The access log's record of an exchange."""
        if self.front.access_log is not None:
            self.front.access_log.record(answer_errors.access_record(self, exchange, self.now()))
