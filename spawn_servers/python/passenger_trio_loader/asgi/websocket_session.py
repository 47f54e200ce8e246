"""A WebSocket: its handshake, its messages, its end."""

from collections import deque

from passenger_trio_loader.asgi.header_fields import encoded_fields
from passenger_trio_loader.asgi.session import HIGH_WATER, Session
from passenger_trio_loader.originals import monotonic
from passenger_trio_loader.output import say
from passenger_trio_loader.session_frames import (
    ACCEPT,
    BINARY,
    BLOCK,
    CLOSE,
    MAX_FRAME,
    TEXT,
    THE_END,
    ProtocolViolation,
    start,
)

NORMAL, NO_STATUS, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1005, 1006, 1011, 1012
"""Close codes of WebSockets (RFC 6455, 7.4.1, and its registry)."""
MOST_MESSAGES = 64
"""What ``HIGH_WATER`` is for bytes, for the messages of a WebSocket, which may be empty."""


class WebSocket(Session):
    """A handshake, and then messages; or a handshake, and then an HTTP response that refuses it."""

    expects = b"EA"

    def __init__(self, stream, scope):
        super().__init__(stream, scope)
        self.ended = False
        self._greeted = False
        self._accepted = False
        self._said_close = None
        """(code, reason) that the application has sent; and those that have come:"""
        self._heard_close = None
        self._told = False
        """The application has received the disconnect."""
        self._messages = deque()
        self._size = 0
        self._parts = []

    # What comes

    def take_end(self):
        self.ended = True
        self._expect()
        self._give_back()

    def _expect(self):
        if not self.ended:
            self.expects = b"EA"  # The application may be faster than the end of its request.
        else:
            self.expects = b"TBCA" if self._accepted and self._heard_close is None else b"A"

    def take_piece(self, kind, piece, is_last):
        """:raises ProtocolViolation: a text is not UTF-8."""
        self._parts.append(piece)
        if not is_last:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        if kind == TEXT:
            message = {"type": "websocket.receive", "text": text_in(data)}
        else:
            message = {"type": "websocket.receive", "bytes": data}
        if self.over or self._said_close is not None:
            return
        self._messages.append((message, len(data)))
        self._size += len(data)
        self.bell.ring()
        if self._size > HIGH_WATER or len(self._messages) > MOST_MESSAGES:
            self.stream.pause()

    def take_close(self, payload):
        """:raises ProtocolViolation: it is no code and a reason."""
        if len(payload) == 1:
            raise ProtocolViolation("half a close code")
        self._heard_close = (int.from_bytes(payload[:2], "big"), text_in(payload[2:])) if payload else (NO_STATUS, "")
        self.gone_at = self.gone_at or monotonic()
        self._expect()
        self.bell.ring()
        self.wire_over()

    def wire_over(self):
        """Give the stream back: the handshake was refused, or both sides have closed and the application is done."""
        if self.gone:
            return
        if self._accepted and self.over and self._heard_close is not None:
            self.done = True
            self.stream.write(THE_END)
        self._give_back()

    def _give_back(self):
        if self.done and self.ended and not self.gone:
            self.stream.release(self)

    # What the application calls

    async def receive(self):
        if self.loop.always_pauses:
            await self.loop.pause()
        while True:
            if not self._greeted:
                self._greeted = True
                return {"type": "websocket.connect"}
            if self._messages:
                message, size = self._messages.popleft()
                self._size -= size
                if not self._messages:
                    self.stream.resume()
                return message
            if self.gone or self.done or self._heard_close or self._said_close:
                self._told = True
                code, reason = self._said_close or self._heard_close or (ABNORMAL, "")
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self.bell.wait()

    async def send(self, message):
        kind = message["type"]
        if self.gone or self._heard_close:
            if not self._told:
                self.loop.interrupt(self)
            await self.drop()
        elif self.done or self._said_close:
            await self.loop.pause()  # Too late for anything.
        elif self._accepted:
            if kind == "websocket.send":
                await self._send(message)
            elif kind == "websocket.close":
                self._close(message.get("code"), message.get("reason"))
            else:
                raise RuntimeError("%r cannot be sent on an open WebSocket" % (kind,))
        elif kind == "websocket.http.response.body":
            await self.take_body(message)
        elif kind == "websocket.http.response.start":
            self.take_start(message)
        elif self.head is not None:
            raise RuntimeError("%r cannot be sent: an HTTP response has begun" % (kind,))
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self.take_start({"type": kind, "status": 403})
            await self.take_body({"type": kind})
        else:
            raise RuntimeError("%r cannot be sent before websocket.accept" % (kind,))

    def _accept(self, message):
        fields, _ = encoded_fields(message.get("headers") or ())
        if any(name.lower() == b"sec-websocket-protocol" for name, _ in message.get("headers") or ()):
            raise ValueError("the header sec-websocket-protocol is made of the subprotocol of websocket.accept")
        subprotocol = message.get("subprotocol")
        if subprotocol:
            fields += encoded_fields([(b"sec-websocket-protocol", subprotocol.encode("latin-1"))])[0]
        self._accepted = True
        self._expect()
        self.stream.write(start(ACCEPT, len(fields)) + fields)

    async def _send(self, message):
        text = message.get("text")
        data = message.get("bytes")
        if (text is None) == (data is None):
            raise ValueError("websocket.send has either text or bytes")
        kind, payload = (BINARY, bytes(data)) if text is None else (TEXT, text.encode())
        if len(payload) > MAX_FRAME:
            raise ValueError("a message of %d bytes cannot be sent: at most %d" % (len(payload), MAX_FRAME))
        stream = self.stream
        if len(payload) <= BLOCK:
            stream.write(start(kind, len(payload)) + payload)
        else:
            stream.write_parts([start(kind, len(payload)), payload])
        if stream.is_behind:
            await stream.flushed()
        await self.loop.pause()

    def _close(self, code, reason):
        code = NORMAL if code is None else code
        if not (isinstance(code, int) and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)):
            raise ValueError("not a close code that can be sent: %r" % (code,))
        text = (reason or "").encode()
        if len(text) > 123:
            raise ValueError("the reason of a close takes at most 123 bytes, not %d" % len(text))
        self._said_close = code, reason or ""
        self._messages.clear()
        self.stream.write(start(CLOSE, 2 + len(text)) + code.to_bytes(2, "big") + text)
        self.stream.resume()
        self.bell.ring()

    # What comes of it

    def returned(self):
        if not self._accepted and not self.done and not self.gone:
            self._refused(RuntimeError("the application returned without an answer to the WebSocket handshake"))
        else:
            self._finish(NORMAL)

    def failed(self, error):
        is_error = self.report(error)
        if not self._accepted and not self.done and not self.gone and is_error:
            self._refused(error, told=True)
        else:
            self._finish(INTERNAL_ERROR)

    def cut_short(self):
        if self._accepted:
            self._finish(SERVICE_RESTART)
        else:
            super().cut_short()

    def _refused(self, error, told=False):
        if not told:
            say("passenger_trio: %s\n" % error)
        if self.begun:
            self.cut()
        else:
            self.answer_error(error)
            self.wire_over()

    def _finish(self, code):
        if self.gone:
            self.stream.end_last(not self.done)
        elif self._accepted:
            if not (self._said_close or self._heard_close):
                self._close(code, "")
            self._messages.clear()
            self.stream.resume()
            self.wire_over()


def text_in(data):
    """:raises ProtocolViolation: it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolViolation("a text is not UTF-8") from error
