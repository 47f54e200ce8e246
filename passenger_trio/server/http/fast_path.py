"""The fast lane: plain requests, from the head to the end of the response, in steps for which no task has to be woken.

A connection's task that has nothing to do rides in the lane (``FastLane.ride``): it sleeps, and the switchboard calls the lane when the client has sent something, the
pool when a process is granted, and the switchboard again when that has answered. Each step does what can be done without waiting, and leaves all facts where the task would
have left them: in the ``Exchange``, and in the connection's stage. Whatever is not plain ends the ride, and the task goes on from there.

What is plain: a request that is here whole; a process that can be had, now or within the patience; one that takes the request in one write, and answers with one whole
response that is here when it has begun to come, and is not too long; a client that takes that in one write.

Laws: a step neither waits nor raises, and is atomic; while the task rides nobody else touches the connection's exchange and sockets, and when the ride has ended the lane does
not: nothing is registered any more, not even in the pool. A step that the pool calls (``_granted``) does not call the pool: it may be in the middle of others. What a step finds
wrong is kept for the task (``failure``), which knows what it means; where the task finds the same again by trying, not even that.
"""

from __future__ import annotations

import outcome
import trio

from passenger_trio.codecs.response_head import parse
from passenger_trio.codecs.response_lines import NO_BODY
from passenger_trio.codecs.session_protocol import FLAG_CLOSE
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import IncompleteResponse, PassengerError, RequestError
from passenger_trio.pool.place import Place
from passenger_trio.pool.session import Session
from passenger_trio.server.http.buffer_body import take_body_nowait
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.init_request import init_request
from passenger_trio.server.http.send_request import send_request
from passenger_trio.server.http.stage import ClientGone, Stage
from passenger_trio.system.sockets import RawStream
from passenger_trio.system.switchboard import HUNG_UP, READABLE, Line

__all__ = ["FastLane"]

_DONE = SessionOutcome.DONE
_READ = 65536
_FIRST = 1024
_MOST = 2 * _READ
"""Bytes of a response that are joined: it is here already, and a nursery costs more. It is also what a client that takes nothing leaves in memory."""


