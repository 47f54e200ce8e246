"""The state of one WebSocket that both of its directions use, and the orders of its life.

This module sends what ``core/websocket_life`` orders: a Ping, a Close to either side, the end of a side that does not read. It never reads from a side:
``client_frames`` and ``worker_messages`` do. ``websocket`` owns the tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict

import trio

from passenger_trio.codecs import session_messages
from passenger_trio.codecs.session_messages import MessageReader, encode_message
from passenger_trio.codecs.websocket_frames import CLOSE, PING, PONG, FrameReader, close_payload, encode_frame
from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.read_size import ReadSize
from passenger_trio.core.websocket_close_codes import NO_CODE
from passenger_trio.core.websocket_life import (
    AbortWorker,
    CutClient,
    LeaveWorker,
    Order,
    Ping,
    TellClient,
    TellWorker,
    Times,
    WebSocketLife,
)
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.upgraded.send_queue import SendQueue
from passenger_trio.system.raw_stream import RawStream

__all__ = ["MOST_READ", "WebSocketState"]

MOST_READ = 65536
"""The most bytes that are read from either side at once."""


class _LogFields(TypedDict):
    """Fields of each line about a WebSocket."""

    group: str
    request_id: str
    pid: int | None


class WebSocketState:
    """The state of one WebSocket. ``open_queues`` must be called before anything is sent."""

    __slots__ = (
        "_pong",
        "aborted",
        "active",
        "bytes_up",
        "client",
        "code",
        "exchange",
        "frames",
        "life",
        "messages",
        "to_client",
        "to_worker",
    )

    to_client: SendQueue
    to_worker: SendQueue

    def __init__(self, client: Client, exchange: Exchange) -> None:
        front = client.front
        now = client.current_time()
        self.client = client
        self.exchange = exchange
        self.life = WebSocketLife(Times.of(front.options), now)
        self.frames = FrameReader(front.frame_limits, now)
        """Parses the client's bytes."""
        self.messages = MessageReader()
        """Parses the worker's bytes."""
        self._pong: bytes | None = None
        """The payload of the last Ping that could not be answered yet."""
        self.aborted = False
        """Whether the worker was aborted by the end of its stream, which is not used again."""
        self.code = 0
        """The code of the first Close, from the client or to it; 0: there was none."""
        self.bytes_up = 0
        """Bytes of frames from the client."""
        self.active = now
        """When a message last passed, in monotonic seconds."""

    def open_queues(self, worker: RawStream, nursery: trio.Nursery) -> None:
        """Make the queues to both sides. :param nursery: for their tasks."""
        client = self.client
        self.to_client = SendQueue(client.stream, nursery, client.current_time, self._client_moved)
        self.to_worker = SendQueue(worker, nursery, client.current_time, self._worker_moved)

    async def read(self, stream: RawStream, size: ReadSize) -> bytes:
        """The next bytes of a side; ``b""`` at its end. A flood also waits for its turn (KE7)."""
        if not size.is_flood:
            return await stream.recv(size.limit)
        turns = self.client.front.flood_turns
        turns.end()
        while True:
            await stream.wait_readable()
            await turns.take(is_heavy=size.is_heavy)
            try:
                return stream.recv_nowait(size.limit)
            except trio.WouldBlock:
                turns.end()

    # -- the life -------------------------------------------------------------------------------------------------

    def set_due(self) -> None:
        """Tell the deadline scanner when the life must be looked at. Call it after each change of the life."""
        self.client.due = self.life.due()

    def _client_moved(self, since: float) -> None:
        life = self.life
        life.client_stuck = since
        if since == math.inf:
            life.heard = self.client.current_time()
            pong, self._pong = self._pong, None
            if pong is not None:
                self.to_client.put(encode_frame(PONG, pong))
        self.set_due()

    def _worker_moved(self, since: float) -> None:
        self.life.worker_stuck = since
        if since == math.inf:
            self.life.heard = self.client.current_time()
        self.set_due()

    def perform(self, orders: Iterable[Order]) -> None:
        """Perform the orders of the life, in order."""
        for order in orders:
            match order:
                case Ping():
                    self.to_client.put(encode_frame(PING, b""))
                case TellClient(code, reason):
                    self._close_client(code, reason)
                case TellWorker(code, reason):
                    self._tell_worker(b"" if code == NO_CODE else close_payload(code, reason))
                case CutClient():
                    lines.websocket_client_silent(client=self.client.peer.address, **self.log_fields())
                    self.client.stream.send_eof()
                    self.client.stream.close()
                    self.to_worker.release()
                case AbortWorker():
                    self._abort_worker()
                case LeaveWorker():
                    self.exchange.give_back(SessionOutcome.CLIENT_GONE)
        self.set_due()

    # -- to the client --------------------------------------------------------------------------------------------

    def _close_client(self, code: int, reason: str) -> None:
        self.code = self.code or code
        self.to_client.put(encode_frame(CLOSE, b"" if code == NO_CODE else close_payload(code, reason)))
        # The client's answer is read even while the worker does not read.
        self.to_worker.release()

    def answer_ping(self, payload: bytes) -> None:
        """Answer a Ping of the client: now, or as soon as the client reads."""
        if self.to_client.kept:
            self._pong = payload
        else:
            self.to_client.put(encode_frame(PONG, payload))

    # -- to the worker --------------------------------------------------------------------------------------------

    def _tell_worker(self, payload: bytes) -> None:
        self.messages.closing = True
        self.to_worker.put(encode_message(session_messages.CLOSE, payload))

    def _abort_worker(self) -> None:
        session = self.exchange.session
        assert session is not None
        assert session.stream is not None
        lines.websocket_app_stopped_reading(**self.log_fields())
        self.messages.closing = self.aborted = True
        session.stream.send_eof()
        self.to_worker.drop()

    def log_fields(self) -> _LogFields:
        """The fields of each line about this WebSocket."""
        exchange = self.exchange
        return {
            "group": exchange.route.group_name,
            "request_id": exchange.request_id.decode(),
            "pid": exchange.pid or None,
        }
