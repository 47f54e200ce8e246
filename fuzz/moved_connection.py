"""A packet with which a connection moves to another front is refused in a documented way, or it is what the value that is read from it is written as.

The input is one packet that a front sends to another. Run: ``python fuzz/moved_connection.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from driver import main  # noqa: E402

from passenger_trio.codecs.moved_connection import encode_moved, read_moved  # noqa: E402
from passenger_trio.errors import BadFrontMessage  # noqa: E402

CORPUS = HERE / "corpora" / "moved_connection"


def moved_connection(data: bytes) -> None:
    try:
        moved = read_moved(data)
    except BadFrontMessage:
        return
    assert encode_moved(moved) == data


if __name__ == "__main__":
    main(moved_connection, CORPUS)
