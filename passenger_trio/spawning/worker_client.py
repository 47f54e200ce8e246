"""One request to a process, and its response, without a client's connection: for the warm-up, and for programs that borrow
processes.

This module speaks the protocol of the process (``codecs/worker_protocol``) on a stream that the caller has opened. Requests of
clients go through ``server/http`` instead, which forwards a response while it arrives."""

from __future__ import annotations

import trio

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.response_head import AppHead, parse_response_head
from passenger_trio.codecs.session_protocol import DATA, END, ERROR, FLAG_CLOSE, HEAD, split_application_error
from passenger_trio.codecs.worker_protocol import WorkerProtocol
from passenger_trio.errors import ApplicationRaised, IncompleteResponse
from passenger_trio.system.raw_stream import RawStream

__all__ = ["WorkerExchange"]


class WorkerExchange:
    """One request on one stream."""

    def __init__(self, stream: RawStream, protocol: WorkerProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._reader = protocol.reader(b"GET")
        self.complete = False
        """Whether the response is complete."""
        self.keeps_stream = False
        """Whether the process takes another request on the stream."""

    @property
    def begun(self) -> bool:
        """Whether a byte of the response has come."""
        return self._reader.begun

    async def send(self, head: Head, pairs: bytes, script_name: bytes, id_pairs: bytes, body: bytes) -> None:
        """Send the request. A stream that is broken is not an error here: reading shows it.

        :param pairs: see ``cgi_fields.cgi_pairs``.
        """
        self._reader = self._protocol.reader(head.method)
        most = 1024**2
        data, encoding = self._protocol.request(
            head, pairs, script_name, False, id_pairs, body[:most], len(body) <= most, head.content_length
        )
        try:
            await self._stream.send_all(data)
            for start in range(most, len(body), most):
                await self._stream.send_all(encoding.piece(body[start : start + most]))
            if len(body) > most:
                await self._stream.send_all(encoding.end)
        except trio.BrokenResourceError:
            pass

    async def head(self) -> AppHead:
        """The response's head, after any interim ones.

        :raises ApplicationRaised: the application raised instead.
        :raises AppResponseError: the response is invalid.
        """
        while True:
            kind, payload = await self._next()
            if kind == HEAD:
                return parse_response_head(payload)
            if kind == ERROR:
                raise ApplicationRaised(*split_application_error(payload))

    async def piece(self) -> bytes | None:
        """The next bytes of the body; None at its end.

        :raises AppResponseError: the response is incomplete, or invalid.
        """
        while not self.complete:
            kind, payload = await self._next()
            if kind == DATA:
                return payload
            if kind == ERROR:
                raise ApplicationRaised(*split_application_error(payload))
            if kind == END:
                self.complete = True
                self.keeps_stream = not (payload and payload[0] & FLAG_CLOSE)
        return None

    async def _next(self) -> tuple[int, bytes]:
        while (event := self._reader.next_event()) is None:
            try:
                data = await self._stream.recv()
            except trio.BrokenResourceError as error:
                raise IncompleteResponse(f"the process broke the connection: {error}") from error
            if data:
                self._reader.feed(data)
            else:
                self._reader.feed_eof()
        return event
