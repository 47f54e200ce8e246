"""What each event of a process's response means: bytes for the client, a session that is free again, or a connection that is no longer HTTP.

The response forwarder (``response_forwarder``) reads the events and sends the bytes.

An event stream does not end by itself, and its client reconnects. When its process or the server has to end, the stream
gets ``websocket_drain`` seconds, and then a proper end. For any other response the server waits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
import trio

from passenger_trio.codecs.response_head import Fields, parse_interim, parse_response_head, parse_switch, parse_trailers
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
from passenger_trio.errors import (
    ApplicationRaised,
    IncompleteResponse,
    MalformedResponse,
    UnfitResponseHead,
)
from passenger_trio.late_classes import define
from passenger_trio.log_lines import requests as lines
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.response_writer import ResponseWriter
from passenger_trio.server.spill.spill_buffer import SpillBuffer

__all__ = ["MANY", "ResponseEvents"]

_EVENTS = re.compile(rb"text/event-stream\s*(;|$)", re.IGNORECASE)
"""Server-sent events (HTML Living Standard, section 9.2)."""
MANY = 16
"""The most pieces of one read that are sent as they are. More of them are small, so they are joined first."""
_MOST_INTERIM = 100
"""Interim responses before a response. Real ones are one to three (RFC 9110 section 15.2, RFC 8297)."""


@define(eq=False)
class ResponseEvents:
    """One response, as far as it was sent to the client."""

    client: Client
    exchange: Exchange
    reader: Reader
    buffer: SpillBuffer
    body: int = 0
    """Body bytes that the process sent, and that may be on the wire (R23)."""
    writer: ResponseWriter = attrs.field(init=False)
    _filling: trio.CancelScope | None = None
    """The scope of an event stream: its deadline is set when the stream has to end."""
    _raised: ApplicationRaised | None = None
    _switch: tuple[bytes, Fields] | None = None
    """A head of status 101, which is sent to the client when the upgrade follows."""
    _trailers: Fields | None = None
    _over: bool = False
    _interim_count: int = 0
    _wants_oob_work: bool = False

    def _take_pieces(self, pieces: Sequence[memoryview]) -> None:
        if len(pieces) > MANY:
            self._take(DATA, b"".join(pieces))
        else:
            for piece in pieces:
                self._take(DATA, piece)

    def _take(self, kind: int, payload: bytes | memoryview) -> None:
        exchange = self.exchange
        codec = self.client.codec
        if self._switch is not None and kind != UPGRADE:
            raise UnfitResponseHead(
                "the application's response cannot be sent: its status is 101, and no switch of protocols follows"
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
                exchange.give_back(SessionOutcome.DONE)  # the process may send raw bytes next, without an end
                raise
        elif kind == HEAD:
            app = parse_response_head(payload)
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
        """The process accepts a WebSocket, which gets all later bytes (``websocket``)."""
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
        """The application takes over the connection: the relay gets all later bytes (``relay``)."""
        exchange = self.exchange
        if not exchange.body_sent:
            raise MalformedResponse("the process has taken the connection over before it had the whole request")
        if self._switch is not None:
            exchange.status = 101
            self.writer.out.append(self.client.codec.switch_protocols(*self._switch))
        exchange.response_begun = exchange.upgraded = self._over = True

    def _end(self, flags: int) -> None:
        """The process has ended its response: give it back before the client has the last byte."""
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

    def _look_for_crashes(self) -> None:
        session = self.exchange.session
        if session is not None and session.process.live.crash_check is not None:
            session.process.live.crash_check.look(self.client.current_time())

    # -- an event stream has to end -----------------------------------------------------------------------------

    def _end_when_told(self) -> None:
        exchange = self.exchange
        self._filling = trio.CancelScope()
        exchange.end_soon = self.end_soon
        if exchange.session is not None:
            exchange.session.call_on_detach(self.end_soon)
        if self.client.front.draining:
            self.end_soon()

    def end_soon(self) -> None:
        """The process, or the server, is about to end. Idempotent. May be called after the response is over, because the session can last longer."""
        filling = self._filling
        assert filling is not None
        filling.deadline = min(filling.deadline, trio.current_time() + self.client.front.options.websocket_drain)

    def _end_early(self) -> None:
        """End an event stream whose time is over. Call it only while no other step of the response is under way."""
        exchange = self.exchange
        self._over = exchange.ended_early = True
        lines.event_stream_closed(
            group=exchange.route.group_name, request_id=exchange.request_id.decode(), pid=exchange.pid or None
        )
        if end := self.client.codec.end_response():
            self.writer.out.append(end)
            self.writer.flush()
