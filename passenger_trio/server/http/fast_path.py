"""The fast path: most requests, from the head to the end of the response, in steps for which no task has to be woken.

A connection's task sleeps in ``FastPath.run`` meanwhile. Each step is a callback, named for its event, and does what can be done without waiting. This is the
whole loop; its states are stages of the connection (``Client.stage``):

    ====== =================== =========================== =================================================================
    state  waits for           event                       what the step does, and the next state
    ====== =================== =========================== =================================================================
    IDLE   a request           on_readable (the client)    _next_request: no head yet: IDLE, or HEAD from its first byte on;
    HEAD   the rest of it      on_readable (the client)    a head: _check_out. A process is free: _send_request, APP; else QUEUE
    QUEUE  a process           on_granted (the pool)       _send_request, APP
    APP    the response        on_response (the process)   _send_response, then _next_request
    QUEUE, APP                 on_readable (the client)    more bytes, or EOF, before its response: we stop reading until that is sent
    any    --                  what the path does not do   _leave_to_slow_path: the task goes on where the step stopped
    any    --                  the client has ended        _leave_to_close: the task closes the connection
    any    --                  the deadline has passed     on_cancelled: the task goes on (``connection._AFTER_TIMEOUT``)
    ====== =================== =========================== =================================================================

Every request begins in one method, ``_next_request``. The methods stand in the order of a request.

A request stays here if all of these hold: it has arrived as a whole; a process is free now, or within ``FAST_PATH_TIMEOUT``; the process takes the request in one
write and answers with a whole, short response in one read; the client takes the response in one write. The steps store everything where the task would have
stored it: in the ``Exchange``, and in the connection's stage.

Laws: a step neither waits nor raises, and is atomic. While the task sleeps here nobody else touches the connection's exchange and sockets. Once the task runs
again, all callbacks of the fast path have been removed, also the pool's. ``on_granted`` does not call the pool, which may be in the middle of other grants. An
error that a step finds is stored for the task (``failure``), which knows what the error means. An error that the task will meet again by itself is not stored.
"""

from __future__ import annotations

import outcome
import trio

from passenger_trio.codecs.response_head import parse_response_head
from passenger_trio.codecs.response_lines import NO_BODY
from passenger_trio.codecs.session_protocol import FLAG_CLOSE, FLAG_OOB_WORK
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import IncompleteResponse, PassengerError, RequestError
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.server.http.buffer_body import take_body_nowait
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.init_request import init_request
from passenger_trio.server.http.interruptions import ClientGone, HealthAsked
from passenger_trio.server.http.send_request import send_request
from passenger_trio.server.http.stage import Stage
from passenger_trio.system.poller import HUNG_UP, READABLE, Registration
from passenger_trio.system.raw_stream import RawStream

__all__ = ["FastPath"]

_DONE = SessionOutcome.DONE
_READ = 65536
_MOST = 2 * _READ
"""Bytes of a response that the fast path joins from several reads, because that costs less than the slow path's nursery. So many bytes stay in memory if the client does not read."""


