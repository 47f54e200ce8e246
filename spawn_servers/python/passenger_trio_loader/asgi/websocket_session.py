"""A WebSocket: its handshake, its messages, its end (CONTRACT.md, "WebSocket").

Both sides must have sent a close, and the application must have returned, before the stream is free.
"""

from collections import deque

from passenger_trio_loader.asgi.header_fields import encoded_fields
from passenger_trio_loader.asgi.session import HIGH_WATER, Session
from passenger_trio_loader.originals import monotonic
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.session_frames import (
    ACCEPT,
    BINARY,
    BLOCK,
    CLOSE,
    END_FRAME,
    MAX_FRAME,
    TEXT,
    ProtocolViolation,
    frame_prefix,
)

NORMAL, NO_STATUS, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1005, 1006, 1011, 1012
"""Close codes of WebSockets (RFC 6455, 7.4.1, and its registry)."""
MOST_MESSAGES = 64
"""What ``HIGH_WATER`` is for bytes, for the messages of a WebSocket, which may be empty."""


class WebSocket(Session):
    """A handshake, followed by messages or by an HTTP response that rejects it."""

    expects = b"EA"

    def __init__(self, stream, scope):
        super().__init__(stream, scope)
        self.ended = False
        self._connect_sent = False
        self._accepted = False
        self._close_sent = None
        """(code, reason) from the application; and from the client:"""
        self._close_received = None
        self._disconnect_received = False
        """The application has received ``websocket.disconnect``."""
        self._messages = deque()
        self._size = 0
        self._parts = []

    # From the stream

    def on_body_end(self):
        self.ended = True
        self._expect()
        self._give_back()

    def _expect(self):
        if not self.ended:
            self.expects = b"EA"  # The application may accept before the end of its request has arrived.
        else:
            self.expects = b"TBCA" if self._accepted and self._close_received is None else b"A"

    def on_data(self, kind, piece, is_last):
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
        if self.over or self._close_sent is not None:
            return
        self._messages.append((message, len(data)))
        self._size += len(data)
        self.changed.notify_all()
        if self._size > HIGH_WATER or len(self._messages) > MOST_MESSAGES:
            self.stream.pause_reading()

    def on_close(self, payload):
        """:raises ProtocolViolation: the payload is not a code and a reason."""
        if len(payload) == 1:
            raise ProtocolViolation("half a close code")
        self._close_received = (
            (int.from_bytes(payload[:2], "big"), text_in(payload[2:])) if payload else (NO_STATUS, "")
        )
        self.gone_at = self.gone_at or monotonic()
        self._expect()
        self.changed.notify_all()
        self.release_if_done()

    def release_if_done(self):
        """Give the stream back when the handshake is rejected, or both sides have closed and the application has returned."""
        if self.gone:
            return
        if self._accepted and self.over and self._close_received is not None:
            self.done = True
            self.stream.write(END_FRAME)
        self._give_back()

    def _give_back(self):
        if self.done and self.ended and not self.gone:
            self.stream.release(self)

    # What the application calls

    async def receive(self):
        if self.loop.always_checkpoints:
            await self.loop.checkpoint()
        while True:
            if not self._connect_sent:
                self._connect_sent = True
                return {"type": "websocket.connect"}
            if self._messages:
                message, size = self._messages.popleft()
                self._size -= size
                if not self._messages:
                    self.stream.resume_reading()
                return message
            if self.gone or self.done or self._close_received or self._close_sent:
                self._disconnect_received = True
                code, reason = self._close_sent or self._close_received or (ABNORMAL, "")
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self.changed.wait()

    async def send(self, message):
        kind = message["type"]
        if self.gone or self._close_received:
            if not self._disconnect_received:
                self.loop.on_client_gone(self)
            await self.drop_message()
        elif self.done or self._close_sent:
            await self.loop.checkpoint()  # Ignored: the WebSocket is closed.
        elif self._accepted:
            if kind == "websocket.send":
                await self._send(message)
            elif kind == "websocket.close":
                self._close(message.get("code"), message.get("reason"))
            else:
                raise RuntimeError("%r cannot be sent on an open WebSocket" % (kind,))
        elif kind == "websocket.http.response.body":
            await self.on_response_body(message)
        elif kind == "websocket.http.response.start":
            self.on_response_start(message)
        elif self.head is not None:
            raise RuntimeError("%r cannot be sent: an HTTP response has begun" % (kind,))
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self.on_response_start({"type": kind, "status": 403})
            await self.on_response_body({"type": kind})
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
        self.stream.write(frame_prefix(ACCEPT, len(fields)) + fields)

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
            stream.write(frame_prefix(kind, len(payload)) + payload)
        else:
            stream.write_parts([frame_prefix(kind, len(payload)), payload])
        if stream.has_unsent:
            await stream.wait_flushed()
        await self.loop.checkpoint()

    def _close(self, code, reason):
        code = NORMAL if code is None else code
        if not (isinstance(code, int) and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)):
            raise ValueError("not a close code that can be sent: %r" % (code,))
        text = (reason or "").encode()
        if len(text) > 123:
            raise ValueError("the reason of a close takes at most 123 bytes, not %d" % len(text))
        self._close_sent = code, reason or ""
        self._messages.clear()
        self.stream.write(frame_prefix(CLOSE, 2 + len(text)) + code.to_bytes(2, "big") + text)
        self.stream.resume_reading()
        self.changed.notify_all()

    # How the application ends

    def on_returned(self):
        if not self._accepted and not self.done and not self.gone:
            self._reject_with_error(
                RuntimeError("the application returned without an answer to the WebSocket handshake")
            )
        else:
            self._finish(NORMAL)

    def on_failed(self, error):
        is_error = self.log_error(error)
        if not self._accepted and not self.done and not self.gone and is_error:
            self._reject_with_error(error, told=True)
        else:
            self._finish(INTERNAL_ERROR)

    def on_cancelled(self):
        if self._accepted:
            self._finish(SERVICE_RESTART)
        else:
            super().on_cancelled()

    def _reject_with_error(self, error, told=False):
        if not told:
            write_stderr("passenger_trio: %s\n" % error)
        if self.begun:
            self.truncate()
        else:
            self.answer_error(error)
            self.release_if_done()

    def _finish(self, code):
        if self.gone:
            self.stream.close_when_sent(not self.done)
        elif self._accepted:
            if not (self._close_sent or self._close_received):
                self._close(code, "")
            self._messages.clear()
            self.stream.resume_reading()
            self.release_if_done()


def text_in(data):
    """:raises ProtocolViolation: the bytes are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolViolation("a text is not UTF-8") from error
