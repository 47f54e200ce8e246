"""One client connection: bytes in, heads and bodies out, responses back to bytes.

A connection handles one message after another, never two at a time::

    receive -> next_head -> read_body ... -> begin_response, response_body ..., end_response ->
    finish_message -> next_head

``receive`` only stores bytes. The reading methods consume what they need, so pipelined requests stay in the
buffer. A refusal is final: no byte after it is read (R18), and only ``error_response`` can still be written.

Between two requests a connection holds its limits, a few flags and the field lines of its last plain request:
no parser, no buffer, no message.

Choosing the reader of a head: the plain-request parser is tried when the first bytes of a head arrive. If they
were not the whole head, it is tried once more when the strict check finds the end. So a head that arrives
byte by byte is scanned at most three times.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.codecs.head import Head, HeaderCache, HttpLimits
from passenger_trio.codecs.plain_message import PlainMessage
from passenger_trio.codecs.plain_request import parse_plain_request
from passenger_trio.codecs.refusals import refuse
from passenger_trio.codecs.response_framing import Fields, Message
from passenger_trio.codecs.response_head import AppHead
from passenger_trio.codecs.response_lines import status_line, with_standard_fields
from passenger_trio.codecs.strict_request import HeadScan, Known
from passenger_trio.errors import InvariantBroken, RequestError

__all__ = ["ClientSide"]


class ClientSide:
    """The server's side of one HTTP/1 connection with a client, without I/O.

    :param plain_parser: whether plain requests may pass by h11.
    """

    __slots__ = (
        "_ahead",
        "_data",
        "_failure",
        "_header_cache",
        "_known",
        "_limits",
        "_message",
        "_mute",
        "_plain_parser",
        "_scan",
        "_skipped",
        "peer_closed",
    )

    def __init__(self, limits: HttpLimits, *, plain_parser: bool = True) -> None:
        self._limits = limits
        self._plain_parser = plain_parser
        self._data = b""
        # What came after _data, which was not read yet: appended in place, so that small pieces cost no copies.
        self._ahead: bytearray | None = None
        self._scan: HeadScan | None = None
        self._message: Message | None = None
        self._header_cache: HeaderCache | None = None
        self._failure = ""
        self._known: Known | None = None
        self._mute = False  # what was refused began with HEAD
        self._skipped = False
        self.peer_closed = False
        """The client has sent its end of file. What it sent before is still served (R28)."""

    # Reading

    def receive(self, data: bytes) -> None:
        """Keep what came from the client; ``b""`` is its end of file. Looks at nothing."""
        if not data:
            self.peer_closed = True
            return
        message = self._message
        if self._failure or (
            message is not None and message.body_complete and message.must_close and not message.head.upgrade
        ):
            return  # R18: behind the last message there is nothing to read
        if not self._data:
            self._data = data
        elif self._ahead is None:
            self._ahead = bytearray(data)
        else:
            self._ahead += data

    @property
    def buffered(self) -> int:
        """Bytes that came and were not read yet. Above its limit the caller stops to read the socket (R31)."""
        scan = 0 if self._scan is None else len(self._scan)
        return scan + len(self._data) + (0 if self._ahead is None else len(self._ahead))

    @property
    def mid_head(self) -> bool:
        """At least one unread byte of the next head is here, so its timeout runs (R27). False while a request is in hand, and while nothing has come."""
        return self._message is None and (self._scan is not None or bool(self._data))

    def next_head(self) -> Head | None:
        """The next request's head, or None while it has not come.

        :raises RequestError: the request is refused (R1 to R14, R18 to R20); nothing more is read after it.
        """
        if self._message is not None:
            raise InvariantBroken("the next head is asked for while a request is in hand")
        data = self._data
        plain_parser = self._plain_parser
        if data and plain_parser and self._scan is None and self._ahead is None:
            # Nearly always a plain request, and all of it: at once what is done below in steps. (After a failure there is no data.)
            found = parse_plain_request(data, self._limits, self._header_cache)
            if found is not None:
                head, length = found
                self._header_cache = head.header_cache
                message = self._message = PlainMessage(head)
                self._skipped = False
                self._data = (
                    b"" if length == len(data) or (message.must_close and message.body_complete) else data[length:]
                )
                return head
            plain_parser = data.startswith(
                b"\r"
            )  # try once more only if an empty line stands first: ``_next_head`` skips it
        try:
            return self._next_head(plain_parser)
        except RequestError as error:
            self._fail(error.code)
            raise

    def _next_head(self, plain_parser: bool) -> Head | None:
        if self._failure:
            raise refuse(self._failure)
        data = self._take()
        if self._scan is None:
            if data[:1] == b"\r" and not self._skipped:
                # Some clients send an empty line behind a body: one is skipped (R1; RFC 9112 2.2).
                if data[:2] == b"\r\n":
                    data = data[2:]
                    self._skipped = True
                elif len(data) == 1 and not self.peer_closed:
                    self._data = data
                    return None
            if not data:
                return None
            if plain_parser:
                found = parse_plain_request(data, self._limits, self._header_cache)
                if found is not None:
                    head, length = found
                    self._header_cache = head.header_cache
                    return self._start(PlainMessage(head), data[length:])
            self._scan = scan = HeadScan(self._limits)
            again = False
        else:
            scan = self._scan
            again = self._plain_parser
        if not scan.feed(data):
            if self.peer_closed:
                raise refuse("head_truncated")
            return None
        found = parse_plain_request(scan.raw, self._limits) if again else None
        if found is not None:
            return self._start(PlainMessage(found[0]), scan.rest)
        assert scan.head is not None
        from passenger_trio.codecs.h11_message import (
            H11Message,  # here: the start of the server does not wait for it (DE10)
        )

        return self._start(H11Message(scan.head, scan.raw, self._limits), scan.rest)

    def _take(self) -> bytes:
        """All that came and was not looked at."""
        data = self._data
        self._data = b""
        if self._ahead is not None:
            data += self._ahead
            self._ahead = None
        return data

    def _start(self, message: Message, rest: bytes) -> Head:
        self._message = message
        self._scan = None
        self._skipped = False
        # R18: nothing follows a message that is the connection's last, unless it is of another protocol (R19).
        self._data = b"" if message.must_close and message.body_complete and not message.head.upgrade else rest
        return message.head

    def read_body(self) -> bytes | None:
        """Some of the request body; ``b""``: it is complete, or there is none; None: more must come.

        :raises RequestError: R13, R15, R16, R17; ``body_truncated``: the client ended the connection in it.
        """
        message = self._current()
        complete = message.body_complete
        if complete:
            return b""
        if self._failure:
            raise refuse(self._failure)
        data = self._take()
        try:
            # Also without new bytes: an error that stands behind good ones is told after them.
            body, used = message.read(data)
            complete = message.body_complete
            if not body and not complete and self.peer_closed:
                raise refuse("body_truncated")
        except RequestError as error:
            self._fail(error.code)
            raise
        # R18: nothing follows a message that is the connection's last.
        if used < len(data) and not (complete and message.must_close):
            self._data = data[used:]
        return body if body or complete else None

    @property
    def raw_body_left(self) -> int:
        """Bytes of the body that the caller may take from the socket itself, and report (``skip_body``); 0: none."""
        message = self._current()
        return 0 if self._failure or self.buffered or self.peer_closed else message.raw_left

    def skip_body(self, count: int) -> None:
        """The caller took ``count`` bytes of the body from the socket, at most ``raw_body_left``."""
        self._current().skip(count)

    @property
    def body_complete(self) -> bool:
        """The request has come as a whole, and was read."""
        return self._message is not None and self._message.body_complete

    def continue_bytes(self) -> bytes:
        """``100 Continue`` if the client waits for it and has not had it; else ``b""`` (R20).

        A client that has begun to send its body waits no longer.
        """
        message = self._current()
        if (
            not message.head.expect_continue
            or message.continued
            or message.begun
            or message.body_complete
            or self.buffered
        ):
            return b""
        return message.interim(100, b"Continue", [])

    # Writing

    def begin_response(
        self,
        status: int,
        reason: bytes,
        fields: Fields,
        *,
        length: int | None,
        date: bytes,
        close: bool = False,
    ) -> bytes:
        """The response's head, with ``Connection: close`` if the connection will not be used again (R22, R23).

        :param fields: end-to-end and validated (``response_head``), without length and coding.
        :param length: of the body; None if unknown: chunked, or for HTTP/1.0 up to the connection's end.
        :raises InvariantBroken: a response was begun already.
        """
        return self._current().begin(status, reason, fields, length, date, close)

    def response_body(self, data: bytes | memoryview) -> Sequence[bytes | memoryview]:
        """The pieces to send for ``data``: none for HEAD, 204, 304; none beyond the declared length (R23, R24)."""
        return self._current().body(data)

    def response_chunk(self, data: bytes) -> bytes:
        """``response_body`` for a small piece of a chunked body, in one piece. ``b""``: ask ``response_body``."""
        message = self._message
        return b"" if message is None else message.chunk(data)

    def end_response(self, trailers: Fields | None = None) -> bytes:
        """What is to be sent last; trailers where there can be any. After fewer bytes than declared: ``short``, and must close (R24)."""
        return self._current().end(trailers) if trailers else self._current().end()

    def write_response(
        self,
        status: int,
        reason: bytes,
        fields: Fields,
        body: bytes,
        *,
        date: bytes,
        close: bool = False,
        length: int | None = None,
    ) -> bytes:
        """Head, body and end at once.

        :param length: as declared; needed only where it is not that of ``body``, as with HEAD and 304.
        """
        return self._current().whole(status, reason, fields, body, length, date, close)

    def write_app_response(self, app: AppHead, body: bytes, *, date: bytes, close: bool = False) -> bytes:
        """The whole response of an application: its head, body and end at once."""
        return self._current().answer(app, body, date, close)

    def interim(self, status: int, reason: bytes, fields: Fields) -> bytes:
        """A 1xx response; ``b""`` for an HTTP/1.0 client (R20, R21).

        :raises UnfitResponseHead: the status or a field cannot be sent.
        """
        return self._current().interim(status, reason, fields)

    def probe(self) -> bytes:
        """What says nothing, but is answered by the kernel of a client that is gone; ``b""``: there is nothing. Only between two pieces of the response."""
        return self._current().probe()

    def switch_protocols(self, reason: bytes, fields: Fields) -> bytes:
        """The head of status 101 (``response_head.parse_switch``); ``hand_over`` follows."""
        return self._current().switch(reason, fields)

    def hand_over(self) -> bytes:
        """The connection is not HTTP any more: what the client has sent behind its request, if anything. Nothing else is read or written here."""
        self._current().hand_over()
        return self._take()

    def error_response(self, status: int, reason: bytes, fields: Fields, body: bytes, date: bytes) -> bytes:
        """A response that is the connection's last, at any time and without any reader (R26).

        ``b""`` if a response has begun already: then only the end of the connection can tell.
        """
        message = self._message
        if message is not None:
            if message.begun:
                return b""
            message.begun = message.ended = True
        self._fail(self._failure or "connection_closing")
        lines = [status_line(status, reason)]
        lines += [b"%s: %s" % field for field in with_standard_fields(fields, date)]
        # RFC 9110 7.8: a message with Upgrade names it in Connection.
        upgrade = b", upgrade" if any(name.lower() == b"upgrade" for name, _ in fields) else b""
        lines += (b"Content-Length: %d" % len(body), b"Connection: close" + upgrade, b"")
        # RFC 9110 9.3.2; a head need not be whole, or right, for that.
        mute = self._mute if message is None else message.head.method == b"HEAD"
        lines.append(b"" if mute else body)
        return b"\r\n".join(lines)

    @property
    def known(self) -> Known:
        """What is known of the request that was refused, or is in hand: for the log."""
        if self._message is not None:
            head = self._message.head
            return Known(head.method, head.target, head.version, head.fields)
        return self._known or Known()

    @property
    def must_close(self) -> bool:
        """The connection cannot be used again after this message."""
        return bool(self._failure) or (self._message is not None and self._message.must_close)

    @property
    def overrun(self) -> int:
        """Bytes that the application sent beyond the length that it had declared (R24)."""
        return 0 if self._message is None else self._message.overrun

    @property
    def short(self) -> bool:
        """The response ended before the length that it had declared (R24)."""
        return self._message is not None and self._message.short

    def finish_message(self) -> bool:
        """Be ready for the next request, whose bytes may be here already, if request and response are complete and both sides want the connection to live on.

        :returns: whether it was so.
        """
        message = self._message
        if message is None or message.must_close or not (message.body_complete and message.ended) or self._failure:
            return False
        self._message = None
        return True

    def _current(self) -> Message:
        if self._message is None:
            raise InvariantBroken("there is no request in hand")
        return self._message

    def _fail(self, code: str) -> None:
        self._failure = code
        if self._scan is not None:
            self._mute = self._scan.asks_for_head
            self._known = self._scan.known()
        self._scan = self._ahead = None
        self._data = b""
