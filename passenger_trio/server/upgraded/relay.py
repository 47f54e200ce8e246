"""The upgrade relay: raw bytes between a client and an application that has taken over the connection.

The relay begins after the process's ``U`` frame (CONTRACT.md). Before that, the response forwarder has given the client a head of status
101. Without such a head the application writes its own response (Rack's full hijack). With a process that speaks
HTTP the relay begins after the 101. The two directions are *up* and *down* (``relay_direction``). The poller calls them; the
connection's task only waits for the end.

Laws:

* No byte is lost, doubled or changed. The bytes that came with the handshake go first, in either direction.
* A side that stops reading pauses the other: a direction holds at most one piece, and reads the next one after it has sent
  that. The shared receive buffer is used only within one step.
* The end of one direction is passed on as a half-close. The relay is over when both directions have ended, when the
  client's connection breaks, when the application has closed its side altogether, or when its process has died. Bytes that
  the application wrote before still go to the client.
* The client of a WebSocket gets a Close if the application cannot send one: ``AT_PROCESS_END`` when its process dies or
  is replaced, ``AT_SERVER_STOP`` when the server stops or the relay was idle for too long. A Close needs the end of a frame
  (``websocket_frame_ends``); in the middle of one, only the connection ends.
* The session stays checked out until the relay is over, so the process counts as busy.
* There are two limits: ``upgrade_idle_timeout`` without a byte in either direction, and ``websocket_drain`` from the
  moment in which the process is to be replaced or the server drains. The deadline scanner asks ``_on_due`` when
  ``Client.due`` has passed, so passing a byte on changes no timer."""

from __future__ import annotations

import math

import trio

from passenger_trio.codecs.websocket_frame_ends import FrameEnds, close_frame
from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.websocket_close_codes import AT_PROCESS_END, AT_SERVER_STOP
from passenger_trio.log_lines import requests as lines
from passenger_trio.pool.session import EXIT_NOTICED_AFTER
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.upgraded.relay_direction import Down, Up
from passenger_trio.system.raw_stream import RawStream

__all__ = ["Relay"]

_PIECE = 65536
"""The most bytes that are moved at once, and that a direction holds."""


class Relay:
    """One connection that is no longer HTTP."""

    __slots__ = ("_client", "_down", "_exchange", "_idle", "_logged", "_up", "changed", "ends", "over")

    lingers = True

    def __init__(self, client: Client, exchange: Exchange, process: RawStream) -> None:
        front = client.front
        self._client = client
        self._exchange = exchange
        self._idle = front.options.upgrade_idle_timeout or math.inf
        self.ends = math.inf
        """The deadline, once the process is to be replaced or the server drains; in monotonic seconds."""
        self.over = False
        self._logged = False
        self.changed = trio.Event()
        """Set when the relay is over, or when the process has ended its direction and ``judge_end`` must run."""
        itself = not exchange.status
        """Whether the application writes its response by itself."""
        piece = front.receive_buffer[:_PIECE]
        self._up = Up(client.stream, process, front.poller, piece, self.finish)
        self._down = Down(
            process,
            client.stream,
            front.poller,
            piece,
            self.finish,
            frames=FrameEnds(with_head=itself) if exchange.head.upgrade == b"websocket" else None,
            found=self._found if itself else None,
            in_doubt=self._in_doubt,
        )
        self._up.opposite, self._down.opposite = self._down, self._up
        self._up.active = self._down.active = front.poller.time = client.current_time()

    async def run(self) -> None:
        """Forward bytes until the relay is over, and give the session back. Raises nothing but cancellation."""
        client, exchange = self._client, self._exchange
        session = exchange.session
        assert session is not None
        assert exchange.reader is not None
        client.enter(Stage.RELAY, client.current_time(), on_due=self._on_due)
        client.due = self.due
        session.set_long_lived(self.end_soon)
        if client.front.draining:
            self.end_soon()
        try:
            self.begin(client.codec.hand_over(), exchange.reader.take_rest())
            await self.changed.wait()
            while not self.over:
                await self.judge_end()
                await self.changed.wait()
        finally:
            self.finish()
            exchange.status = exchange.status or 101
            exchange.give_back(SessionOutcome.DONE)

    def begin(self, client_sent: bytes, process_sent: bytes) -> None:
        """Pass on the bytes that came with the handshake, and watch both sides for more."""
        up, down = self._up, self._down
        try:
            up.watch()
            down.watch()
        except OSError as error:
            self._client.front.warn_rarely(f"cannot relay a connection: {error.strerror}")
            self.finish()
            return
        # Bytes that a socket does not take are kept, so the order of the two calls does not matter.
        if client_sent:
            up.give(client_sent)
        if process_sent and not self.over:
            down.give(process_sent)

    def finish(self) -> None:
        """The relay is over. Idempotent."""
        self.over = True
        self._up.unwatch()
        self._down.unwatch()
        self.changed.set()

    @property
    def bytes_up(self) -> int:
        """Bytes that the application's stream has taken."""
        return self._up.moved

    @property
    def bytes_down(self) -> int:
        """Bytes that the client's connection has taken."""
        return self._down.moved

    @property
    def active(self) -> float:
        """When a byte was passed on last, in monotonic seconds."""
        return max(self._up.active, self._down.active)

    def _found(self, status: int) -> None:
        self._exchange.status = status

    # -- the end ------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When the relay times out if no byte passes, in monotonic seconds."""
        return min(self.active + self._idle, self.ends)

    def _on_due(self, now: float) -> bool:
        """Whether the relay has timed out. If not, the next deadline is set."""
        self._client.due = due = self.due
        if now < due:
            return False
        why = "its process is being replaced, or the server stops" if now >= self.ends else "it was idle for too long"
        exchange = self._exchange
        lines.upgraded_closed(
            group=exchange.route.group_name,
            reason=why,
            request_id=exchange.request_id.decode(),
            pid=exchange.pid or None,
        )
        return True

    def end_soon(self) -> None:
        """Give both sides a last time to end by themselves."""
        client = self._client
        self.ends = min(self.ends, client.current_time() + client.front.options.websocket_drain)
        client.due = min(client.due, self.ends)

    def send_final_close(self) -> None:
        """Send the client of a WebSocket a Close, if that can be done at once."""
        restarts = self._client.current_time() >= self.ends and not self._client.front.draining
        self.say_end(AT_PROCESS_END if restarts else AT_SERVER_STOP)

    def record_end(self) -> None:
        """Give the access log its record of the connection, once."""
        if not self._logged:
            self._logged = True
            self._exchange.bytes_sent += self.bytes_down
            self._client.log(self._exchange)

    def _in_doubt(self) -> None:
        self.changed.set()

    async def judge_end(self) -> None:
        """The process has ended a WebSocket without a Close. If the process is dying, send the client a Close. If not, the application wants this end."""
        session = self._exchange.session
        assert session is not None
        self.changed = trio.Event()
        await session.wait_left(EXIT_NOTICED_AFTER)
        if self.over:
            return
        if session.process.leaving:
            self.say_end(AT_PROCESS_END)
            self.finish()
        else:
            self._down.end_now()

    def say_end(self, code: int) -> None:
        """Send a Close, if the last frame is complete and no Close was sent before. Nothing may be sent after it."""
        down = self._down
        if down.frames is not None and down.frames.between and not down.unsent:
            try:
                self._client.stream.send_nowait(close_frame(code))
            except trio.BrokenResourceError:
                pass
