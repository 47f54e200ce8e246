"""A WebSocket that ends here: frames with the client, messages with the worker, for as long as both want.

It begins after the worker's ``W`` (CONTRACT.md), which the response forwarder has turned into a 101. One task reads the client (``client_frames``), the
connection's task reads the worker (``worker_messages``). A ``SendQueue`` to each side has one task more while that side does not read. When a deadline has
passed the deadline scanner calls ``_on_due``, which needs no task. ``websocket_state`` has what the two directions share. ``core/websocket_life`` decides
what happens when, and who is told. ``codecs/websocket_frames`` knows what a frame is, and is the only module that knows the WebSocket library.

Laws:

* Back-pressure goes through: while a side does not read, the other is not read. A connection holds one read and one message in each direction.
* Back-pressure does not delay control frames: a Ping is answered as soon as its sender reads the answer; of several waiting Pings, the last is answered
  (RFC 6455, 5.5.3).
* The client's descriptor is closed as soon as the client's side is over. The process is given back when the worker says that its application has ended, and
  counts as busy until then.
* No end of the worker, of the server or of its tasks lets the client's connection end without a Close, as long as one can be written.
"""

from __future__ import annotations

import random

import trio

from passenger_trio.codecs.session_messages import MessageReader
from passenger_trio.codecs.session_protocol import ResponseReader
from passenger_trio.codecs.websocket_frames import CLOSE, close_payload, encode_frame
from passenger_trio.core.metric_counts import close_word
from passenger_trio.core.websocket_close_codes import AFTER_FAILURE, AT_PROCESS_END, AT_SERVER_STOP, LOST
from passenger_trio.core.websocket_life import Side
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.upgraded.client_frames import forward_frames
from passenger_trio.server.upgraded.websocket_state import WebSocketState
from passenger_trio.server.upgraded.worker_messages import WorkerMessages

__all__ = ["WebSocket"]


class WebSocket:
    """One WebSocket, from the 101 on."""

    lingers = False  # it has done so itself (``client_frames``)

    __slots__ = ("_client", "_exchange", "_has_begun", "_state", "logged")

    def __init__(self, client: Client, exchange: Exchange) -> None:
        self._client = client
        self._exchange = exchange
        self._state = WebSocketState(client, exchange)
        self._has_begun = False
        """Whether ``run`` has begun. Before that the connection is still at the stage before."""
        self.logged = False

    async def run(self) -> None:
        """Forward messages until both sides have ended. Gives the session back and closes the client's connection."""
        client, exchange, state = self._client, self._exchange, self._state
        session = exchange.session
        assert session is not None
        assert session.stream is not None
        assert isinstance(exchange.reader, ResponseReader)  # no other worker protocol has it
        client.enter(Stage.WEBSOCKET, client.current_time(), on_due=self._on_due)
        state.messages = MessageReader(exchange.reader.take_rest())
        exchange.reader = None
        early = client.codec.hand_over()
        async with trio.open_nursery() as nursery:
            state.open_queues(session.stream, nursery)
            self._has_begun = True
            session.set_long_lived(self._process_goes, taken_over=False)
            if client.front.draining:
                self.end_soon()
            state.set_due()
            nursery.start_soon(self._serve_client, early)
            await WorkerMessages(state).forward(session.stream)

    async def _serve_client(self, early: bytes) -> None:
        await forward_frames(self._state, early)
        self._state.life.client_let_go()
        self._client.stream.close()
        self._state.set_due()
        self.record_end()

    @property
    def active(self) -> float:
        """When a message last passed, in monotonic seconds."""
        return self._state.active

    @property
    def bytes_up(self) -> int:
        """Bytes of frames from the client."""
        return self._state.bytes_up

    @property
    def bytes_down(self) -> int:
        """Bytes given to the client's connection, after the 101."""
        return self._state.to_client.sent if self._has_begun else 0

    # -- its end --------------------------------------------------------------------------------------------------

    def end_soon(self) -> None:
        """The server is about to end: both sides get a last time to end by themselves."""
        self._drain(AT_SERVER_STOP)

    def _process_goes(self) -> None:
        self._drain(AT_PROCESS_END)

    def _drain(self, code: int) -> None:
        self._state.life.drain(code, self._client.current_time(), random.random())
        if self._has_begun:
            self._state.set_due()

    def _on_due(self, now: float) -> bool:
        """A deadline of the life may have passed. False: the connection itself does not time out; the life decides what to do."""
        self._state.perform(self._state.life.tick(now))
        return False

    def send_final_close(self) -> None:
        """The tasks are being cancelled: send the client a Close, if that can be done at once."""
        state = self._state
        if state.life.client is Side.OPEN and not (self._has_begun and state.to_client.kept):
            code = AT_SERVER_STOP if self._client.front.draining else AFTER_FAILURE
            try:
                self._client.stream.send_nowait(encode_frame(CLOSE, close_payload(code)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    def record_end(self) -> None:
        """Give the access log its record of the WebSocket, once."""
        if not self.logged:
            self.logged = True
            self._exchange.route.tally.websocket_ended(close_word(self._state.code or LOST))
            self._exchange.bytes_sent = self.bytes_down
            self._client.log(self._exchange)