class FastLane:
    """One connection's."""

    __slots__ = ("_client", "_deaf", "_line", "_needed", "_task", "failure")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._task: trio.lowlevel.Task | None = None
        """While it sleeps."""
        self._line: Line | None = None
        """The client's, during a ride."""
        self._deaf = False
        """The client is not heard: it has sent, or ended, ahead of its turn."""
        self._needed: bool | None = None
        """How the ride has ended."""
        self.failure: Exception | None = None
        """What the task is to raise, as if it had come to it itself."""

    async def ride(self) -> bool:
        """Serve what is plain. True: ``exchange``, if there is one, and ``failure`` need the task; False: the connection is to end. Always a checkpoint.

        It begins with the exchange in hand, if its request is here and no process was borrowed; else with the next request.
        """
        client = self._client
        try:
            self._connect()
        except OSError as error:
            client.front.warn_rarely("a client cannot be heard: %s", error.strerror)
            await trio.lowlevel.checkpoint()
            return False
        try:
            if client.exchange is None:
                self._next(client.now())
            else:
                self._borrow(client.exchange, client.now())
            if self._needed is None:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._cut_off)
            else:
                await trio.lowlevel.checkpoint()
            if client.cut:
                await (
                    trio.lowlevel.checkpoint()
                )  # the cut came in the same step: it is heard here, and not in the middle of something else
        finally:
            self._disconnect()
        assert self._needed is not None
        return self._needed

    def _connect(self) -> None:
        stream = self._client.stream
        self._line = stream.line = self._client.front.switchboard.connect(stream.fd, READABLE, self._heard)
        self._deaf = False
        self._needed = None

    def _cut_off(self, _: object) -> trio.lowlevel.Abort:
        """The stage is over: the connection knows what that means."""
        self._task = None
        self._disconnect()
        return trio.lowlevel.Abort.SUCCEEDED

    def _end(self, needed: bool) -> None:
        """The ride ends."""
        client = self._client
        self._needed = needed
        client.enter(Stage.SLOW_APP, client.now())  # which is not cut off
        self._disconnect()
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Value(None))

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        self._end(True)

    def _disconnect(self) -> None:
        """Nothing is heard any more. Idempotent."""
        client = self._client
        self._line = None
        client.stream.hang_up()
        exchange = client.exchange
        if exchange is not None:
            if exchange.place is not None:
                exchange.place.tell = None
            if exchange.session is not None and exchange.session.stream is not None:
                exchange.session.stream.hang_up()

    # -- the client ---------------------------------------------------------------------------------------------

    def _heard(self, events: int) -> None:
        """The client has sent something, or has ended."""
        client = self._client
        try:
            if client.exchange is None:
                try:
                    client.codec.receive(client.stream.recv_nowait())
                except trio.WouldBlock:
                    return
                except trio.BrokenResourceError:
                    self._end(False)
                    return
                self._next(client.now())
            elif events & HUNG_UP:
                self._end(True)  # the slow lane will see it
            elif not self._deaf and self._line is not None:
                self._deaf = True
                self._line.listen(0)
        except Exception as error:  # noqa: BLE001  a bug of ours costs one connection, and not all that the switchboard has (F13)
            self._fail(error)

    def _next(self, now: float) -> None:
        """The next request, if it is here."""
        client = self._client
        try:
            head = client.codec.next_head()
            if head is None:
                self._await_head(now)
                return
            # No deadline before the next stage sets its own: there is no wait until then.
            client.stage = Stage.APP
            client.served += 1
            front = client.front
            front.requests += 1
            client.exchange = exchange = init_request(client, head, now)
            if not exchange.body_whole and not take_body_nowait(client.codec, exchange):
                self._end(True)
                return
        except RequestError as error:
            self._fail(error)
            return
        self._borrow(exchange, now)

    def _await_head(self, now: float) -> None:
        """Set the timer for the next head (R27): absolute from its first byte; before that, the time to be idle."""
        client = self._client
        front = client.front
        codec = client.codec
        if codec.peer_closed:
            self._end(False)
        elif front.draining and client.served and not codec.mid_head:
            # What has come by now was sent in good faith, and is served; its response says that it is the last.
            try:
                codec.receive(client.stream.recv_nowait())
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._end(False)
            else:
                self._next(now)
        elif not codec.mid_head:
            keep_alive = front.options.keep_alive_timeout if client.served else front.options.header_timeout
            client.enter(Stage.IDLE, now, keep_alive)
        elif client.stage is not Stage.HEAD:
            client.enter(Stage.HEAD, now, front.options.header_timeout)

    # -- the process --------------------------------------------------------------------------------------------

    def _borrow(self, exchange: Exchange, now: float) -> None:
        client = self._client
        found = client.front.pool.checkout_or_queue(exchange.route.key, now, exchange.avoided)
        if type(found) is Session:
            exchange.hold(found)
            self._send(exchange, now)
        else:
            assert type(found) is Place
            exchange.place = found
            exchange.queued = now
            client.enter_fast_path(Stage.QUEUE, now)
            if found.answered:
                self._granted(now)
            else:
                found.tell = self._granted

    def _granted(self, now: float) -> None:
        """The place in the queue was answered."""
        client = self._client
        try:
            exchange = client.exchange
            assert exchange is not None
            place = exchange.place
            assert place is not None
            if place.error is not None or exchange.route.unlimited_paths:
                self._end(True)  # the task finds the answer in its place
                return
            exchange.place = None
            exchange.hold(place.take())
            exchange.queue_time += now - exchange.queued
            self._send(exchange, now)
        except Exception as error:  # noqa: BLE001  see above
            self._fail(error)

    def _send(self, exchange: Exchange, now: float) -> None:
        client = self._client
        try:
            stream = send_request(client, exchange)
        except PassengerError:
            self._end(True)  # the task tries the same, and judges the process
            return
        if not exchange.body_sent:
            self._end(True)
            return
        if stream.line is not None:
            stream.line.ready = self._answered
        else:
            try:
                stream.line = client.front.switchboard.connect(stream.fd, READABLE, self._answered)
            except OSError:
                self._end(True)  # the slow lane has a poll set of its own
                return
        client.enter_fast_path(Stage.APP, now)

    def _answered(self, events: int) -> None:
        """The process has sent something, or has ended."""
        client = self._client
        try:
            exchange = client.exchange
            assert exchange is not None
            session = exchange.session
            assert session is not None
            assert session.stream is not None
            try:
                data = session.stream.recv_nowait(_READ)
            except trio.WouldBlock:
                return
            except trio.BrokenResourceError:
                data = b""
            if len(data) == _READ and session.worker_protocol.keeps_idle:
                data = _read_on(session.stream, data)
            whole = session.worker_protocol.whole_response(data, exchange.head.method)
            if whole is not None:
                self._forward(exchange, session, *whole)
            else:
                if data:
                    exchange.reader = exchange.new_reader(session)
                    # A reader that parses what it is fed gets the rest in the slow lane, in steps.
                    first = len(data) if session.worker_protocol.keeps_idle else _FIRST
                    exchange.reader.feed(data[:first])
                    exchange.unread = data[first:]
                self._end(True)  # of an end the slow lane hears, too
        except Exception as error:  # noqa: BLE001  see above
            self._fail(error)

    # -- the response -------------------------------------------------------------------------------------------

    def _forward(self, exchange: Exchange, session: Session, payload: bytes, body: bytes, flags: int) -> None:
        client = self._client
        exchange.session = None
        # The response is here: whatever becomes of it, the process is free.
        now = client.now()
        session.close(_DONE, keep_stream=not flags & FLAG_CLOSE, now=now)
        app = parse(payload)
        codec = client.codec
        data = codec.answer(app, body, date=client.front.date(), close=client.ends_after_response)
        exchange.status = app.status
        exchange.response_begun = True
        if exchange.head.method != b"HEAD" and app.status not in NO_BODY:
            exchange.bytes_sent = len(body) - codec.overrun
        try:
            sent = client.stream.send_nowait(data)
        except trio.BrokenResourceError:
            exchange.bytes_sent = 0
            self._fail(ClientGone())
            return
        if sent < len(data):
            exchange.tail = memoryview(data)[sent:]
            exchange.behind = min(exchange.bytes_sent, len(exchange.tail))
            exchange.bytes_sent -= exchange.behind
        elif codec.is_ready_again():
            client.log(exchange)
            client.exchange = None
            if self._deaf and self._line is not None:
                self._deaf = False
                self._line.listen(READABLE)
            if codec.mid_head:
                self._next(now)
            else:
                self._await_head(now)
            return
        exchange.answered = True
        if codec.short:
            self.failure = IncompleteResponse("the application sent less than the Content-Length that it declared")
        self._end(True)


def _read_on(stream: RawStream, data: bytes) -> bytes:
    """What came, and what stands behind it, up to a limit. A broken stream is told of once: so this is for the session protocol, whose responses have an end of their own."""
    pieces = [data]
    try:
        while len(data) == _READ and len(pieces) * _READ < _MOST:
            data = stream.recv_nowait(_READ)
            pieces.append(data)
    except (trio.WouldBlock, trio.BrokenResourceError):
        pass  # whoever reads next is told again of an end
    return b"".join(pieces)
