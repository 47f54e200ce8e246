"""Stage: read the request body before a process is borrowed, so that a slow upload holds none.

Up to ``buffer_sizes.BODY_IN_MEMORY`` bytes are kept in memory (``exchange.body``); a longer body goes to a buffer on disk
(``exchange.upload``). A whole body can be sent again (R30). In two cases this stage does not read a body to its end: the
application wants its uploads as they arrive, or the disk takes no more. Then the rest goes to the
application as it arrives, which holds a process, but refuses nobody (R35)."""

from __future__ import annotations

import trio

from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.core.buffer_sizes import BATCH, BODY_IN_MEMORY, RECEIVE_SIZE
from passenger_trio.core.spill_ledger import SpillLedger
from passenger_trio.server.http.body_clock import BodyClock
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.server.http.stage import Stage
from passenger_trio.server.spill.spill_buffer import SpillBuffer

__all__ = ["buffer_body", "take_body_nowait"]


def take_body_nowait(codec: ClientSide, exchange: Exchange) -> bool:
    """Take the body, if it is short and has arrived as a whole. False: nothing was done.

    :raises RequestError: the bytes are no valid body (400).
    """
    length = exchange.head.content_length
    if length is None or not 0 < length <= min(BODY_IN_MEMORY, codec.buffered):
        return False
    body = codec.read_body() or b""
    while len(body) < length and (piece := codec.read_body()):
        body += piece
    exchange.body = body
    exchange.body_whole = True
    return True


async def buffer_body(client: Client, exchange: Exchange) -> bool:
    """Read the body, as far as it is to be buffered and can be. :return: whether the whole body was read.

    :raises RequestError: the bytes are no valid body (400), it is too long (413: ``codecs/chunked``, ``codecs/strict_request``), or late (408).
    :raises ClientGone: the client's connection broke.
    """
    codec = client.codec
    options = client.front.options
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
                if upload.ledger.memory >= BATCH and not await _store(client, upload, clock):
                    break
            else:
                pieces.append(piece)
                size += len(piece)
                exchange.coming = size
                if size > BODY_IN_MEMORY and buffers:
                    if not client.front.spill.usable(new_file=True):
                        break
                    exchange.upload = upload = SpillBuffer(client.front.spill, SpillLedger(threshold=BODY_IN_MEMORY))
                    upload.put(pieces)
                    pieces.clear()
                    exchange.coming = 0
        elif piece is not None:
            exchange.body_whole = True
            break
        elif not buffers:
            break
        elif exchange.upload is not None and exchange.upload.over_threshold:
            # Store these bytes before waiting for the client. Bytes that arrived in bulk behind them may be the end of the body.
            if not await _store(client, exchange.upload, clock):
                break
        else:
            if interim := codec.continue_bytes():
                await client.send(interim)
            client.enter(Stage.BODY, trio.current_time())
            codec.receive(await clock.receive(client.stream))
    exchange.body = b"".join(pieces)
    exchange.coming = 0
    if exchange.body_whole and exchange.head.chunked:
        exchange.head.content_length = (
            size if exchange.upload is None else exchange.upload.ledger.taken
        )  # the length is known now, and applications want it
    client.enter(Stage.SLOW_APP, trio.current_time())
    return exchange.body_whole


async def _store(client: Client, upload: SpillBuffer, clock: BodyClock) -> bool:
    """Write the bytes in memory to disk, then the bytes that have arrived behind them in bulk. False: the disk does not take all of them now, and the rest stays in memory (R35)."""
    client.enter(Stage.BODY, trio.current_time())  # without a deadline: nothing waits for the client
    if upload.usable:
        await upload.store()
    codec, stream = client.codec, client.stream
    while (left := codec.raw_body_left) >= RECEIVE_SIZE and upload.wants_bulk(stream):
        received = await upload.store_coming(stream, left)
        came = received.written + len(received.rest)
        if received.broken:
            raise ClientGone
        codec.skip_body(came)
        clock.waited(0.0, came)
        if received.error is not None:
            return False
    return not upload.ledger.memory
