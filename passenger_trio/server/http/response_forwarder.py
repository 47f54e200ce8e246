"""The response forwarder, of the slow path: every response that does not arrive whole in one read, or that outlasts the fast path's timeout.

Its tasks live as long as the response:

* ``fill`` takes the pieces of the process's response and gives their bytes to the client (``response_writer``). The process is free as soon as it has written its
  response; it does not wait until the client has read it. ``response_events`` says what each piece means. While the client keeps up and the pieces are few,
  the task sleeps, and the poller passes them on (``pass_through``).
* ``serve_client`` gives the process the rest of the request body. After that, or if there is no rest, it watches the client, which takes no task (``client_watch``).

A process that sends many small pieces (frames, chunks, interim responses) is a flood (``core.read_size``). Small pieces are joined. A step handles a bounded number
of them, and takes turns with all other floods (``flood_turns``, KE7). So the clients of other applications do not wait for a flood.

A client that keeps up needs no buffer: what comes in bulk is received into the shared receive buffer, and handed to the kernel from there before
the next checkpoint.

Law: no exception leaves a task. The first failure is noted, and raised when the nursery has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.read_size import STEP
from passenger_trio.core.spill_ledger import SpillLedger
from passenger_trio.errors import (
    MalformedResponse,
    PassengerError,
    RequestError,
    UnfitResponseHead,
)
from passenger_trio.late_classes import define
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.client_watch import ClientWatch
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.pass_through import PassThrough
from passenger_trio.server.http.response_events import MANY
from passenger_trio.server.http.response_writer import ResponseWriter
from passenger_trio.server.http.send_body import send_body
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.spill.spill_buffer import SpillBuffer
from passenger_trio.system.tempfiles import Received

__all__ = ["forward_in_pieces"]

_LAST_WORD = 0.05
"""Seconds that a shell may need to end after its program has ended."""
_LAST_LOOKS = 10
_BULK = 256 * 1024
"""Storing in bulk uses a thread. It is worth that only if the file has room for so many bytes."""
_FIRST_READ, _LEAST_READ = 16 * 1024, 1536
"""Bytes; see ``core.read_size``."""


async def forward_in_pieces(client: Client, exchange: Exchange) -> None:
    """Forward what is left of the response, and of the request body.

    :raises AppResponseError: see ``forward_response``. The client has got everything that was buffered before.
    :raises RequestError: the rest of the request body is invalid, too long or late.
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
    response = _Forwarder(client, exchange, exchange.reader, buffer, stream=session.stream)
    try:
        async with trio.open_nursery() as nursery:
            response.nursery = response.writer.nursery = nursery
            try:
                response.serve_client()
                await response.fill()
                await response.writer.wait_written()
                nursery.cancel_scope.cancel()
            finally:
                response.watch.end()  # before the nursery is closed, because a callback of the watch may start a task in it
    finally:
        response.watch.end()
        exchange.bytes_sent = max(0, response.body - ledger.backlog - response.writer.lost)
        exchange.spilled += buffer.spilled
        exchange.buffer = exchange.end_soon = None
        buffer.close()
    if response.failure is not None:
        raise response.failure


