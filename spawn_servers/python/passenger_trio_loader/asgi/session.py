"""One run of the application: what an HTTP request and a WebSocket have in common, an HTTP response included."""

from passenger_trio_loader.asgi.header_fields import REASONS, encoded_fields
from passenger_trio_loader.asgi.scope import TRAILERS_EXTENSION
from passenger_trio_loader.originals import monotonic
from passenger_trio_loader.output import say
from passenger_trio_loader.session_frames import (
    BLOCK,
    DATA,
    ERROR,
    MAX_FRAME,
    RESPONSE,
    THE_END,
    TRAILERS,
    start,
    whole_response,
)
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import error_payload, traceback_of

HIGH_WATER = 65536
"""Bytes that wait for the application to receive them before the stream is not read any more."""
DEAF_TIME = 10.0
"""Seconds for which an application may go on sending to a client that is gone. Then ``send`` raises: it would not end
by itself."""


def is_farewell(error):
    """Whether an exception is no more than what an application makes of a client that is gone."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return all(is_farewell(one) for one in inner)
    kind = type(error).__name__
    return isinstance(error, OSError) or "Disconnect" in kind or kind == "CancelledError"


def is_cancellation(error):
    """Whether an exception is a task's cancellation, and nothing else."""
    inner = getattr(error, "exceptions", None)
    return all(map(is_cancellation, inner)) if inner else type(error).__name__ == "CancelledError"


TOO_LATE = whole_response(
    b"503\0Service Unavailable\0content-type\0text/plain\0content-length\x0059\0",
    b"The process is to end, and this request has taken too long.",
)
"""The answer to a request that is cancelled because the process is to end."""


class Session:
    """One run of the application.

    ``expects`` has the types of the frames that may come next. ``gone`` says that the client is gone or that the
    stream is broken, ``done`` that an HTTP response is complete on the wire, ``over`` that the application has
    returned. ``begun`` says that a response head was sent.
    """

    expects = b"DEA"
    cancel_scope = None
    task = None
    cancelled = False
    """By us, because the process is to end."""

    def __init__(self, stream, scope):
        self.stream = stream
        self.scope = scope
        self.worker = stream.worker
        self.loop = self.worker.loop
        self.bell = self.loop.bell()
        self.head = None
        self.begun = False
        self.done = False
        self.over = False
        self.gone = False
        self.gone_at = 0.0
        self._is_head = scope.get("method") == "HEAD"
        self._no_body = self._is_head
        self._length = None
        """What the response head says of the body's length."""
        self._sent = 0
        self._trailers = None
        """Fields behind the body, once the head has promised them."""
        self._body_ended = False

    async def run(self):
        try:
            await self.loop.guard(self, self._call)
        except Leave:
            raise
        except BaseException as error:
            if self.worker.is_leaving or self.loop.is_ours(error):
                raise
            self.over = True
            if self.cancelled and not self.done and is_cancellation(error):
                self.cut_short()
            else:
                self.failed(error)
        else:
            self.over = True
            if self.cancelled and not self.done:
                self.cut_short()
            else:
                self.returned()
        self.worker.forget(self)

    async def _call(self):
        await self.worker.application(self.scope, self.receive, self.send)

    def lost(self):
        """The client is gone, or the stream is."""
        if self.gone:
            return
        self.gone = True
        self.gone_at = monotonic()
        self.bell.ring()
        if not self.done:
            self.loop.interrupt(self)
        if self.over or self.done:
            self.stream.end_last(not self.done)

    def report(self, error):
        """The application raised: True if that is an error, and has been written to the log."""
        if (self.gone or self.gone_at) and is_farewell(error):
            return False
        say(traceback_of(error))
        return True

    def answer_error(self, error):
        """In place of a response."""
        payload = error_payload(error, traceback_of(error))
        self.begun = True
        self.done = True
        self.stream.write(start(ERROR, len(payload)) + payload + THE_END)

    async def drop(self):
        """Something was sent that nobody takes any more."""
        if monotonic() - self.gone_at > DEAF_TIME:
            raise ConnectionAbortedError("the client is gone, and this has been going on for %d s" % DEAF_TIME)
        await self.loop.pause()

    def cut_short(self):
        """It was cancelled, because the process is to end, and has not answered."""
        if self.gone:
            self.stream.end_last(not self.done)
        elif self.begun:
            self.cut()
        else:
            self.begun = self.done = True
            self.stream.write(TOO_LATE)
            self.stream.end_last(False)

    # An HTTP response

    def take_start(self, message):
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

    async def take_body(self, message):
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
            # Nothing is known of the body of a HEAD request's GET from an empty one.
            if (
                not more
                and self._trailers is None
                and self._length is None
                and (not self._no_body or (self._is_head and size))
            ):
                head += b"content-length\0%d\0" % size
                self._length = size
            parts += (start(RESPONSE, len(head)), head)
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
            parts += (start(DATA, len(piece)), piece)
        stream = self.stream
        if complete:
            parts.append(THE_END)
            self.done = True
        if size <= BLOCK:
            stream.write(b"".join(parts))
        else:
            stream.write_parts(parts)
        if excess:
            say("passenger_trio: %d bytes beyond the Content-Length of the response were dropped\n" % excess)
        if complete:
            self.bell.ring()
            self.wire_over()
        elif not more:
            self._tell_short()
        if stream.is_behind:
            await stream.flushed()
        if not complete or self.loop.always_pauses:
            await self.loop.pause()

    def send_head_alone(self):
        """The application has returned without any body."""
        head = self.head
        if self._length is None and not self._no_body:
            head += b"content-length\x000\0"
        self.begun = True
        self.stream.write(start(RESPONSE, len(head)) + head)
        if self._length and not self._no_body:
            self._tell_short()
        else:
            self.done = True
            self.stream.write(THE_END)

    def take_trailers(self, message):
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
            data = start(TRAILERS, len(fields)) + fields
        self.done = True
        self.stream.write(data + THE_END)
        self.bell.ring()
        self.wire_over()

    def cut(self):
        """No end: the client must see that the response is incomplete."""
        self.done = True
        self.bell.ring()
        self.stream.end_last(False)

    def _tell_short(self):
        say(
            "passenger_trio: the response ended after %d of the %d bytes of its Content-Length\n"
            % (self._sent, self._length)
        )
        self.cut()
