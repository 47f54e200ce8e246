"""The client's side of a response on the slow path. Bytes go to the client at once; the response's buffer gets what the
client does not take.

While the buffer holds something, one task (``_write_buffered``) gives it to the client. A client that keeps up costs no
task and no file. Bytes are framed before they come here, so ``sendfile`` can move them from the file to the socket.

Laws: bytes leave in the order of ``out``. The end of a chunked body is among them only if the process has ended its
response, so a response that is cut short cannot look whole (R24, R25). No exception leaves a task: the first failure is
given to ``fail``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import trio

from passenger_trio.errors import PassengerError
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.spill.spill_buffer import SpillBuffer

__all__ = ["ResponseWriter"]

_MANY_PARTS = 256
"""The most pieces that are sent as they are; more of them are joined first. The kernel takes 1024 at a time."""
_ASK_AFTER = 0.5
"""Seconds from a client's EOF to the probe whether the client is still there. Most responses end before that."""


class ResponseWriter:
    """The writer of one response. ``nursery`` must be set before anything is written."""

    __slots__ = ("_buffer", "_client", "_fail", "_written", "lost", "nursery", "out")

    nursery: trio.Nursery

    def __init__(
        self, client: Client, buffer: SpillBuffer, fail: Callable[[PassengerError | ClientGone], None]
    ) -> None:
        """:param fail: called with the failure that ends the response."""
        self._client = client
        self._buffer = buffer
        self._fail = fail
        self.out: list[bytes | memoryview] = []
        """The bytes that ``flush`` writes."""
        self.lost = 0
        """Bytes that were not sent because the client had left."""
        self._written: trio.Event | None = None
        """Exists while ``_write_buffered`` runs."""

    @property
    def is_behind(self) -> bool:
        """Whether the client is slower than the process, so that the buffer is being written to it."""
        return self._written is not None

    def flush(self) -> None:
        """Write ``out``.

        :raises ClientGone: the connection is broken.
        """
        out, self.out = self.out, []
        if len(out) > _MANY_PARTS:
            out = [b"".join(out)]
        if out:
            self.write(out)

    def write(self, out: Sequence[bytes | memoryview]) -> None:
        """Write to the client as much as it takes now, and the rest to the buffer. Raises like ``flush``."""
        buffer = self._buffer
        sent = 0
        if not buffer.ledger.backlog:
            stream = self._client.stream
            try:
                sent = stream.send_nowait(out[0]) if len(out) == 1 else stream.sendmsg_nowait(out)
            except trio.BrokenResourceError:
                self.lost = sum(map(len, out))
                raise ClientGone from None
            buffer.ledger.pass_through(sent)
            if sent == sum(map(len, out)):
                return
        buffer.put(out, sent)
        self.write_buffered_soon()

    def pass_on(self, data: bytes) -> bool:
        """Write one piece, while nothing is behind and ``out`` is empty. False: the buffer has the rest of it. Raises like ``flush``.

        A piece that the client takes whole leaves the ledger as it is: that counts what has come and what has left.
        """
        try:
            sent = self._client.stream.send_nowait(data)
        except trio.BrokenResourceError:
            self.lost = len(data)
            raise ClientGone from None
        if sent == len(data):
            return True
        self._buffer.ledger.pass_through(sent)
        self._buffer.put((data,), sent)
        self.write_buffered_soon()
        return False

    def write_buffered_soon(self) -> None:
        """Start the task that writes the buffer to the client, if there is none and the buffer holds something."""
        if self._written is None and self._buffer.ledger.backlog:
            self._written = trio.Event()
            self.nursery.start_soon(self._write_buffered, self._written)

    async def _write_buffered(self, written: trio.Event) -> None:
        """Give the buffer to the client, until it is empty. Each progress gives the client its whole time again (R27)."""
        client, buffer = self._client, self._buffer
        try:
            while buffer.ledger.backlog:
                client.enter_write(client.current_time())
                await trio.lowlevel.wait_writable(client.stream.socket)
                buffer.send_nowait(client.stream)
        except trio.BrokenResourceError:
            self._fail(ClientGone())
            return
        except PassengerError as lost:
            self._fail(lost)
            return
        client.enter(Stage.SLOW_APP, client.current_time())
        self._written = None
        written.set()

    async def wait_written(self) -> None:
        """Return when the client's connection has taken everything."""
        if self._written is not None:
            await self._written.wait()

    # -- is the client still there? -------------------------------------------------------------------------------

    def probe_soon(self, may_write: Callable[[], bool]) -> None:
        """The client has ended its side: find out later whether it is still there (R28).

        :param may_write: called before the probe; returns whether the response may still get another piece.
        """
        if self._client.stream.socket.family != socket.AF_UNIX:  # which tells of a close at once
            self.nursery.start_soon(self._probe, may_write)

    async def _probe(self, may_write: Callable[[], bool]) -> None:
        """Write a piece without a meaning. If the client has left, its kernel answers with a reset, and the client watch sees that."""
        await trio.sleep(_ASK_AFTER)
        ledger = self._buffer.ledger
        if not may_write() or self.out or ledger.backlog or ledger.coming or self.is_behind:
            # Other bytes are being written anyway. (``coming``: a thread uses the codec, and the piece would overtake its bytes.)
            return
        if probe := self._client.codec.probe():
            # Written like any other piece of the response, so that it keeps its place among them.
            try:
                self.write([probe])
            except ClientGone as gone:
                self._fail(gone)