class FastPath:
    """One connection's."""

    __slots__ = ("_client", "_reads_paused", "_registration", "_result", "_task", "failure")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._task: trio.lowlevel.Task | None = None
        """The connection's task, while it sleeps."""
        self._registration: Registration | None = None
        """The registration of the client's socket, during ``run``."""
        self._reads_paused = False
        """The client sent data or EOF before its response: its socket is watched for nothing."""
        self._result: bool | None = None
        """The result of ``run``; None while the loop runs."""
        self.failure: Exception | None = None
        """An error for the task, to raise as if it had found the error itself."""

    async def run(self) -> bool:
        """Serve requests. Always a checkpoint.

        The first one is that whose body the slow path has read, if there is one (``_check_out``); else the next one (``_next_request``).

        :return: True: ``exchange``, if there is one, and ``failure`` need the task. False: the connection is to end.
        """
        client = self._client
        try:
            self._register()
        except OSError as error:
            client.front.warn_rarely(f"cannot watch a client's socket: {error.strerror}")
            await trio.lowlevel.checkpoint()
            return False
        try:
            if client.exchange is None:
                self._next_request(client.current_time())
            else:
                self._check_out(client.exchange, client.current_time())
            if self._result is None:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self.on_cancelled)
            else:
                await trio.lowlevel.checkpoint()
            if client.expired:
                # The scope was cancelled in the same step: that is delivered here, and not in the middle of something else.
                await trio.lowlevel.checkpoint()
        finally:
            self._unregister()
        assert self._result is not None
        return self._result

    def _register(self) -> None:
        """The poller calls ``registration.on_ready`` again and again until all bytes are read. It reads that attribute for each event, so to assign another
        step replaces the callback."""
        stream = self._client.stream
        self._registration = stream.registration = self._client.front.poller.register(
            stream.fd, READABLE, self.on_readable
        )
        self._reads_paused = False
        self._result = None

    @property
    def sleeps(self) -> bool:
        """Whether the connection's task sleeps in ``run``."""
        return self._task is not None

    def _unregister(self) -> None:
        """No event calls this object any more. Idempotent."""
        client = self._client
        self._registration = None
        client.stream.unregister()
        exchange = client.exchange
        if exchange is not None:
            if exchange.waiter is not None:
                exchange.waiter.on_granted = None
            if exchange.session is not None and exchange.session.stream is not None:
                exchange.session.stream.unregister()

    # -- the request ----------------------------------------------------------------------------------------------

    def on_readable(self, events: int) -> None:
        """The client has sent something, or has ended."""
        client = self._client
        try:
            if client.exchange is None:
                try:
                    client.codec.receive(client.stream.recv_nowait())
                except trio.WouldBlock:
                    return
                except trio.BrokenResourceError:
                    self._leave_to_close()
                    return
                self._next_request(client.current_time())
            elif events & HUNG_UP:
                self._leave_to_slow_path()  # the slow path sees it, too
            elif not self._reads_paused and self._registration is not None:
                self._reads_paused = True
                self._registration.modify(0)
        except Exception as error:  # noqa: BLE001  a bug of ours costs one connection, and not all that the poller has (F13)
            self._fail(error)

    def _next_request(self, now: float) -> None:
        """The one place where a request begins: with its head, if that is here whole; else it is waited for."""
        client = self._client
        codec = client.codec
        try:
            head_begun = codec.mid_head
            if head_begun:
                head = codec.next_head()
                if head is not None:
                    # Only the stage is set here, so that the connection is not idle. ``enter_fast_path`` or ``enter`` sets ``since`` and ``due`` before the next wait.
                    client.stage = Stage.APP
                    client.served += 1
                    client.front.requests += 1
                    client.exchange = exchange = init_request(client, head, now)
                    if exchange.body_whole or take_body_nowait(codec, exchange):
                        self._check_out(exchange, now)
                    else:
                        self._leave_to_slow_path()
                    return
                head_begun = codec.mid_head
        except RequestError as error:
            client.refused_since = client.since if client.stage is Stage.HEAD else now
            self._fail(error)
            return
        except HealthAsked as asked:
            client.front.requests -= 1  # it is not an application's
            self._fail(asked)
            return
        self._wait_for_head(head_begun, now)

    def _wait_for_head(self, head_begun: bool, now: float) -> None:
        """Set the deadline of the next head (R27): absolute from its first byte; before that, the time to be idle."""
        client = self._client
        front = client.front
        if client.codec.peer_closed:
            self._leave_to_close()
        elif head_begun:
            if client.stage is not Stage.HEAD:
                client.enter(Stage.HEAD, now, front.options.header_timeout)
        elif not client.served:
            client.enter(Stage.IDLE, now, front.options.header_timeout)
        elif not front.draining:
            client.enter(Stage.IDLE, now, front.options.keep_alive_timeout)
            if front.give_away is not None:
                front.give_away(client)
        else:
            # A request that has arrived by now was sent in good faith, and is served; its response says that it is the last.
            try:
                client.codec.receive(client.stream.recv_nowait())
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._leave_to_close()
            else:
                self._next_request(now)

    # -- a process ------------------------------------------------------------------------------------------------

    def _check_out(self, exchange: Exchange, now: float) -> None:
        """Borrow a process, or wait in the pool's queue for one."""
        client = self._client
        # ``Checkouts.checkout_or_queue``; with several fronts that of ``LeasedPool``.
        found = client.front.pool.checkout_or_queue(exchange.route.key, now, exchange.avoided, exchange.sticky_route)
        if type(found) is not Waiter:
            exchange.use_session(found)
            self._send_request(exchange, now)
        else:
            exchange.waiter = found
            exchange.queued = now
            client.enter_fast_path(Stage.QUEUE, now)
            if found.answered:
                self.on_granted(now)
            else:
                found.on_granted = self.on_granted

    def on_granted(self, now: float) -> None:
        """The pool has answered the request's place in the queue: with a session, or an error."""
        client = self._client
        try:
            exchange = client.exchange
            assert exchange is not None
            waiter = exchange.waiter
            assert waiter is not None
            if waiter.error is not None or exchange.route.unlimited_paths:
                self._leave_to_slow_path()  # the task finds the answer in its place
                return
            exchange.waiter = None
            exchange.use_session(waiter.take())
            exchange.queue_time += now - exchange.queued
            self._send_request(exchange, now)
        except Exception as error:  # noqa: BLE001  see above
            self._fail(error)

    def _send_request(self, exchange: Exchange, now: float) -> None:
        """Give the process the request, and wait for ``on_response``."""
        client = self._client
        try:
            stream = send_request(exchange, client.peer, now, client.front.poller.all_told)
        except PassengerError:
            self._leave_to_slow_path()  # the task tries the same, and judges the process
            return
        if not exchange.body_sent:
            self._leave_to_slow_path()
            return
        if stream.registration is not None:
            # An idle stream is still registered: ``Process.keep`` has put ``_stirred`` in this place.
            stream.registration.on_ready = self.on_response
        else:
            try:
                stream.registration = client.front.poller.register(stream.fd, READABLE, self.on_response)
            except OSError:
                self._leave_to_slow_path()  # the slow path has a poll set of its own
                return
        client.front.poller.answer_expected = True  # its turn waits for the answer; nothing else changes
        client.enter_fast_path(Stage.APP, now)

    # -- the response ---------------------------------------------------------------------------------------------

    def on_response(self, events: int) -> None:
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
            whole = session.worker_protocol.read_whole_response(data, exchange.head.method)
            if whole is not None:
                self._send_response(exchange, session, *whole)
            else:
                if data:
                    exchange.reader = exchange.new_reader(session)
                    exchange.reader.feed(data)
                self._leave_to_slow_path()  # the slow path sees the end of a stream, too
        except Exception as error:  # noqa: BLE001  see above
            self._fail(error)

    def _send_response(self, exchange: Exchange, session: Session, payload: bytes, body: bytes, flags: int) -> None:
        """The whole response is here: give the process back, then answer the client.

        :param payload: the head, as the process has sent it. :param flags: what the process asks for (``FLAG_CLOSE``, ``FLAG_OOB_WORK``).
        """
        client = self._client
        exchange.session = None
        # Whatever becomes of the response, the process is free.
        now = client.current_time()
        session.close(_DONE, keep_stream=not flags & FLAG_CLOSE, now=now)
        exchange.app_time = now - client.since  # the stage APP began when the process got the request
        app = parse_response_head(payload)  # equal heads share one
        if app.wants_oob_work or flags & FLAG_OOB_WORK:
            session.want_oob_work()
        if exchange.route.sticky is not None and (cookie := exchange.sticky_fields(session)):
            app = app.with_fields(cookie)
        codec = client.codec
        data = codec.write_app_response(app, body, date=client.front.date(), close=client.ends_after_response)
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
        elif codec.finish_message():
            client.log(exchange)
            client.exchange = None
            if self._reads_paused and self._registration is not None:
                self._reads_paused = False
                self._registration.modify(READABLE)
            self._next_request(now)
            return
        exchange.answered = True
        if codec.short:
            self.failure = IncompleteResponse("the application sent less than the Content-Length that it declared")
        self._leave_to_slow_path()

    # -- away from the fast path ----------------------------------------------------------------------------------

    def _leave_to_slow_path(self) -> None:
        """The task goes on with the request where the step has stopped (``Connection._serve_on_slow_path``)."""
        self._result = True
        self._wake_task()

    def _leave_to_close(self) -> None:
        """No request is in hand, and none is to come: the task closes the connection."""
        self._result = False
        self._wake_task()

    def _wake_task(self) -> None:
        client = self._client
        if client.stage is Stage.APP and client.exchange is not None:
            client.exchange.asked = client.since
        client.enter(Stage.SLOW_APP, client.current_time())  # a stage without a deadline
        self._unregister()
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Value(None))

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        self._leave_to_slow_path()

    def on_cancelled(self, _: object) -> trio.lowlevel.Abort:
        """The task's scope is cancelled: the deadline of the stage has passed, or the server ends."""
        self._task = None
        self._unregister()
        return trio.lowlevel.Abort.SUCCEEDED


def _read_on(stream: RawStream, data: bytes) -> bytes:
    """``data`` and the bytes that have arrived behind it, up to a limit.

    Only for the session protocol, whose responses mark their own end: a broken stream raises only once, and that error is dropped here.
    """
    pieces = [data]
    try:
        while len(data) == _READ and len(pieces) * _READ < _MOST:
            data = stream.recv_nowait(_READ)
            pieces.append(data)
    except (trio.WouldBlock, trio.BrokenResourceError):
        pass  # the next read sees the end of the stream again
    return b"".join(pieces)
