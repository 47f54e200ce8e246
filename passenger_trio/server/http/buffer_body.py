"""Stage 5: read the request body before a process is borrowed, so that a slow upload holds none.

Up to ``stage.BUFFERED`` bytes are kept in memory (``exchange.body``), what is longer goes to a buffer on disk (``exchange.upload``); a body that is whole by then can also
be sent again (R30). Where an application wants its uploads as they come, only what is here already is taken. And where the disk takes nothing any more the rest goes to the
application as it comes, too: that holds a process, but refuses nobody (R35).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from passenger_trio.core.spill import BATCH, SpillLedger
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.stage import BUFFERED, SCRATCH, ClientGone, Stage
from passenger_trio.server.spill.spill_buffer import SpillBuffer

if TYPE_CHECKING:
    from passenger_trio.server.http.connection import Connection

__all__ = ["BodyClock", "buffer_body", "take_body_nowait"]


class BodyClock:
    """How long a body may still be waited for (R27): a grace, and after that a minimum rate.

    The grace is a balance: waiting spends it, bytes earn it back at the minimum rate, and it never grows beyond what it was at first. So a client
    that was fast for a while may not stop for ever after that. Only time that we waited for the client counts: an application that does not read is
    not the client's fault, nor is a disk that is slow. A rate of 0 demands nothing.
    """

    __slots__ = ("_grace", "_left", "_rate")

    def __init__(self, grace: float, rate: int) -> None:
        self._grace = self._left = grace
        self._rate = rate

    def waited(self, seconds: float, received: int) -> None:
        """The client was waited for, and sent something, or nothing."""
        if self._rate:
            self._left = min(self._grace, self._left - seconds + received / self._rate)

    def remaining(self) -> float:
        """Seconds until the body is late."""
        return max(0.0, self._left) if self._rate else float("inf")


def take_body_nowait(connection: Connection, exchange: Exchange) -> bool:
    """Take the body, if it is here whole, and short. False: nothing was done.

    :raises RequestError: it is not a body (400).
    """
    codec = connection.codec
    length = exchange.head.content_length
    if length is None or not 0 < length <= min(BUFFERED, codec.buffered):
        return False
    body = codec.read_body() or b""
    while len(body) < length and (piece := codec.read_body()):
        body += piece
    exchange.body = body
    exchange.body_whole = True
    return True


async def buffer_body(connection: Connection, exchange: Exchange) -> bool:
    """Read the body: whole, or as far as it is to be, or can be, buffered. Whether it is whole.

    :raises RequestError: it is not a body (400), too long (413); a late one runs into the connection's deadline (408).
    """
    codec = connection.codec
    options = connection.front.options
    clock = exchange.body_clock = BodyClock(options.body_timeout, options.body_min_rate)
    buffers = exchange.route.buffers_body_of(exchange.head.path)
    pieces: list[bytes] = []
    size = 0
    while True:
        piece = codec.read_body()
        if piece:
            upload = exchange.upload
            if upload is not None:
                upload.put((piece,))
                if upload.ledger.memory >= BATCH and not await _store(connection, upload, clock):
                    break
            else:
                pieces.append(piece)
                size += len(piece)
                exchange.coming = size
                if size > BUFFERED and buffers:
                    if not connection.front.spill.usable(new_file=True):
                        break
                    exchange.upload = upload = SpillBuffer(connection.front.spill, SpillLedger())
                    upload.put(pieces)
                    pieces.clear()
                    exchange.coming = 0
        elif piece is not None:
            exchange.body_whole = True
            break
        elif not buffers:
            break
        elif exchange.upload is not None and exchange.upload.over_threshold:
            # Before the client is waited for; what comes in bulk behind it may be the end of the body.
            if not await _store(connection, exchange.upload, clock):
                break
        else:
            if interim := codec.continue_bytes():
                await connection.send(interim)
            await _receive(connection, clock)
    exchange.body = b"".join(pieces)
    exchange.coming = 0
    if exchange.body_whole and exchange.head.chunked:
        exchange.head.content_length = (
            size if exchange.upload is None else exchange.upload.ledger.taken
        )  # now it is known, and applications like to know it
    connection.enter(Stage.SLOW_APP, trio.current_time())
    return exchange.body_whole


async def _receive(connection: Connection, clock: BodyClock) -> None:
    begun = trio.current_time()
    connection.enter(Stage.BODY, begun, clock.remaining())
    try:
        data = await connection.stream.recv(SCRATCH, connection)
    except trio.BrokenResourceError:
        raise ClientGone from None
    clock.waited(trio.current_time() - begun, len(data))
    connection.codec.receive(data)


async def _store(connection: Connection, upload: SpillBuffer, clock: BodyClock) -> bool:
    """Write what is in memory to disk, and what is here behind it in bulk. False: the disk does not take all of it, now, and the rest stays in memory (R35)."""
    connection.enter(Stage.BODY, trio.current_time())  # without a deadline: the client is not waited for
    if upload.usable:
        await upload.store()
    codec, stream = connection.codec, connection.stream
    while (left := codec.raw_body_left) >= SCRATCH and upload.wants_bulk(stream):
        received = await upload.store_coming(stream, left)
        came = received.written + len(received.rest)
        if received.broken:
            raise ClientGone
        codec.skip_body(came)
        clock.waited(0.0, came)
        if received.error is not None:
            return False
    return not upload.ledger.memory
