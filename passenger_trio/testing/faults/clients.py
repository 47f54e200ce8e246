"""Faults of clients and networks. Each is a link (``client_link.py``) that treats one direction badly.

Sizes are bytes, times are seconds. Offsets count from the first byte that a connection carries in
that direction, heads included.
"""

from __future__ import annotations

import select
import socket
import threading

import h11

from passenger_trio.testing.faults.client_link import Address, Connection, Link

__all__ = [
    "EarlyEof",
    "HalfClose",
    "Pipeline",
    "Reset",
    "SlowRead",
    "SplitAt",
    "StopReading",
    "Trickle",
]

_SMALL = 4096
"""A receive buffer with which the server notices a slow client soon."""


class SlowRead(Link):
    """The client reads ``rate`` bytes a second."""

    name = "slow_read"
    hint = "the response must be longer than what the client reads in 20 ms"
    receive_buffer = _SMALL

    def __init__(self, server: Address, seed: int, rate: int) -> None:
        super().__init__(server, seed, rate=rate)
        self._bite = max(1, rate // 50)

    def downward(self, connection: Connection) -> None:
        while data := connection.server.recv(self._bite):
            connection.client.sendall(data)
            self.sleep(len(data) * 0.02 / self._bite)
            if select.select([connection.server], [], [], 0)[0]:
                self.fired += 1
        connection.end_response()


class StopReading(Link):
    """The client reads ``after`` bytes, and then no more while the fault lasts."""

    name = "stop_reading"
    hint = "the response must be longer than `after`"
    receive_buffer = _SMALL

    def __init__(self, server: Address, seed: int, after: int) -> None:
        super().__init__(server, seed, after=after)
        self._after = after
        self.stopped = threading.Event()
        """Set when bytes wait that the client does not read."""

    def downward(self, connection: Connection) -> None:
        left = self._after
        while left and (data := connection.server.recv(left)):
            connection.client.sendall(data)
            left -= len(data)
        while not self._ended.is_set():
            if select.select([connection.server], [], [], 0.05)[0]:
                if not connection.server.recv(1, socket.MSG_PEEK):
                    break
                if not self.stopped.is_set():
                    self.fired += 1
                    self.stopped.set()
                self.sleep(3600)
        connection.close()


class Reset(Link):
    """The connection is reset when ``after`` bytes of the response (or of the request) have passed."""

    name = "reset"

    def __init__(self, server: Address, seed: int, after: int, of: str) -> None:
        super().__init__(server, seed, after=after, of=of)
        self.hint = f"the {of} must be longer than `after`"
        self._after, self._of = after, of
        self.happened = threading.Event()

    def upward(self, connection: Connection) -> None:
        if self._of == "request":
            self._pass_and_reset(connection, connection.client, connection.server)
        else:
            super().upward(connection)

    def downward(self, connection: Connection) -> None:
        if self._of == "response":
            self._pass_and_reset(connection, connection.server, connection.client)
        else:
            super().downward(connection)

    def _pass_and_reset(self, connection: Connection, source: socket.socket, target: socket.socket) -> None:
        left = self._after
        while data := source.recv(65536):
            if target is connection.server:
                connection.send_up(data[:left])
            else:
                target.sendall(data[:left])
            if len(data) > left:
                self.fired += 1
                connection.reset()
                self.happened.set()
                return
            left -= len(data)
        if target is connection.server:
            connection.end_request()
        else:
            connection.end_response()


class HalfClose(Link):
    """The client ends its sending side behind its request, and waits for the response."""

    name = "half_close"
    hint = "the request must arrive whole"

    def upward(self, connection: Connection) -> None:
        while data := connection.client.recv(65536):
            end = connection.request_ends_in(data)
            connection.send_up(data[:end])
            if end is not None:
                connection.half_close()
                self.fired += 1
                return


class EarlyEof(Link):
    """The client sends ``after`` bytes of its request and ends: it abandons its upload. With
    ``close=False`` it ends its sending side only.
    """

    name = "early_eof"
    hint = "the request must be longer than `after`"

    def __init__(self, server: Address, seed: int, after: int, close: bool) -> None:
        super().__init__(server, seed, after=after, close=close)
        self._after, self._close = after, close
        self.happened = threading.Event()

    def upward(self, connection: Connection) -> None:
        left = self._after
        while data := connection.client.recv(65536):
            connection.send_up(data[:left])
            if len(data) > left:
                self.fired += 1
                if self._close:
                    connection.close()
                    self.happened.set()
                    return
                connection.half_close()
                self.happened.set()
                while connection.client.recv(65536):
                    pass  # what it would have sent
                return
            left -= len(data)
        connection.end_request()


class Trickle(Link):
    """The client sends ``size`` bytes at a time, and waits ``gap`` seconds in between: byte by byte."""

    name = "trickle"
    hint = "the request must be longer than `size`"

    def __init__(self, server: Address, seed: int, size: int, gap: float) -> None:
        super().__init__(server, seed, size=size, gap=gap)
        self._size, self._gap = size, gap

    def upward(self, connection: Connection) -> None:
        while data := connection.client.recv(65536):
            for at in range(0, len(data), self._size):
                if at:
                    self.sleep(self._gap)
                    self.fired += 1
                connection.send_up(data[at : at + self._size])
        connection.end_request()


class SplitAt(Link):
    """What the client sends is cut at these offsets: the server reads the pieces one by one."""

    name = "split_at"
    hint = "an offset must lie inside of the request"

    def __init__(self, server: Address, seed: int, offsets: tuple[int, ...], gap: float) -> None:
        super().__init__(server, seed, offsets=offsets, gap=gap)
        self._offsets, self._gap = sorted(offsets), gap

    def upward(self, connection: Connection) -> None:
        passed = 0
        while data := connection.client.recv(65536):
            cuts = [offset - passed for offset in self._offsets if 0 < offset - passed < len(data)]
            for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                if begin:
                    self.sleep(self._gap)
                    self.fired += 1
                connection.send_up(data[begin:end])
            passed += len(data)
        connection.end_request()


class Pipeline(Link):
    """Further requests come right behind the client's, in the same write. The client gets the
    response to its own; ``responses`` has the bytes behind it.
    """

    name = "pipeline"
    hint = "the request must arrive whole"

    def __init__(self, server: Address, seed: int, more: tuple[bytes, ...]) -> None:
        super().__init__(server, seed, more=more)
        self._more = b"".join(more)
        self._method = b"GET"
        self.responses = b""
        self.answered = threading.Event()
        """Set when the server has ended the connection, and ``responses`` is complete."""

    def upward(self, connection: Connection) -> None:
        held = b""
        while data := connection.client.recv(65536):
            end = connection.request_ends_in(data)
            held += data
            if end is not None:
                self._method = held.partition(b" ")[0]
                connection.send_up(held + self._more)
                self.fired += 1
                # The client may end now; what is behind its request is still to be answered.
                while connection.client.recv(65536):
                    pass
                connection.half_close()
                return

    def downward(self, connection: Connection) -> None:
        parser: h11.Connection | None = None
        while data := connection.server.recv(65536):
            if parser is None:
                parser = h11.Connection(h11.CLIENT)
                parser.send(h11.Request(method=self._method, target="/", headers=[("Host", "localhost")]))
                parser.send(h11.EndOfMessage())
            if parser.our_state is h11.DONE and parser.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
                self.responses += data
                continue
            parser.receive_data(data)
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    connection.client.sendall(data)
                    break
                if isinstance(event, h11.EndOfMessage):
                    rest = len(parser.trailing_data[0])
                    connection.client.sendall(data[: len(data) - rest])
                    self.responses += data[len(data) - rest :]
                    break
        self.answered.set()
        connection.end_response()
