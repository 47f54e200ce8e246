"""An HTTP request and its response."""

from passenger_trio_loader.asgi.header_fields import encoded_fields
from passenger_trio_loader.asgi.session import HIGH_WATER, Session
from passenger_trio_loader.output import say
from passenger_trio_loader.session_frames import INTERIM, start

DRAIN_BYTES = 1024 * 1024
"""How much of a body that came too late for the response is dropped to save the stream."""


class Http(Session):
    """A request and its response."""

    def __init__(self, stream, scope):
        super().__init__(stream, scope)
        self.ended = False
        """The whole request body has come."""
        self._body = []
        self._size = 0
        self._told = False
        """The application has received all of it."""
        self._dropped = 0

    # What comes

    def take_piece(self, kind, piece, is_last):
        if self.done or self.over:
            self._dropped += len(piece)
            if self._dropped > DRAIN_BYTES:
                self.stream.end_last(False)
            return
        self._body.append(piece)
        self._size += len(piece)
        self.bell.ring()
        if self._size > HIGH_WATER:
            self.stream.pause()

    def take_end(self):
        self.ended = True
        self.expects = b"A"
        self.bell.ring()
        self.wire_over()

    def wire_over(self):
        """Give the stream back, if nothing of this session comes or goes any more."""
        if self.done and self.ended and not self.gone:
            self.stream.release(self)
        elif self.done:
            # What is left of the body is dropped, up to a point.
            self._body.clear()
            self.stream.resume()
            if self.worker.stopping:
                self.loop.call_later(0, self.stream.look_again)

    # What the application calls

    async def receive(self):
        if self.loop.always_pauses:
            await self.loop.pause()
        while True:
            if self.gone or self.done:
                return {"type": "http.disconnect"}
            if self._body or (self.ended and not self._told):
                body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
                self._body.clear()
                self._size = 0
                self._told = self.ended
                self.stream.resume()
                return {"type": "http.request", "body": body, "more_body": not self.ended}
            await self.bell.wait()

    async def send(self, message):
        kind = message["type"]
        if self.gone:
            await self.drop()
        elif self.done:
            if self.loop.always_pauses:
                await self.loop.pause()  # The specification: further messages are ignored.
        elif kind == "http.response.body":
            await self.take_body(message)
        elif kind == "http.response.start":
            self.take_start(message)
        elif kind == "http.response.trailers":
            self.take_trailers(message)
        elif kind == "http.response.early_hint":
            self._hint(message)
        else:
            raise RuntimeError("%r cannot be sent in an HTTP session" % (kind,))

    def _hint(self, message):
        if not self.begun:
            fields, _ = encoded_fields([(b"link", link) for link in message["links"]])
            head = b"103\0Early Hints\0" + fields
            self.stream.write(start(INTERIM, len(head)) + head)

    # What comes of it

    def returned(self):
        if self.gone:
            self.stream.end_last(not self.done)
        elif self._body_ended and not self.done:
            self.end_with_trailers()  # They were promised, and there are none.
        elif not self.done and self.head is not None and not self.begun:
            # A head, and no word of a body: that is what there is.
            self.send_head_alone()
            self.wire_over()
        elif not self.done:
            self._unfinished(RuntimeError("the application returned without sending a whole response"))

    def failed(self, error):
        if not self.report(error) or self.gone:
            self.stream.end_last(not self.done)
        elif not self.done:
            self._unfinished(error, told=True)

    def _unfinished(self, error, told=False):
        if not told:
            say("passenger_trio: %s\n" % error)
        if self.begun:
            self.cut()
        else:
            self.answer_error(error)
            self.wire_over()
