"""Stage: send the rest of a request body to the process, beside its response, because an application may answer before it has
read everything.

Bytes on disk go first, from file to socket (``sendfile``), then those in memory, then those that the client still sends,
as they arrive.

Law: ``exchange.body_sent`` is set only when the process was given the end of the body. Before that the stream is not at
a boundary, and is not used again."""

from __future__ import annotations

from collections.abc import Callable

import trio

from passenger_trio.codecs.worker_protocol import BodyEncoding
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.spill.spill_buffer import SpillBuffer
from passenger_trio.system.raw_stream import RawStream

__all__ = ["send_body"]


async def send_body(client: Client, exchange: Exchange, stream: RawStream, interim: Callable[[bytes], None]) -> None:
    """Give the rest of the body to the process.

    :param interim: sends ``100 Continue``.
    :raises RequestError: the bytes are no valid body (400), or come too slowly (408).
    :raises SpillLost: buffered bytes cannot be read back from disk.
    :raises ClientGone: the client's connection broke.
    """
    unsent, exchange.unsent = exchange.unsent, b""
    reading = not unsent or await _send(
        stream, unsent
    )  # whether the worker still reads the body; if not, its response tells why
    if exchange.body_whole and exchange.upload is None:
        exchange.body_sent = reading  # all that was left was ``unsent``
        return
    if reading and exchange.upload is not None:
        reading = await _send_buffered(stream, exchange.upload, exchange.framing)
    if not exchange.body_whole:
        reading = await _send_coming(client, exchange, stream, interim, reading)
    if reading and await _send(stream, exchange.framing.end):
        exchange.body_sent = True


async def _send_buffered(stream: RawStream, upload: SpillBuffer, framing: BodyEncoding) -> bool:
    """Send the buffered body. It also stays in the buffer, because the request may have to be sent again (R30)."""
    at, end = 0, upload.ledger.file_length
    while at < end:
        piece_end = min(end, at + framing.most)
        if not await _send(stream, framing.before(piece_end - at)):
            return False
        while at < piece_end:
            try:
                await stream.wait_writable()
                at += upload.send_stored(stream, at, piece_end - at)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
        if not await _send(stream, framing.after):
            return False
    tail = upload.tail
    return not tail or await _send(stream, framing.piece(tail))


async def _send_coming(
    client: Client, exchange: Exchange, stream: RawStream, interim: Callable[[bytes], None], reading: bool
) -> bool:
    codec = client.codec
    clock = exchange.body_clock
    assert clock is not None
    while True:
        piece = codec.read_body()
        if piece == b"":
            return reading
        if piece is None:
            if waits := codec.continue_bytes():
                interim(waits)
            codec.receive(await clock.receive(client.stream))
        elif reading:
            reading = await _send(stream, exchange.framing.piece(piece))


async def _send(stream: RawStream, data: bytes | memoryview) -> bool:
    """Send bytes to the worker. False: it stopped reading."""
    if not data:
        return True
    try:
        sent = stream.send_nowait(data)
        if sent < len(data):
            await stream.send_all(memoryview(data)[sent:])
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return False
    return True
