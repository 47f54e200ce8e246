"""Whole, byte by byte or cut anywhere: the same messages, then nothing or a documented refusal; what is read can be shown and logged.

The input is what a loader sends on its control connection. Run: ``python fuzz/control_messages.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "codecs")]

from control_lines import read  # noqa: E402
from driver import main  # noqa: E402

CORPUS = HERE / "corpora" / "control_messages"


def control_messages(data: bytes) -> None:
    messages, refused = right = read([data])
    for size in (1, 2, 7, 100):
        assert read([data[at : at + size] for at in range(0, len(data), size)]) == right, size
    assert len(messages) <= data.count(b"\n")
    for message in messages:
        assert str(message).encode(), "a half surrogate pair came through"
    assert refused.isprintable()


if __name__ == "__main__":
    main(control_messages, CORPUS)
