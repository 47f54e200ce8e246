"""The response forwarder, of the slow path: every response that does not arrive whole in one read, or that outlasts the fast path's timeout.

Its tasks live as long as the response:

* ``fill`` takes the pieces of the process's response and gives their bytes to the client (``response_writer``). The process is free as soon as it has written its
  response, and not when the client has read it.
* ``_send_body`` gives the process the rest of the request body. After that, or if there is no rest, the client is watched, which takes no task (``client_watch``).
* An event stream has no end by itself, and its client connects again. When its process or the server has to go, ``fill`` gets a deadline: the stream gets
  ``websocket_drain`` seconds, and then a proper end. Any other response is waited for.

A process that sends many small pieces (frames, chunks, interim responses) is a flood (``core.read_size``): small pieces are joined, a step handles a bounded number
of them, and takes turns with all other floods (``flood_turns``, KE7). So the clients of other applications do not wait for it.

A client that keeps up costs nothing of the buffer: body bytes are received into the shared receive buffer, and handed to the kernel from there, before
the next checkpoint.

Law: no exception leaves a task. The first failure is noted, and raised when the nursery has ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
import trio

from passenger_trio.codecs.response_head import Fields, parse, parse_interim, parse_switch, parse_trailers
from passenger_trio.codecs.response_lines import with_standard_fields
from passenger_trio.codecs.session_protocol import (
    ACCEPT,
    DATA,
    END,
    ERROR,
    FLAG_CLOSE,
    FLAG_OOB_WORK,
    HEAD,
    INTERIM,
    TRAILERS,
    UPGRADE,
    split_application_error,
)
from passenger_trio.codecs.websocket_handshake import accept_fields
from passenger_trio.codecs.worker_protocol import Reader
from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.read_size import STEP, ReadSize, SmallReads
from passenger_trio.core.spill_ledger import SpillLedger
from passenger_trio.errors import (
    ApplicationRaised,
    IncompleteResponse,
    MalformedResponse,
    PassengerError,
    RequestError,
    UnfitResponseHead,
)
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.client_watch import ClientWatch
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.response_writer import ResponseWriter
from passenger_trio.server.http.send_body import send_body
from passenger_trio.server.http.sizes import RECEIVE_SIZE
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.spill.spill_buffer import SpillBuffer
from passenger_trio.system.sockets import RawStream
from passenger_trio.system.tempfiles import Received

__all__ = ["forward_in_pieces"]

_EVENTS = re.compile(rb"text/event-stream\s*(;|$)", re.IGNORECASE)
"""Server-sent events (HTML Living Standard, section 9.2)."""
_LAST_WORD = 0.05
"""Seconds in which a shell ends after the program that it has started."""
_LAST_LOOKS = 10
_MANY = 16
"""Pieces of one read that are sent as they are; more of them are small, and are copied together first."""
_BULK = 256 * 1024
"""Bytes that the file must have room for, so that it is worth a thread of its own."""
_FIRST_READ, _LEAST_READ = 16 * 1024, 1536
"""Bytes; see ``core.read_size``."""
_MOST_INTERIM = 100
"""Interim responses before a response. Real ones are one to three (RFC 9110 section 15.2, RFC 8297)."""


async def forward_in_pieces(client: Client, exchange: Exchange) -> None:
    """Forward what is left of the response, and of the request body.

    :raises AppResponseError: see ``forward_response``. What was buffered before has gone to the client.
    :raises RequestError: the rest of the request body is not what it should be.
    :raises ClientGone: the client's connection broke.
    """
    session = exchange.session
    assert session is not None
    assert session.stream is not None
    if exchange.reader is None:
        exchange.reader = exchange.new_reader(session)
    client.enter(Stage.SLOW_APP, trio.current_time())
    ledger = SpillLedger(exchange.route.app.response_buffer_high_watermark)
    exchange.buffer = buffer = SpillBuffer(client.front.spill, ledger)
    response = _Forwarder(client, exchange, session.stream, exchange.reader, buffer)
    try:
        async with trio.open_nursery() as nursery:
            response.nursery = response.writer.nursery = nursery
            try:
                response.serve_client()
                await response.fill()
                await response.writer.wait_written()
                nursery.cancel_scope.cancel()
            finally:
                response.watch.end()  # before the nursery is closed: what the watch hears may start a task in it
    finally:
        response.watch.end()
        exchange.bytes_sent = max(0, response.body - ledger.backlog - response.writer.lost)
        exchange.spilled += buffer.spilled
        exchange.buffer = exchange.end_soon = None
        buffer.close()
    if response.failure is not None:
        raise response.failure


@attrs.define(eq=False)
class _Forwarder:
    client: Client
    exchange: Exchange
    stream: RawStream
    reader: Reader
    buffer: SpillBuffer
    nursery: trio.Nursery = attrs.field(init=False)
    failure: PassengerError | ClientGone | None = None
    body: int = 0
    """Body bytes that the process sent, and that may be on the wire (R23)."""
    writer: ResponseWriter = attrs.field(init=False)
    watch: ClientWatch = attrs.field(init=False)
    _filling: trio.CancelScope | None = None
    """The scope of an event stream: its deadline is set when the stream has to end."""
    _raised: ApplicationRaised | None = None
    _switch: tuple[bytes, Fields] | None = None
    """A head of status 101, which is sent to the client when the upgrade follows."""
    _trailers: Fields | None = None
    _over: bool = False
    _size: ReadSize = attrs.field(factory=lambda: ReadSize(_FIRST_READ, _LEAST_READ, RECEIVE_SIZE))
    _small: SmallReads = attrs.field(factory=SmallReads)
    _pieces: int = 0
    """What the reader had read at the last read."""
    _interim_count: int = 0
    _wants_oob_work: bool = False

    def __attrs_post_init__(self) -> None:
        self.writer = ResponseWriter(self.client, self.buffer, self._fail)
        self.watch = ClientWatch(self.client, self._leave, self._probe_client_soon)

    def _leave(self) -> None:
        self._fail(ClientGone())

    def _probe_client_soon(self) -> None:
        self.writer.probe_soon(lambda: not self._over and self._switch is None)

    def _fail(self, failure: PassengerError | ClientGone) -> None:
        """End the response now."""
        if self.failure is None:
            self.failure = failure
        self.nursery.cancel_scope.cancel()

    # -- from the process ---------------------------------------------------------------------------------------

    async def fill(self) -> None:
        """Frames of the process to bytes for the client, until the response is over or cannot be."""
        try:
            await self._fill()
            if self._filling is not None:
                with self._filling:
                    await self._fill()
                if not self._over:
                    self._end_early()
            if self._raised is not None:
                raise self._raised
        except ClientGone as gone:
            self._fail(gone)
        except PassengerError as error:
            self.client.front.flood_turns.end()
            self.failure = error
            # What was good before is still the client's (R25), who has been told nothing yet, perhaps not even a status ...
            try:
                self.writer.flush()
            except ClientGone:
                return
            if self.buffer.ledger.backlog and not isinstance(error, UnfitResponseHead):
                # ... and the process does not wait for that.
                malformed = isinstance(error, MalformedResponse)
                self.exchange.give_back(SessionOutcome.PROCESS_FAILED if malformed else SessionOutcome.DONE)

    async def _fill(self) -> None:
        """Until the response is over; or until it turns out to be an event stream, which gets a scope of its own."""
        limited = self._filling
        reader, turns = self.reader, self.client.front.flood_turns
        while True:
            before = reader.pieces
            while (event := reader.next_event()) is not None:
                self._take(*event)
                if reader.pieces - before >= STEP:
                    self.writer.flush()
                    await turns.take()
                    before = reader.pieces
            self.writer.flush()
            if self._over or self._filling is not limited:
                turns.end()
                break
            if self._size.is_flood or self._small.are_flood:
                turns.end()
                await self.stream.wait_readable()
                await turns.take()
            await self._receive()

    async def _receive(self) -> None:
        """Receive the next bytes of the process: body goes to the client at once, the rest to the reader."""
        stream, buffer, receive_buffer = self.stream, self.buffer, self.client.front.receive_buffer
        broken = False
        try:
            room = min(buffer.room(), self._size.limit)
            if room and not buffer.over_threshold:
                count = await self._receive_into(receive_buffer[:room])
            else:
                self.client.front.flood_turns.end()
                # The buffer is about to be written to disk: first collect what is there.
                try:
                    if not room:
                        raise trio.WouldBlock
                    count = stream.recv_into_nowait(receive_buffer[:room])
                except trio.WouldBlock:
                    room = await buffer.make_room()
                    # In a thread only what is here already: a process that sends slowly is waited for where all are.
                    # (And in small pieces: a thread would take the interpreter from all others.)
                    while (
                        self.writer.is_behind
                        and not self._size.is_flood
                        and (bulk := buffer.wants_bulk(stream)) >= _BULK
                    ):
                        received = await self._store_bulk(bulk)
                        if received.broken:
                            raise trio.BrokenResourceError from None
                        if received.untaken or received.error is not None:
                            return  # what the reader was given comes first
                        if (event := self.reader.next_event()) is not None:
                            self._take(*event)
                            return  # a body that ends by its length ended there: nothing comes behind it
                        room = await buffer.make_room()
                    count = await stream.recv_into(receive_buffer[: min(room, self._size.limit)])
        except trio.BrokenResourceError:
            count, broken = 0, True
        if not count:
            if self.reader.ends_with_stream and not broken:
                broken = await self._ended_badly()
            self.reader.feed_eof(broken)
        # From here to the next checkpoint the shared receive buffer is ours.
        pieces, taken = self.reader.take_body(receive_buffer[:count])
        read = self.reader.pieces
        self._size.found(count, read - self._pieces)
        self._small.found(count, self.client.now())
        self._pieces = read
        if pieces:
            self._take_pieces(pieces)
            self.writer.flush()
        if taken < count:
            self.reader.feed(bytes(receive_buffer[taken:count]))

    async def _receive_into(self, view: memoryview) -> int:
        """A flood, whose turn it is, reads within its step: without a checkpoint, where there is something."""
        if self._size.is_flood or self._small.are_flood:
            try:
                return self.stream.recv_into_nowait(view)
            except trio.WouldBlock:
                self.client.front.flood_turns.end()
        return await self.stream.recv_into(view)

    def _look_for_crashes(self) -> None:
        session = self.exchange.session
        if session is not None and session.process.live.crash_check is not None:
            session.process.live.crash_check.look(self.client.now())

    async def _ended_badly(self) -> bool:
        """Whether the stream has ended because its process has: the kernel ends the streams of a process that crashes, or is killed, in good order, and a
        body without a length must not look whole by that (R25).
        """
        session = self.exchange.session
        if session is None or session.process.killed:
            return session is not None
        crash_check = session.process.live.crash_check
        if crash_check is None:
            return False
        for _ in range(_LAST_LOOKS):
            badly = crash_check.verdict(self.exchange.started, self.client.now())
            if badly is not None:
                return badly
            await trio.sleep(_LAST_WORD / _LAST_LOOKS)
        return False

    async def _store_bulk(self, room: int) -> Received:
        """Body to the disk, framed in a thread. What came behind it goes to the reader.

        The reader and the response's side of the codec are the thread's for so long: who waits here has them both, and what else uses the codec reads requests.
        """
        received = await self.buffer.store_coming(self.stream, room, self._frame)
        self.writer.write_buffered_soon()
        if received.untaken:
            self.reader.feed(received.untaken)
        return received

    def _frame(self, view: memoryview) -> tuple[Sequence[bytes | memoryview], int]:
        """In a thread: the body at the front of what came, as the client gets it."""
        pieces, taken = self.reader.take_body(view)
        codec = self.client.codec
        if len(pieces) > _MANY:
            pieces = [memoryview(b"".join(pieces))]
        out: list[bytes | memoryview] = []
        for piece in pieces:
            cut = codec.overrun
            if framed := codec.response_body(piece):
                self.body += len(piece) - (codec.overrun - cut)
                out += framed
        return out, taken

    def _take_pieces(self, pieces: Sequence[memoryview]) -> None:
        if len(pieces) > _MANY:
            self._take(DATA, b"".join(pieces))
        else:
            for piece in pieces:
                self._take(DATA, piece)

    def _take(self, kind: int, payload: bytes | memoryview) -> None:
        exchange = self.exchange
        codec = self.client.codec
        if self._switch is not None and kind != UPGRADE:
            raise UnfitResponseHead(
                "the application's response cannot be sent: its status is 101, but it is a response"
            )
        if kind == DATA:
            cut = codec.overrun
            if pieces := codec.response_body(payload):
                self.body += len(payload) - (codec.overrun - cut)
                self.writer.out += pieces
            return
        assert isinstance(payload, bytes)
        if kind == HEAD and payload.startswith(b"101\0"):
            try:
                reason, fields = parse_switch(payload, exchange.head.upgrade)
                self._switch = reason, fields + self._sticky_fields()
            except UnfitResponseHead:
                exchange.give_back(SessionOutcome.DONE)  # what the process sends next may be raw, and without an end
                raise
        elif kind == HEAD:
            app = parse(payload)
            if cookie := self._sticky_fields():
                app = app.with_fields(cookie)
            exchange.status = app.status
            self._wants_oob_work = app.wants_oob_work
            self.writer.out.append(
                codec.begin_response(
                    app.status,
                    app.reason,
                    app.fields,
                    length=app.content_length,
                    date=self.client.front.date(),
                    close=self.client.ends_after_response,
                )
            )
            exchange.response_begun = True
            exchange.release_body()
            if self.reader.ends_with_stream:
                self._look_for_crashes()
            if any(name.lower() == b"content-type" and _EVENTS.match(value) for name, value in app.fields):
                self._end_when_told()
        elif kind == INTERIM:
            self._interim_count += 1
            if self._interim_count > _MOST_INTERIM:
                raise MalformedResponse(f"the process sent more than {_MOST_INTERIM} interim responses for one request")
            if interim := codec.interim(*parse_interim(payload)):
                self.writer.out.append(interim)
        elif kind == ERROR:
            self._raised = ApplicationRaised(*split_application_error(payload))
        elif kind == END:
            self._end(payload[0] if payload else 0)
        elif kind == TRAILERS:
            self._trailers = parse_trailers(payload)
        elif kind == ACCEPT:
            self._accept(payload)
        elif kind == UPGRADE:
            self._upgrade()

    def _accept(self, payload: bytes) -> None:
        """The process accepts a WebSocket: what comes from here is for that (``websocket``)."""
        exchange, client = self.exchange, self.client
        fields = with_standard_fields(
            accept_fields(exchange.head, payload) + self._sticky_fields(), client.front.date()
        )
        self.writer.out.append(client.codec.switch_protocols(b"Switching Protocols", fields))
        exchange.status = 101
        exchange.response_begun = self._over = True
        from passenger_trio.server.upgraded.websocket import (
            WebSocket,  # here: the start of the server does not wait for it (DE10)
        )

        exchange.relay = WebSocket(client, exchange)

    def _sticky_fields(self) -> Fields:
        exchange = self.exchange
        if exchange.route.sticky is None or exchange.session is None:
            return []
        return exchange.sticky_fields(exchange.session)

    def _upgrade(self) -> None:
        """The application takes the connection over: what comes from here is for the relay (``upgrade``)."""
        exchange = self.exchange
        if not exchange.body_sent:
            raise MalformedResponse("the process has taken the connection over before it had the whole request")
        if self._switch is not None:
            exchange.status = 101
            self.writer.out.append(self.client.codec.switch_protocols(*self._switch))
        exchange.response_begun = exchange.upgraded = self._over = True

    def _end(self, flags: int) -> None:
        """The process is done: it is free before the client has the last byte."""
        exchange = self.exchange
        session = exchange.session
        exchange.give_back(SessionOutcome.DONE, keep_stream=exchange.body_sent and not flags & FLAG_CLOSE)
        if session is not None and (self._wants_oob_work or flags & FLAG_OOB_WORK):
            session.want_oob_work()
        self._over = True
        if self._raised is None:
            if end := self.client.codec.end_response(self._trailers):
                self.writer.out.append(end)
            if self.client.codec.short:
                raise IncompleteResponse("the application sent less than the Content-Length that it declared")

    # -- an event stream has to end -----------------------------------------------------------------------------

    def _end_when_told(self) -> None:
        exchange = self.exchange
        self._filling = trio.CancelScope()
        exchange.end_soon = self.end_soon
        if exchange.session is not None:
            exchange.session.tell_of_end(self.end_soon)
        if self.client.front.draining:
            self.end_soon()

    def end_soon(self) -> None:
        """The process, or the server, is to go. Idempotent; it may also be called when the response is over, for the session can last longer."""
        filling = self._filling
        assert filling is not None
        filling.deadline = min(filling.deadline, trio.current_time() + self.client.front.options.websocket_drain)

    def _end_early(self) -> None:
        """End an event stream whose time is over. Called where nothing else of the response is under way."""
        exchange = self.exchange
        self._over = exchange.ended_early = True
        lines.event_stream_closed(
            group=exchange.route.group_name, request_id=exchange.request_id.decode(), pid=exchange.pid or None
        )
        if end := self.client.codec.end_response():
            self.writer.out.append(end)
            self.writer.flush()

    # -- from the client ----------------------------------------------------------------------------------------

    def serve_client(self) -> None:
        """The rest of the request body to the process; after that, watch the client's connection."""
        if self.exchange.body_sent:
            self.exchange.release_body()
            self.watch.begin()
        else:
            self.nursery.start_soon(self._send_body)

    async def _send_body(self) -> None:
        try:
            await send_body(self.client, self.exchange, self.stream, self._interim)
        except RequestError as failure:
            # A process that has ended its response has no use for the rest: its client may stop sending that, and still gets what the process has said.
            if not self._over:
                self._abandon(failure)
        except ClientGone as gone:
            self._abandon(gone)
        except PassengerError as lost:
            self._fail(lost)
        else:
            self.exchange.release_body()
            self.watch.begin()

    def _interim(self, data: bytes) -> None:
        """An interim response of ours, in its place among what the client is to get."""
        self.writer.write([data])

    def _abandon(self, failure: RequestError | ClientGone) -> None:
        if self.buffer.ledger.backlog:
            # Part of something is on the wire already: nothing else can be told.
            self.exchange.response_begun = True
        self._fail(failure)
