"""A WebSocket that ends here: frames with the client, messages with the worker, for as long as both want.

It begins behind the worker's ``W`` (CONTRACT.md), of which the response forwarder has made a 101. Its tasks are ``_from_client`` and ``_from_worker``; a
``SendQueue`` to each side has one task more while that side does not read. When a deadline has passed the deadline scanner calls ``_on_due``, which needs no task.
``core/websocket_life`` decides what happens when, and who is told. ``codecs/websocket_frames`` knows what a frame is, and is the only module that knows the WebSocket library.

Laws:

* Back-pressure goes through: while a side does not read, the other is not read. A connection holds one read and one message in each direction.
* Control frames are not held up by that: a Ping is answered as soon as its sender takes the answer; of several waiting Pings, the last is answered (RFC 6455, 5.5.3).
* The client's descriptor is closed as soon as the client's side is over. The process is given back when the worker says that its application has ended, and
  counts as busy until then.
* No end of the worker, of the server or of its tasks lets the client's connection end without a Close, as long as one can be written.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import TypedDict

import trio

from passenger_trio.codecs import session_messages
from passenger_trio.codecs.session_messages import MessageReader, encode_message
from passenger_trio.codecs.session_protocol import END, FLAG_CLOSE, ResponseReader
from passenger_trio.codecs.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAILURE,
    PING,
    PONG,
    TEXT,
    FrameReader,
    close_code,
    close_payload,
    encode_frame,
    is_close_payload,
)
from passenger_trio.core.lingering import LINGER_BYTES
from passenger_trio.core.metric_counts import close_word
from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.read_size import STEP, ReadSize
from passenger_trio.core.websocket_close_codes import AFTER_FAILURE, AT_PROCESS_END, AT_SERVER_STOP, LOST, NO_CODE
from passenger_trio.core.websocket_life import (
    AbortWorker,
    CutClient,
    LeaveWorker,
    Order,
    Ping,
    Side,
    TellClient,
    TellWorker,
    Times,
    WebSocketLife,
)
from passenger_trio.errors import IncompleteResponse, MalformedResponse
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.upgraded.send_queue import SendQueue
from passenger_trio.system.raw_stream import RawStream

__all__ = ["WebSocket"]

_READ = 65536
_FIRST_READ, _LEAST_READ = 8192, 1024
"""Bytes of a worker; see ``core.read_size``."""
_FIRST_FRAMES, _LEAST_FRAMES = 2048, 512
"""Bytes of a client, whose frames are all handled in the step that reads them."""

# Messages by the names that the two protocols have for them.
_TO_WORKER = {TEXT: session_messages.TEXT, BINARY: session_messages.BINARY}
_TO_CLIENT = {session_messages.TEXT: TEXT, session_messages.BINARY: BINARY}

_OPEN = Side.OPEN


class _Whose(TypedDict):
    """Fields of each line about a WebSocket."""

    group: str
    request_id: str
    pid: int | None


class WebSocket:
    """One WebSocket, from the 101 on."""

    lingers = False  # it has done so itself (``_let_go``)

    __slots__ = (
        "_aborted",
        "_client",
        "_code",
        "_exchange",
        "_life",
        "_pong",
        "_reader",
        "_session_reader",
        "_to_client",
        "_to_worker",
        "_within",
        "active",
        "bytes_up",
        "logged",
    )

    def __init__(self, client: Client, exchange: Exchange) -> None:
        front = client.front
        now = client.current_time()
        self._client = client
        self._exchange = exchange
        self._life = WebSocketLife(Times.of(front.options), now)
        self._reader = FrameReader(front.frame_limits, now)
        self._session_reader = MessageReader()
        self._to_client: SendQueue | None = None
        self._to_worker: SendQueue | None = None
        self._pong: bytes | None = None
        """The payload of the last Ping that could not be answered yet."""
        self._aborted = False
        """Whether the worker was aborted by the end of its stream, which is not used again."""
        self._within = False
        """Whether a message to the client was begun, in a frame that is not its last."""
        self.bytes_up = 0
        """Bytes from the client, of frames."""
        self.active = now
        """When a message last passed, in monotonic seconds."""
        self.logged = False
        self._code = 0
        """Of the first Close, from the client or to it; 0: there was none."""

    # -- its life -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pass messages on until both sides have ended. Gives the session back and closes the client's connection."""
        client, exchange = self._client, self._exchange
        session = exchange.session
        assert session is not None
        assert session.stream is not None
        assert isinstance(exchange.reader, ResponseReader)  # no other worker protocol has it
        client.enter(Stage.WEBSOCKET, client.current_time(), on_due=self._on_due)
        self._session_reader = MessageReader(exchange.reader.take_rest())
        exchange.reader = None
        early = client.codec.hand_over()
        async with trio.open_nursery() as nursery:
            self._to_client = SendQueue(client.stream, nursery, client.current_time, self._client_moved)
            self._to_worker = SendQueue(session.stream, nursery, client.current_time, self._worker_moved)
            session.set_long_lived(self._process_goes, taken_over=False)
            if client.front.draining:
                self.end_soon()
            self._set_due()
            nursery.start_soon(self._from_client, early)
            await self._from_worker()

    @property
    def bytes_down(self) -> int:
        """Bytes given to the client's connection, behind the 101."""
        return 0 if self._to_client is None else self._to_client.sent

    def end_soon(self) -> None:
        """The server is to end: both sides have a last time to end by themselves."""
        self._life.drain(AT_SERVER_STOP, self._client.current_time(), random.random())
        self._set_due()

    def _process_goes(self) -> None:
        self._life.drain(AT_PROCESS_END, self._client.current_time(), random.random())
        self._set_due()

    def _on_due(self, now: float) -> bool:
        """A deadline of the life may have passed. False: the connection does not time out by that; the life decides what is done."""
        self._perform(self._life.tick(now))
        return False

    def send_final_close(self) -> None:
        """The tasks are being cancelled: send the client a Close, if that can be done at once."""
        if self._life.client is _OPEN and (self._to_client is None or not self._to_client.kept):
            code = AT_SERVER_STOP if self._client.front.draining else AFTER_FAILURE
            try:
                self._client.stream.send_nowait(encode_frame(CLOSE, close_payload(code)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    def _set_due(self) -> None:
        if self._to_client is not None:  # else the connection is still at the stage before
            self._client.due = self._life.due()

    def _client_moved(self, since: float) -> None:
        life = self._life
        life.client_stuck = since
        if since == math.inf:
            life.heard = self._client.current_time()
            pong, self._pong = self._pong, None
            if pong is not None:
                self._send(encode_frame(PONG, pong))
        self._set_due()

    def _worker_moved(self, since: float) -> None:
        self._life.worker_stuck = since
        if since == math.inf:
            self._life.heard = self._client.current_time()
        self._set_due()

    def _perform(self, orders: Iterable[Order]) -> None:
        for order in orders:
            match order:
                case Ping():
                    self._send(encode_frame(PING, b""))
                case TellClient(code, reason):
                    self._close_client(code, reason)
                case TellWorker(code, reason):
                    self._tell_worker(b"" if code == NO_CODE else close_payload(code, reason))
                case CutClient():
                    lines.websocket_client_silent(client=self._client.peer.address, **self._whose())
                    self._client.stream.send_eof()
                    self._client.stream.close()
                    assert self._to_worker is not None
                    self._to_worker.release()
                case AbortWorker():
                    self._abort_worker()
                case LeaveWorker():
                    self._exchange.give_back(SessionOutcome.CLIENT_GONE)
        self._set_due()

    # -- to the client --------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        assert self._to_client is not None
        self._to_client.put(data)

    def _close_client(self, code: int, reason: str) -> None:
        self._code = self._code or code
        self._send(encode_frame(CLOSE, b"" if code == NO_CODE else close_payload(code, reason)))
        # Its answer is read also while the worker takes nothing.
        assert self._to_worker is not None
        self._to_worker.release()

    async def _from_worker(self) -> None:
        """The worker's messages to the client, until its session or its stream has ended."""
        session = self._exchange.session
        assert session is not None
        stream = session.stream
        assert stream is not None
        assert self._to_client is not None
        reader = self._session_reader
        life = self._life
        turns = self._client.front.flood_turns
        size = ReadSize(_FIRST_READ, _LEAST_READ, _READ)
        came = 0
        try:
            while True:
                out: list[bytes] = []
                messages = 0
                while (event := reader.next_event()) is not None:
                    self._take_from_worker(*event, out)
                    messages += 1
                    if messages % STEP == 0:
                        if out:
                            self._send(b"".join(out))
                            out.clear()
                        await turns.take(is_heavy=size.is_heavy)
                if out:
                    self._send(out[0] if len(out) == 1 else b"".join(out))
                if life.worker is Side.GONE:
                    return
                size.found(came, messages)
                if life.client is _OPEN:
                    await self._to_client.wait_clear()
                data = await self._read(stream, size)
                came = len(data)
                if not data:
                    reader.feed_eof()
                reader.feed(data)
        except (IncompleteResponse, trio.BrokenResourceError):
            self._worker_gone(False)
        except trio.ClosedResourceError:
            pass  # the process was given back already
        except MalformedResponse as error:
            lines.websocket_failed(reason=str(error), **self._whose())
            self._worker_gone(True)

    def _take_from_worker(self, kind: int, payload: bytes, last: bool, out: list[bytes]) -> None:
        life = self._life
        opcode = _TO_CLIENT.get(kind)
        now = self._client.current_time()
        if opcode is not None:
            if life.client is _OPEN:  # else nobody wants it any more
                out.append(encode_frame(CONTINUATION if self._within else opcode, payload, final=last))
                self._within = not last
                self.active = now
            return
        # What was said before comes first.
        if out:
            self._send(b"".join(out))
            out.clear()
        if kind == END:
            life.worker_ends()
            flags = payload[0] if payload else 0
            assert self._to_worker is not None
            at_boundary = not (flags & FLAG_CLOSE or self._aborted or self._to_worker.kept)
            self._exchange.give_back(SessionOutcome.DONE, keep_stream=at_boundary)
            self._set_due()
            return
        code, reason = close_code(payload), payload[2:].decode()
        if not is_close_payload(payload):
            lines.websocket_bad_code(code=code, **self._whose())
            code, reason = AFTER_FAILURE, ""
        self._perform(life.worker_closes(code, reason, now))

    def _worker_gone(self, broken: bool) -> None:
        if self._life.worker is not Side.GONE:
            self._perform(self._life.worker_lost(self._client.current_time(), broken=broken))
            # The process is not to blame for its end before its exit has been seen.
            self._exchange.give_back(SessionOutcome.PROCESS_FAILED if broken else SessionOutcome.DONE)

    async def _read(self, stream: RawStream, size: ReadSize) -> bytes:
        """The next bytes of a side; ``b""`` at its end. A flood waits for its turn, too (KE7)."""
        if not size.is_flood:
            return await stream.recv(size.limit)
        turns = self._client.front.flood_turns
        turns.end()
        while True:
            await stream.wait_readable()
            await turns.take(is_heavy=size.is_heavy)
            try:
                return stream.recv_nowait(size.limit)
            except trio.WouldBlock:
                turns.end()

    # -- to the worker --------------------------------------------------------------------------------------------

    async def _from_client(self, early: bytes) -> None:
        """The client's frames to the worker, until the client's side is over; then its connection is closed, and the session logged."""
        client, life = self._client, self._life
        stream = client.stream
        size = ReadSize(_FIRST_FRAMES, _LEAST_FRAMES, _READ)
        assert self._to_worker is not None
        try:
            data, early = early[: size.limit], early[size.limit :]
            ended = not early and client.codec.peer_closed
            while True:
                if data:
                    frames = self._reader.frames
                    self._take_from_client(data)
                    size.found(len(data), self._reader.frames - frames)
                if life.client is Side.ENDING:
                    await self._let_go()
                    break
                if ended:
                    self._perform(life.client_lost(client.current_time()))
                    break
                if life.client is _OPEN:
                    await self._to_worker.wait_clear()
                if early:
                    if size.is_flood:
                        await client.front.flood_turns.take(is_heavy=size.is_heavy)
                    data, early = early[: size.limit], early[size.limit :]
                    ended = not early and client.codec.peer_closed
                    continue
                data = await self._read(stream, size)
                ended = not data
        except trio.BrokenResourceError:
            self._perform(life.client_lost(client.current_time()))
        except trio.ClosedResourceError:
            pass  # it was given up on
        self._client_over()

    def _take_from_client(self, data: bytes) -> None:
        life = self._life
        now = self._client.current_time()
        life.heard = now
        self.bytes_up += len(data)
        out: list[bytes] = []
        for opcode, payload in self._reader.receive(data, now):
            kind = _TO_WORKER.get(opcode)
            if kind is not None:
                if life.worker is _OPEN:
                    out.append(encode_message(kind, payload))
                    self.active = now
            elif opcode == PING:
                if life.client is _OPEN:
                    self._answer_ping(payload)
            elif opcode in (CLOSE, FAILURE):
                if out:  # what was said before comes first
                    self._put_to_worker(b"".join(out))
                    out.clear()
                code, reason = close_code(payload), payload[2:].decode()
                if opcode == FAILURE:
                    lines.websocket_client_failed(
                        code=code, reason=reason, client=self._client.peer.address, **self._whose()
                    )
                    self._client.front.rejected[f"websocket_{code}"] += 1
                    self._perform(life.client_fails(code, reason, now))
                else:
                    self._code = self._code or code
                    self._perform(life.client_closes(code, reason, now))
        if out:
            self._put_to_worker(out[0] if len(out) == 1 else b"".join(out))

    def _answer_ping(self, payload: bytes) -> None:
        assert self._to_client is not None
        if self._to_client.kept:
            self._pong = payload
        else:
            self._send(encode_frame(PONG, payload))

    def _put_to_worker(self, data: bytes) -> None:
        assert self._to_worker is not None
        self._to_worker.put(data)

    def _tell_worker(self, payload: bytes) -> None:
        self._session_reader.closing = True
        self._put_to_worker(encode_message(session_messages.CLOSE, payload))

    def _abort_worker(self) -> None:
        assert self._to_worker is not None
        session = self._exchange.session
        assert session is not None
        assert session.stream is not None
        lines.websocket_app_stopped_reading(**self._whose())
        self._session_reader.closing = self._aborted = True
        session.stream.send_eof()
        self._to_worker.drop()

    def _whose(self) -> _Whose:
        exchange = self._exchange
        return {
            "group": exchange.route.group_name,
            "request_id": exchange.request_id.decode(),
            "pid": exchange.pid or None,
        }

    # -- the client's end -----------------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        """Let the client read the Close before its connection goes (R29). The life's deadline is around this.

        :raises trio.ClosedResourceError: it had its time.
        """
        assert self._to_client is not None
        stream = self._client.stream
        await self._to_client.wait_clear()
        stream.send_eof()
        dropped = 0
        try:
            if self._reader.failed:
                while dropped < LINGER_BYTES and (data := await stream.recv()):
                    dropped += len(data)
            else:
                stream.recv_nowait()  # unread bytes would become a reset, which can overtake the Close
        except (trio.WouldBlock, trio.BrokenResourceError):
            pass

    def _client_over(self) -> None:
        self._life.client_let_go()
        self._client.stream.close()
        self._set_due()
        self.record_end()

    def record_end(self) -> None:
        """The access log's record of it, once."""
        if not self.logged:
            self.logged = True
            self._exchange.route.tally.websocket_ended(close_word(self._code or LOST))
            self._exchange.bytes_sent = self.bytes_down
            self._client.log(self._exchange)
