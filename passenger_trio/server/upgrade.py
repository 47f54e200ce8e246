"""The upgrade relay: raw bytes between a client and an application that has taken the connection over, for as long as both want.

It begins behind the process's ``U`` frame (CONTRACT.md section 3): after a head of status 101, which the pump has given to the client; or without one, and
then the application writes its response by itself (Rack's full hijack). With a process that speaks HTTP it begins behind the 101. Its tasks are ``up``, from the client to the application, and ``down``.

Laws:

* No byte is lost, doubled or looked at: first goes what came with the handshake, in either direction.
* A side that takes nothing pauses the other: a direction holds no more than one piece, and reads the next one when that is gone. The scratch buffer is used
  within one step only.
* The end of one direction is passed on as a half-close. It is over when both have ended, when the client's connection breaks, or when the application
  has closed its side altogether (or its process has died); what it had written before is still the client's.
* The session is held until then, so the process counts as busy.
* There are two limits: ``upgrade_idle_timeout`` without a byte in either direction, and ``websocket_drain`` from the moment in which the process is to go, or
  the server drains. Both are ``Connection.due``, which the timekeeper keeps.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import attrs
import trio
from trio.lowlevel import wait_writable

from passenger_trio.core.model import SessionOutcome
from passenger_trio.server.stage import Stage

if TYPE_CHECKING:
    from passenger_trio.server.connection import Connection
    from passenger_trio.server.exchange import Exchange
    from passenger_trio.system.sockets import RawStream

__all__ = ["Relay", "relay"]

_PIECE = 65536
"""Bytes that are moved at once, which is also what a direction holds at the most."""
_STATUS_LINE = 12
"""Bytes of ``HTTP/1.1 101``."""

_log = logging.getLogger("passenger_trio.server")


async def relay(connection: Connection, exchange: Exchange) -> None:
    """Pass bytes on until it is over; whatever ends it, the session is closed. Never fails."""
    session = exchange.session
    assert session is not None
    assert session.stream is not None
    assert exchange.reader is not None
    it = exchange.relay = Relay(connection, exchange, connection.stream, session.stream)
    connection.enter(Stage.RELAY, connection.now())
    session.hold(it.drain)
    if connection.front.draining:
        it.drain()
    client_sent, process_sent = connection.codec.hand_over(), exchange.reader.take_rest()
    try:
        async with trio.open_nursery() as it.nursery:
            it.nursery.start_soon(it.up, client_sent)
            await it.down(process_sent)
    finally:
        exchange.status = exchange.status or 101
        exchange.give_back(SessionOutcome.DONE)


@attrs.define(eq=False)
class Relay:
    """One connection that is not HTTP any more."""

    connection: Connection
    exchange: Exchange
    client: RawStream
    process: RawStream
    nursery: trio.Nursery = attrs.field(init=False)
    bytes_up: int = 0
    """Given to the application."""
    active: float = 0.0
    """When a byte was passed on last, in monotonic seconds."""
    ends: float = math.inf
    """When it is cut off, because its process is to go or the server drains."""
    _front: bytes = b""
    """The first bytes of a response that the application writes by itself, for its status."""

    def __attrs_post_init__(self) -> None:
        self._moved()

    @property
    def bytes_down(self) -> int:
        """Given to the client."""
        return self.exchange.bytes_sent

    def drain(self) -> None:
        """It has a last time to end by itself."""
        connection = self.connection
        self.ends = min(self.ends, connection.now() + connection.front.options.websocket_drain)
        connection.due = min(connection.due, self.ends)

    def tell_end(self) -> None:
        """Log why it was cut off."""
        why = "its process is to go" if self.connection.now() >= self.ends else "nothing came over it for too long"
        _log.info(
            "an upgraded connection to %s is closed: %s [request %s]",
            self.exchange.route.group_name,
            why,
            self.exchange.request_id.decode(),
        )

    def _moved(self) -> None:
        connection = self.connection
        self.active = now = connection.now()
        idle = connection.front.options.upgrade_idle_timeout
        connection.due = min(now + idle, self.ends) if idle else self.ends

    # -- from the client to the application ---------------------------------------------------------------------

    async def up(self, sent_before: bytes) -> None:
        """Until the client has ended its direction, which the application is told, or its connection breaks, which ends everything.

        An application that takes nothing any more may still be writing: what it does not want is dropped, for the sake of the client's end.
        """
        takes = True
        piece: bytes | memoryview = sent_before
        try:
            ended = self.connection.codec.peer_closed
            while True:
                if piece and takes:
                    takes = await self._to_process(piece)
                if ended:
                    break
                piece = await self._receive(self.client)
                ended = not piece
        except trio.BrokenResourceError:
            self.nursery.cancel_scope.cancel()
            return
        self.process.send_eof()
        try:
            # Has it closed its connection altogether? On TCP that is seen when something is sent to it, and then at once.
            await self.client.wait_hangup()
        except OSError:
            return  # no descriptor is left to wait with (F32): the next but one that is sent tells as well
        self.nursery.cancel_scope.cancel()

    async def _to_process(self, piece: bytes | memoryview) -> bool:
        """False: it takes nothing any more."""
        try:
            sent = self.process.send_nowait(piece)
            if sent < len(piece):
                rest = bytes(piece[sent:])  # the scratch buffer is somebody else's after the next step
                self._moved_up(sent)
                while rest:
                    await wait_writable(self.process.socket)
                    sent = self.process.send_nowait(rest)
                    rest = rest[sent:]
                    self._moved_up(sent)
            else:
                self._moved_up(sent)
        except trio.BrokenResourceError:
            return False
        return True

    def _moved_up(self, count: int) -> None:
        self.bytes_up += count
        self._moved()

    # -- from the application to the client ---------------------------------------------------------------------

    async def down(self, sent_before: bytes) -> None:
        """Until the application has ended its direction, and the client has, too; or it has closed its side altogether."""
        piece: bytes | memoryview = sent_before
        try:
            while True:
                if piece:
                    await self._to_client(piece)
                piece = await self._receive(self.process)
                if not piece:
                    break
            self.client.send_eof()
            # Both directions have ended when the client's has: the kernel sees no difference to a process that has closed its side.
            await self.process.wait_hangup()
        except (trio.BrokenResourceError, OSError):
            pass  # OSError: no descriptor is left to wait with (F32)
        self.nursery.cancel_scope.cancel()

    async def _to_client(self, piece: bytes | memoryview) -> None:
        """:raises trio.BrokenResourceError: the client's connection is broken."""
        if len(self._front) < _STATUS_LINE and not self.exchange.status:
            self._look(piece)
        sent = self.client.send_nowait(piece)
        if sent < len(piece):
            rest = bytes(piece[sent:])
            self._moved_down(sent)
            while rest:
                await wait_writable(self.client.socket)
                sent = self.client.send_nowait(rest)
                rest = rest[sent:]
                self._moved_down(sent)
        else:
            self._moved_down(sent)

    def _moved_down(self, count: int) -> None:
        self.exchange.bytes_sent += count
        self._moved()

    def _look(self, piece: bytes | memoryview) -> None:
        """The access log is to know the status of a response that is not ours."""
        self._front += bytes(piece[: _STATUS_LINE - len(self._front)])
        if len(self._front) == _STATUS_LINE and self._front.startswith(b"HTTP/1.") and self._front[9:].isdigit():
            self.exchange.status = int(self._front[9:])

    # -- both ---------------------------------------------------------------------------------------------------

    async def _receive(self, stream: RawStream) -> memoryview:
        """What comes next, in the scratch buffer, which is ours up to the next checkpoint; empty at the end.

        :raises trio.BrokenResourceError: the connection is broken.
        """
        scratch = self.connection.front.scratch
        return scratch[: await stream.recv_into(scratch[:_PIECE])]
