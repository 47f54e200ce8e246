"""Whole, byte by byte or cut anywhere: the same events, then the end or a documented error; the quick way agrees or says nothing.

The input is what a worker sends on a stream for one response, ended by its end of file. Run: ``python fuzz/session_response.py
--seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "codecs")]

from driver import main  # noqa: E402
from session_model import expected, read, same  # noqa: E402

from passenger_trio.codecs.session_protocol import (  # noqa: E402
    DATA,
    END,
    ERROR,
    HEAD,
    read_whole_response,
    split_application_error,
)
from passenger_trio.errors import MalformedResponse  # noqa: E402

CORPUS = HERE / "corpora" / "session_response"


def session_response(data: bytes) -> None:
    right = expected(data)
    for size in (max(1, len(data)), 1, 2, 7):
        assert same(read([data[at : at + size] for at in range(0, len(data), size)]), right), size
    whole = read_whole_response(data)
    if whole is not None:
        head, body, flags = whole
        end = right[0][-1]
        assert right == ([(HEAD, head), *([(DATA, body)] if body else []), end], "complete")
        assert end[0] == END
        assert flags == (end[1] or b"\0")[0]
    for kind, payload in right[0]:
        if kind == ERROR:
            try:
                assert all(text.encode() is not None for text in split_application_error(payload))
            except MalformedResponse:
                assert payload.count(b"\0") != 3 or not payload.endswith(b"\0")


if __name__ == "__main__":
    main(session_response, CORPUS)
