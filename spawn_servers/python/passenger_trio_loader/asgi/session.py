"""What an HTTP request and a WebSocket have in common: one run of the application, and an HTTP response.

(A WebSocket handshake can be refused with a response.) The subclasses say which messages the application may send, and
when the stream is free for the next session.
"""

from passenger_trio_loader.asgi.header_fields import REASONS, encoded_fields
from passenger_trio_loader.asgi.scope import TRAILERS_EXTENSION
from passenger_trio_loader.originals import monotonic
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.session_frames import (
    BLOCK,
    DATA,
    END_FRAME,
    ERROR,
    MAX_FRAME,
    RESPONSE,
    TRAILERS,
    closing_response,
    frame_prefix,
)
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import error_payload, traceback_of

HIGH_WATER = 65536
"""Bytes that may wait for the application's ``receive``. Above this, reading from the stream is paused."""
SEND_TO_GONE_TIME = 10.0
"""Seconds for which an application may send to a client that is gone. Then ``send`` raises, because otherwise the
application might never end."""


def is_disconnect_error(error):
    """Whether an exception is only the application's reaction to a client that is gone."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return all(is_disconnect_error(one) for one in inner)
    kind = type(error).__name__
    return isinstance(error, OSError) or "Disconnect" in kind or kind == "CancelledError"


def is_cancellation(error):
    """Whether an exception is the cancellation of a task, and nothing else."""
    inner = getattr(error, "exceptions", None)
    return all(map(is_cancellation, inner)) if inner else type(error).__name__ == "CancelledError"


TOO_LATE = closing_response(
    b"503\0Service Unavailable\0content-type\0text/plain\0content-length\x0059\0",
    b"The process is to end, and this request has taken too long.",
)
"""The response to a request that is cancelled because the process ends."""


class Session:
    """One run of the application.

    ``expects``: the types of the frames that may come next. ``begun``: a response head was sent. ``done``: the response
    is complete on the wire. ``over``: the application has returned. ``gone``: the client is gone, or the stream broken.
    """

    expects = b"DEA"
    cancel_scope = None
    task = None
    cancelled = False
    """The loader has cancelled it, because the process ends."""

    def __init__(self, stream, scope):
        self.stream = stream
        self.scope = scope
        self.worker = stream.worker
        self.loop = self.worker.loop
        self.changed = self.loop.condition()
        self.head = None
        self.begun = False
        self.done = False
        self.over = False
        self.gone = False
        self.gone_at = 0.0
        self._is_head = scope.get("method") == "HEAD"
        self._no_body = self._is_head
        self._length = None
        """The response's content-length, if it has one."""
        self._sent = 0
        self._trailers = None
        """The trailers so far. None: the response head has not announced any."""
        self._body_ended = False

    async def run(self):
        try:
            await self.loop.run_session(self, self._call)
        except Leave:
            raise
        except BaseException as error:
            if self.worker.is_leaving or self.loop.is_shutdown_cancellation(error):
                raise
            self.over = True
            if self.cancelled and not self.done and is_cancellation(error):
                self.on_cancelled()
            else:
                self.on_failed(error)
        else:
            self.over = True
            if self.cancelled and not self.done:
                self.on_cancelled()
            else:
                self.on_returned()
        self.worker.session_ended(self)

    async def _call(self):
        await self.worker.application(self.scope, self.receive, self.send)

    def on_client_gone(self):
        """The client is gone, or the stream has broken."""
        if self.gone:
            return
        self.gone = True
        self.gone_at = monotonic()
        self.changed.notify_all()
        if not self.done:
            self.loop.on_client_gone(self)
        if self.over or self.done:
            self.stream.close_when_sent(not self.done)

    def log_error(self, error):
        """Log what the application has raised. False: it is only a reaction to the client's end, and not logged."""
        if (self.gone or self.gone_at) and is_disconnect_error(error):
            return False
        write_stderr(traceback_of(error))
        return True

    def answer_error(self, error):
        """Send the error to the supervisor in place of a response."""
        payload = error_payload(error, traceback_of(error))
        self.begun = True
        self.done = True
        self.stream.write(frame_prefix(ERROR, len(payload)) + payload + END_FRAME)

    async def drop_message(self):
        """The application has sent a message to a client that is gone."""
        if monotonic() - self.gone_at > SEND_TO_GONE_TIME:
            raise ConnectionAbortedError("the client has been gone for %d s" % SEND_TO_GONE_TIME)
        await self.loop.checkpoint()

    def on_cancelled(self):
        """The loader has cancelled the session before its response was complete."""
        if self.gone:
            self.stream.close_when_sent(not self.done)
        elif self.begun:
            self.truncate()
        else:
            self.begun = self.done = True
            self.stream.write(TOO_LATE)
            self.stream.close_when_sent(False)

    # An HTTP response

    def on_response_start(self, message):
        if self.head is not None:
            raise RuntimeError("%s was sent twice" % message["type"])
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError("not the status of a response: %r" % (status,))
        fields, self._length = encoded_fields(message.get("headers", ()))
        self.head = b"%d\0%s\0%s" % (status, REASONS.get(status, b""), fields)
        self._no_body = self._is_head or status in (204, 304)
        if message.get("trailers") and message["type"] == "http.response.start":
            self._trailers = []

    async def on_response_body(self, message):
        if self.head is None:
            raise RuntimeError("%s was sent before the start of the response" % message["type"])
        body = message.get("body", b"")
        if type(body) is not bytes:
            if not isinstance(body, (bytes, bytearray, memoryview)):
                raise TypeError("the body must be bytes, not %s" % type(body).__name__)
            body = bytes(body)
        more = message.get("more_body", False)
        parts = []
        size = len(body)
        if not self.begun:
            head = self.head
            # The empty body of a HEAD response says nothing of the length that GET would have.
            if (
                not more
                and self._trailers is None
                and self._length is None
                and (not self._no_body or (self._is_head and size))
            ):
                head += b"content-length\0%d\0" % size
                self._length = size
            parts += (frame_prefix(RESPONSE, len(head)), head)
            self.begun = True
        excess = 0
        if self._no_body:
            size = 0
            complete = True
        else:
            if self._length is not None:
                excess = max(0, self._sent + size - self._length)
                if excess:
                    body = body[:-excess]
                    size -= excess
            self._sent += size
            complete = self._sent == self._length if self._length is not None else not more
            if self._trailers is not None and complete:
                complete = False
                more = self._body_ended = True
        for at in range(0, size, MAX_FRAME):
            piece = body if size <= MAX_FRAME else memoryview(body)[at : at + MAX_FRAME]
            parts += (frame_prefix(DATA, len(piece)), piece)
        stream = self.stream
        if complete:
            parts.append(END_FRAME)
            self.done = True
        if size <= BLOCK:
            stream.write(b"".join(parts))
        else:
            stream.write_parts(parts)
        if excess:
            write_stderr("passenger_trio: %d bytes beyond the Content-Length of the response were dropped\n" % excess)
        if complete:
            self.changed.notify_all()
            self.release_if_done()
        elif not more:
            self._warn_short()
        if stream.has_unsent:
            await stream.wait_flushed()
        if not complete or self.loop.always_checkpoints:
            await self.loop.checkpoint()

    def send_head_alone(self):
        """Send the head and no body: the application has returned without sending one."""
        head = self.head
        if self._length is None and not self._no_body:
            head += b"content-length\x000\0"
        self.begun = True
        self.stream.write(frame_prefix(RESPONSE, len(head)) + head)
        if self._length and not self._no_body:
            self._warn_short()
        else:
            self.done = True
            self.stream.write(END_FRAME)

    def on_trailers(self, message):
        if self._trailers is None:
            raise RuntimeError("trailers are sent, but http.response.start has not said that there would be any")
        if not self._body_ended:
            raise RuntimeError("trailers were sent before the end of the body")
        self._trailers += message.get("headers", ())
        if not message.get("more_trailers", False):
            self.end_with_trailers()

    def end_with_trailers(self):
        data = b""
        if self._trailers and TRAILERS_EXTENSION in self.scope["extensions"]:
            fields, _ = encoded_fields(self._trailers)
            data = frame_prefix(TRAILERS, len(fields)) + fields
        self.done = True
        self.stream.write(data + END_FRAME)
        self.changed.notify_all()
        self.release_if_done()

    def truncate(self):
        """Close the stream without an end frame, so that the client sees that the response is incomplete."""
        self.done = True
        self.changed.notify_all()
        self.stream.close_when_sent(False)

    def _warn_short(self):
        write_stderr(
            "passenger_trio: the response ended after %d of the %d bytes of its Content-Length\n"
            % (self._sent, self._length)
        )
        self.truncate()
