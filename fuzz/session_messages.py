"""Whole, byte by byte or cut anywhere: the same messages of a worker on a WebSocket, then the end or a documented error, as a naive reader has it.

The first byte of the input says whether the worker was sent a ``C``; the rest is what it sends behind its ``W``. Run:
``python fuzz/session_messages.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "codecs")]

from driver import main  # noqa: E402
from message_model import Outcome, expected_messages, read_messages  # noqa: E402

from passenger_trio.codecs.session_protocol import END  # noqa: E402

CORPUS = HERE / "corpora" / "session_messages"


def session_messages(data: bytes) -> None:
    closing, data = data[:1] > b"@", data[1:]
    right = _without_end(expected_messages(data, closing))
    for size in (max(1, len(data)), 1, 2, 7):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert _without_end(read_messages(pieces, closing)) == right, size


def _without_end(outcome: Outcome) -> Outcome:
    """Bytes behind the end are told with the end when both come together, and else after it."""
    events, how = outcome
    return ([event for event in events if event[0] != END] if how == "malformed" else events), how


if __name__ == "__main__":
    main(session_messages, CORPUS)
