"""A packet of a front is refused in a documented way, or it is what the value that is read from it is written as.

The input is one packet that a front sends to the owner of the pool. Run: ``python fuzz/front_messages.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from driver import main  # noqa: E402

from passenger_trio.codecs.front_messages import encode_from_front, read_from_front  # noqa: E402
from passenger_trio.errors import BadFrontMessage  # noqa: E402

CORPUS = HERE / "corpora" / "front_messages"


def front_messages(data: bytes) -> None:
    try:
        message = read_from_front(data)
    except BadFrontMessage:
        return
    assert encode_from_front(message) == data


if __name__ == "__main__":
    main(front_messages, CORPUS)
