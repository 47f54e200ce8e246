"""Whole, byte by byte or cut anywhere: the Python loader reads the same frames, or refuses at the same place, as a naive reader has it.

Which types may come is what the worker expects of a session: a head, then its body, or messages. Run: ``python fuzz/worker_frames.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "spawn_servers" / "python")]

from driver import main  # noqa: E402
from passenger_trio_loader.session_frames import FrameReader, ProtocolViolation  # noqa: E402

CORPUS = HERE / "corpora" / "worker_frames"
MOST = {"H": 131072, "D": 16777216, "E": 0, "A": 0, "T": 16777216, "B": 16777216, "C": 125}
"""CONTRACT.md, section 3: types of frames to a worker, and their greatest lengths."""
NOT_EMPTY = "HD"


def worker_frames(data: bytes) -> None:
    right = _naive(data)
    for size in (max(1, len(data)), 1, 2, 7):
        assert _read([data[at : at + size] for at in range(0, len(data), size)]) == right, size


def _expected(frames: list[tuple[str, bytes]]) -> str:
    """The types that may follow: a session has a head, then its body, and once that has ended messages. ``A`` ends it."""
    last = frames[-1][0] if frames else "A"
    return {"H": "DEA", "D": "DEA", "A": "H", "C": "H"}.get(last, "TBCA")


def _naive(data: bytes) -> tuple[list[tuple[str, bytes]], str]:
    """All at once, from the text of the contract: whole frames, the part of the last body that has come, and how it ends."""
    frames: list[tuple[str, bytes]] = []
    while data:
        kind = chr(data[0])
        if kind not in _expected(frames):
            return frames, "refused"
        if len(data) < 5:
            break
        length = int.from_bytes(data[1:5], "big")
        if length > MOST[kind] or (not length and kind in NOT_EMPTY):
            return frames, "refused"
        payload, data = data[5 : 5 + length], data[5 + length :]
        if len(payload) < length:
            if kind in "DTB" and payload:
                frames.append((kind + "...", payload))
            break
        frames.append((kind, payload))
    return frames, "waits"


def _read(pieces: list[bytes]) -> tuple[list[tuple[str, bytes]], str]:
    reader = FrameReader()
    frames: list[tuple[str, bytes]] = []
    begun = b""
    for piece in pieces:
        reader.feed(piece)
        try:
            while found := reader.next_frame(_expected(frames).encode()):
                kind, payload, is_whole = found
                assert payload or (is_whole and (begun or chr(kind) not in NOT_EMPTY)), "a piece of nothing"
                begun += payload
                if is_whole:
                    frames.append((chr(kind), begun))
                    begun = b""
        except ProtocolViolation:
            return frames, "refused"
    if begun:
        frames.append((chr(kind) + "...", begun))
    return frames, "waits"


if __name__ == "__main__":
    main(worker_frames, CORPUS)
