"""Whole, byte by byte or cut anywhere: the same events of a WebSocket client; nothing beyond the limits is held, and every failure can be told.

The plain-request parser is a part of wsproto: what it reads, wsproto reads, which may see a wrong byte of a text earlier. Run:
``python fuzz/websocket_client.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from driver import main  # noqa: E402

from passenger_trio.codecs.websocket_frames import (  # noqa: E402
    CLOSE,
    FAILURE,
    TEXT,
    FrameLimits,
    FrameReader,
    close_code,
    is_close_payload,
    is_utf8,
)

CORPUS = HERE / "corpora" / "websocket_client"
LIMIT = 500


def read(data: bytes, size: int, *, plain_parser: bool = True) -> list[tuple[int, bytes]]:
    reader = FrameReader(FrameLimits(LIMIT), 0.0, plain_parser=plain_parser)
    events = []
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        events += reader.receive(piece, 0.0)
        assert reader.buffered <= LIMIT + 14 + len(piece)
    return events


def websocket_client(data: bytes) -> None:
    events = read(data, max(1, len(data)))
    for size in (1, 2, 7):
        assert read(data, size) == events, size
    for at, (opcode, payload) in enumerate(events):
        assert opcode not in (CLOSE, FAILURE) or at == len(events) - 1
        assert opcode != TEXT or is_utf8(payload)
        assert len(payload) <= LIMIT
        if opcode in (CLOSE, FAILURE):
            assert is_close_payload(payload)
            payload[2:].decode()
    by_wsproto = read(data, max(1, len(data)), plain_parser=False)
    assert by_wsproto[: len(events)] == events
    assert all(event[0] == FAILURE and close_code(event[1]) == 1007 for event in by_wsproto[len(events) :])


if __name__ == "__main__":
    main(websocket_client, CORPUS)
