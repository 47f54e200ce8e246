"""An HTTP request: ``receive`` with back-pressure, ``send`` by the state of the response."""

from passenger_trio_loader.asgi.header_fields import encoded_fields
from passenger_trio_loader.asgi.session import HIGH_WATER, Session
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.session_frames import INTERIM, frame_prefix

DRAIN_BYTES = 1024 * 1024
"""Bytes of a body that are dropped to keep the stream, if they arrive after the response."""


class Http(Session):
    """A request and its response."""

    def __init__(self, stream, scope):
        super().__init__(stream, scope)
        self.ended = False
        """The request body has arrived completely."""
        self._body = []
        self._size = 0
        self._body_received = False
        """The application has received all of it, its end included."""
        self._dropped = 0

    # From the stream

    def on_data(self, kind, piece, is_last):
        if self.done or self.over:
            self._dropped += len(piece)
            if self._dropped > DRAIN_BYTES:
                self.stream.close_when_sent(False)
            return
        self._body.append(piece)
        self._size += len(piece)
        self.changed.notify_all()
        if self._size > HIGH_WATER:
            self.stream.pause_reading()

    def on_body_end(self):
        self.ended = True
        self.expects = b"A"
        self.changed.notify_all()
        self.release_if_done()

    def release_if_done(self):
        """Give the stream back when both request and response are complete on the wire."""
        if self.done and self.ended and not self.gone:
            self.stream.release(self)
        elif self.done:
            # The rest of the body is dropped, up to ``DRAIN_BYTES``.
            self._body.clear()
            self.stream.resume_reading()
            if self.worker.stopping:
                self.loop.call_later(0, self.stream.on_stopping)

    # What the application calls

    async def receive(self):
        if self.loop.always_checkpoints:
            await self.loop.checkpoint()
        while True:
            if self.gone or self.done:
                return {"type": "http.disconnect"}
            if self._body or (self.ended and not self._body_received):
                body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
                self._body.clear()
                self._size = 0
                self._body_received = self.ended
                self.stream.resume_reading()
                return {"type": "http.request", "body": body, "more_body": not self.ended}
            await self.changed.wait()

    async def send(self, message):
        kind = message["type"]
        if self.gone:
            await self.drop_message()
        elif self.done:
            if self.loop.always_checkpoints:
                await self.loop.checkpoint()  # The specification says: ignore further messages.
        elif kind == "http.response.body":
            await self.on_response_body(message)
        elif kind == "http.response.start":
            self.on_response_start(message)
        elif kind == "http.response.trailers":
            self.on_trailers(message)
        elif kind == "http.response.early_hint":
            self._hint(message)
        else:
            raise RuntimeError("%r cannot be sent in an HTTP session" % (kind,))

    def _hint(self, message):
        if not self.begun:
            fields, _ = encoded_fields([(b"link", link) for link in message["links"]])
            head = b"103\0Early Hints\0" + fields
            self.stream.write(frame_prefix(INTERIM, len(head)) + head)

    # How the application ends

    def on_returned(self):
        if self.gone:
            self.stream.close_when_sent(not self.done)
        elif self._body_ended and not self.done:
            self.end_with_trailers()  # The head has promised trailers, and there are none.
        elif not self.done and self.head is not None and not self.begun:
            # The application has sent a head and no body: the body is empty.
            self.send_head_alone()
            self.release_if_done()
        elif not self.done:
            self._end_with_error(RuntimeError("the application returned without sending a whole response"))

    def on_failed(self, error):
        if not self.log_error(error) or self.gone:
            self.stream.close_when_sent(not self.done)
        elif not self.done:
            self._end_with_error(error, told=True)

    def _end_with_error(self, error, told=False):
        if not told:
            write_stderr("passenger_trio: %s\n" % error)
        if self.begun:
            self.truncate()
        else:
            self.answer_error(error)
            self.release_if_done()
