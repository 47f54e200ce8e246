"""A tap: a link that changes nothing and notes what passes: when each request was sent, when its
response came, and what it was. The client's half of a timeline.

It reads a copy of the bytes behind their delivery. Where the copy is not HTTP, or is upgraded, it
notes that and looks no further; the bytes pass all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import h11

from passenger_trio.testing.exchange import Exchange
from passenger_trio.testing.faults.client_link import Address, Connection, Link

__all__ = ["Tap"]

_KEPT = 256 * 1024
"""Bytes of a response body that are kept, for the lint."""


class Tap(Link):
    """``exchanges`` has what passed. ``on_response`` gets each complete response, in a thread of the tap."""

    name = "tap"

    def __init__(
        self,
        server: Address,
        on_response: Callable[[Exchange], None] = lambda exchange: None,
        directory: Path | None = None,
    ) -> None:
        super().__init__(server)
        self.directory = directory
        self.exchanges: list[Exchange] = []
        self._on_response = on_response
        self._lock = threading.Lock()
        self._open: dict[Connection, _Reader] = {}

    def _reader(self, connection: Connection) -> _Reader:
        with self._lock:
            return self._open.setdefault(connection, _Reader(self, time.time()))

    def _new(self, connected: float) -> Exchange:
        with self._lock:
            exchange = Exchange(len(self.exchanges), connected)
            self.exchanges.append(exchange)
            return exchange

    def upward(self, connection: Connection) -> None:
        reader = self._reader(connection)
        while data := connection.client.recv(65536):
            reader.on_request(data)
            connection.send_up(data)
        connection.end_request()

    def downward(self, connection: Connection) -> None:
        reader = self._reader(connection)
        while True:
            try:
                data = connection.server.recv(65536)
            except OSError:
                data = b""  # reset
            # Noted before it is delivered: when the client has it, the timeline has it, too.
            reader.on_response(data)
            if not data:
                break
            connection.client.sendall(data)
        connection.end_response()

    def deliver(self, exchange: Exchange) -> None:
        self._on_response(exchange)


class _Reader:
    """Reads the copy of one connection's bytes. Two threads call it."""

    def __init__(self, tap: Tap, connected: float) -> None:
        self._tap = tap
        self._connected = connected
        self._lock = threading.Lock()
        self._requests = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._responses: h11.Connection | None = None
        self._sent: list[Exchange] = []
        """Requests whose responses have not ended, the oldest first."""
        self._current: Exchange | None = None
        self._blind = False

    def on_request(self, data: bytes) -> None:
        with self._lock:
            if self._blind:
                return
            now = time.time()
            try:
                self._requests.receive_data(data)
                while True:
                    event = self._requests.next_event()
                    if isinstance(event, h11.Request):
                        exchange = self._tap._new(self._connected)
                        exchange.method = event.method.decode("latin-1")
                        exchange.target = event.target.decode("latin-1")
                        exchange.request_fields = [(bytes(n), bytes(v)) for n, v in event.headers.raw_items()]
                        exchange.begun = now
                        self._sent.append(exchange)
                        self._current = exchange
                    elif isinstance(event, h11.EndOfMessage):
                        assert self._current is not None
                        self._current.sent = now
                    elif event is h11.PAUSED and self._requests.their_state is h11.DONE:
                        self._next_request()
                    else:
                        if event is h11.PAUSED or not isinstance(event, h11.Data):
                            return
            except h11.RemoteProtocolError:
                self._lose("not HTTP")

    def _next_request(self) -> None:
        """h11 waits for the response before it reads the next pipelined request; a tap does not."""
        rest = self._requests.trailing_data[0]
        self._requests = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._requests.receive_data(rest)

    def on_response(self, data: bytes) -> None:
        with self._lock:
            if self._blind:
                if self._sent and not data:
                    self._sent[0].ended = time.time()
                return
            now = time.time()
            try:
                self._read(data, now)
            except h11.RemoteProtocolError:
                if data:
                    self._lose("not HTTP")
                elif self._sent:
                    self._sent[0].ended = now
                    self._sent[0].outcome = "cut short" if self._sent[0].status is not None else "no response"
                    self._sent.clear()

    def _read(self, data: bytes, now: float) -> None:
        while self._sent:
            exchange = self._sent[0]
            if self._responses is None:
                self._responses = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
                self._responses.send(h11.Request(method=exchange.method, target="/", headers=[("Host", "localhost")]))
                self._responses.send(h11.EndOfMessage())
            if data or not self._responses.trailing_data[1]:
                self._responses.receive_data(data)
            if data and exchange.first_byte is None:
                exchange.first_byte = now
            data = b""
            if not self._read_one(exchange, now):
                return
            rest = self._responses.trailing_data[0]
            self._responses = None
            self._sent.pop(0)
            self._tap.deliver(exchange)
            if not rest:
                return
            data = rest

    def _read_one(self, exchange: Exchange, now: float) -> bool:
        """Whether the response has ended."""
        assert self._responses is not None
        while True:
            event = self._responses.next_event()
            if isinstance(event, h11.Response):
                exchange.status, exchange.reason = event.status_code, bytes(event.reason)
                exchange.fields = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
                exchange.outcome = "cut short"
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    exchange.status, exchange.ended = 101, now
                    self._lose("upgraded")
                    return False
            elif isinstance(event, h11.Data):
                exchange.size += len(event.data)
                if len(exchange.body) < _KEPT:
                    exchange.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                exchange.ended, exchange.outcome = now, "complete"
                return True
            else:
                return False

    def _lose(self, why: str) -> None:
        self._blind = True
        if not self._sent:
            self._sent.append(self._tap._new(self._connected))
        self._sent[0].outcome = why
