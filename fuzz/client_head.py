"""Whole, byte by byte or cut anywhere, with the plain-request parser or without: the same requests, then the same end or a documented refusal.

The input is what a client sends on one connection, ended by its end of file. Run: ``python fuzz/client_head.py --seconds 60``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "codecs")]

from driver import main  # noqa: E402
from http1_exchange import exchange  # noqa: E402

from passenger_trio.codecs.refusals import REFUSALS  # noqa: E402

CORPUS = HERE / "corpora" / "client_head"
#: These would be ours: the readers differ, or a connection is used after its end.
OUR_BUGS = {"readers_disagree", "refused_by_h11", "connection_closing"}


def client_head(data: bytes) -> None:
    expected = exchange([data], plain_parser=False)
    last = expected[-1]
    if last[0] == "refused":
        assert REFUSALS[last[2]][0] == last[1]
        assert last[2] not in OUR_BUGS, last
    else:
        assert last[0] in ("end", "close")
    singles = [data[at : at + 1] for at in range(len(data))]
    for pieces in (
        [data],
        singles,
        re.findall(rb"[^\r\n]+|\r|\n", data),
        [data[at : at + 7] for at in range(0, len(data), 7)],
    ):
        assert exchange(pieces) == expected, pieces
    assert exchange(singles, plain_parser=False) == expected


if __name__ == "__main__":
    main(client_head, CORPUS)