@define(eq=False)
class _Forwarder(PassThrough):
    nursery: trio.Nursery = attrs.field(init=False)
    failure: PassengerError | ClientGone | None = None
    watch: ClientWatch = attrs.field(init=False)

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
        """Turn frames of the process into bytes for the client, until the response is over or has failed."""
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
            # The client still gets the valid part (R25). It may have got nothing yet, not even a status ...
            try:
                self.writer.flush()
            except ClientGone:
                return
            if self.buffer.ledger.backlog and not isinstance(error, UnfitResponseHead):
                # ... and the process does not wait until the client has read it.
                malformed = isinstance(error, MalformedResponse)
                self.exchange.give_back(SessionOutcome.PROCESS_FAILED if malformed else SessionOutcome.DONE)

    async def _fill(self) -> None:
        """``fill`` until the response is over, or until it turns out to be an event stream, which then gets a scope of its own."""
        limited = self._filling
        reader, turns = self.reader, self.client.front.flood_turns
        while True:
            before = reader.pieces
            while (event := reader.next_event()) is not None:
                self._take(*event)
                if reader.pieces - before >= STEP:
                    self.writer.flush()
                    await turns.take(is_heavy=self._size.is_heavy)
                    before = reader.pieces
            self.writer.flush()
            if self._over or self._filling is not limited:
                turns.end()
                break
            if self._is_flood:
                turns.end()
                await self.stream.wait_readable()
                await turns.take(is_heavy=self._size.is_heavy)
            await self._receive()

    async def _receive(self) -> None:
        """Receive the next bytes of the process. Give body bytes to the client at once, and all others to the reader."""
        stream, buffer, receive_buffer = self.stream, self.buffer, self.client.front.receive_buffer
        broken = False
        try:
            room = min(buffer.room(), self._size.limit)
            if self._passes_through:
                if await self._pass_through():
                    return
                count, broken = 0, bool(self._ended)
            elif room and not buffer.over_threshold:
                count = await self._receive_into(receive_buffer[:room])
            else:
                self.client.front.flood_turns.end()
                # The buffer is about to be written to disk. First collect the bytes that have arrived.
                try:
                    if not room:
                        raise trio.WouldBlock
                    count = stream.recv_into_nowait(receive_buffer[:room])
                except trio.WouldBlock:
                    room = await buffer.make_room()
                    # The thread gets only bytes that have arrived already: waiting for a slow process happens in the event loop.
                    # (And only small pieces are taken here: a thread that handles many would keep the interpreter from all others.)
                    while (
                        self.writer.is_behind
                        and not self._size.is_flood
                        and (bulk := buffer.wants_bulk(stream)) >= _BULK
                    ):
                        received = await self._store_bulk(bulk)
                        if received.broken:
                            raise trio.BrokenResourceError from None
                        if received.untaken or received.error is not None:
                            return  # the bytes that the reader has come first
                        if (event := self.reader.next_event()) is not None:
                            self._take(*event)
                            return  # the body ended there by its length: nothing follows
                        room = await buffer.make_room()
                    count = await stream.recv_into(receive_buffer[: min(room, self._size.limit)])
        except trio.BrokenResourceError:
            count, broken = 0, True
        if not count:
            if self.reader.ends_with_stream and not broken:
                broken = await self._ended_badly()
            self.reader.feed_eof(broken)
        # To the next checkpoint only this task uses the shared receive buffer.
        self._take_read(receive_buffer[:count])

    async def _receive_into(self, view: memoryview) -> int:
        """Receive bytes. A flood whose turn it is reads without a checkpoint if bytes have arrived, so that its step is not interrupted."""
        if self._is_flood:
            try:
                return self.stream.recv_into_nowait(view)
            except trio.WouldBlock:
                self.client.front.flood_turns.end()
        return await self.stream.recv_into(view)

    async def _ended_badly(self) -> bool:
        """Whether the stream has ended because its process has ended.

        When a process crashes or is killed, the kernel ends its streams with a FIN, as after a whole response. A body without a length must not look
        whole for that reason (R25).
        """
        session = self.exchange.session
        if session is None or session.process.killed:
            return session is not None
        crash_check = session.process.live.crash_check
        if crash_check is None:
            return False
        for _ in range(_LAST_LOOKS):
            badly = crash_check.verdict(self.exchange.started, self.client.current_time())
            if badly is not None:
                return badly
            await trio.sleep(_LAST_WORD / _LAST_LOOKS)
        return False

    async def _store_bulk(self, room: int) -> Received:
        """Receive and frame body bytes in a thread, straight to the disk. Bytes behind the body go to the reader.

        Meanwhile only the thread uses the reader and the response's side of the codec: this task owns both and waits here, and all other users of the
        codec read requests.
        """
        received = await self.buffer.store_coming(self.stream, room, self._frame)
        self.writer.write_buffered_soon()
        if received.untaken:
            self.reader.feed(received.untaken)
        return received

    def _frame(self, view: memoryview) -> tuple[Sequence[bytes | memoryview], int]:
        """In a thread: return the body bytes at the front of ``view``, framed for the client."""
        pieces, taken = self.reader.take_body(view)
        codec = self.client.codec
        if len(pieces) > MANY:
            pieces = [memoryview(b"".join(pieces))]
        out: list[bytes | memoryview] = []
        for piece in pieces:
            cut = codec.overrun
            if framed := codec.response_body(piece):
                self.body += len(piece) - (codec.overrun - cut)
                out += framed
        return out, taken

    # -- from the client ----------------------------------------------------------------------------------------

    def serve_client(self) -> None:
        """Send the rest of the request body to the process. After that, watch the client's connection."""
        if self.exchange.body_sent:
            self.exchange.release_body()
            self.watch.begin()
        else:
            self.nursery.start_soon(self._send_body)

    async def _send_body(self) -> None:
        try:
            await send_body(self.client, self.exchange, self.stream, self._interim)
        except RequestError as failure:
            # A process that has ended its response does not need the rest of the body. If the client stops sending it, it still gets the response.
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
        """Send an interim response of the server, in its place among the bytes for the client."""
        self.writer.write([data])

    def _abandon(self, failure: RequestError | ClientGone) -> None:
        if self.buffer.ledger.backlog:
            # Part of a response is on the wire already: no other response can be sent.
            self.exchange.response_begun = True
        self._fail(failure)
