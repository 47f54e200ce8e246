"""A response of a process that speaks HTTP: whole, byte by byte, in bulk or cut anywhere, the same events, then the same end or ``MalformedResponse``.

What h11 alone would not take is never taken. Run: ``python fuzz/http_worker.py --seconds 60``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import h11  # noqa: E402
from driver import main  # noqa: E402

from passenger_trio.codecs.http1_worker import HTTP  # noqa: E402
from passenger_trio.codecs.http1_worker_response import HttpReader  # noqa: E402
from passenger_trio.codecs.session_protocol import DATA, END, HEAD, INTERIM, UPGRADE  # noqa: E402
from passenger_trio.errors import IncompleteResponse, MalformedResponse  # noqa: E402

CORPUS = HERE / "corpora" / "http_worker"

Outcome = tuple[list[tuple[int, bytes]], str]


ASKED = ((b"GET", False), (b"HEAD", False), (b"GET", True))
"""Method, and whether an upgrade was asked for."""


def read(pieces: list[bytes], bulk: bool = False, method: bytes = b"GET", upgrade: bool = False) -> Outcome:
    """The events, body joined, without flags (bytes behind the end are told only if they come with it), an upgrade with what is behind it; and the end."""
    reader = HttpReader(method, upgrade=upgrade)
    events: list[tuple[int, bytes]] = []

    def tell(kind: int, payload: bytes) -> None:
        if kind == DATA and events and events[-1][0] == DATA:
            events[-1] = (DATA, events[-1][1] + payload)
        else:
            events.append((kind, b"" if kind == END else payload))

    try:
        for piece in pieces:
            taken = 0
            if bulk:
                bodies, taken = reader.take_body(memoryview(piece))
                for body in bodies:
                    tell(DATA, bytes(body))
            reader.feed(piece[taken:])
            while (event := reader.next_event()) is not None:
                tell(*event)
        if events and events[-1][0] == UPGRADE:
            events[-1] = (UPGRADE, reader.take_rest())
        if not events or events[-1][0] not in (END, UPGRADE):
            reader.feed_eof()
            while (event := reader.next_event()) is not None:
                tell(*event)
    except (MalformedResponse, IncompleteResponse) as error:
        return events, type(error).__name__
    return events, "whole"


def by_h11(data: bytes) -> tuple[bytes, bool]:
    """The body as h11 alone reads it, and whether it ends."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    body = b""
    for piece in (data, b""):
        connection.receive_data(piece)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body, True
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
    return body, False


def http_worker(data: bytes) -> None:
    for method, upgrade in ASKED:
        expected = read([data], method=method, upgrade=upgrade)
        events, end = expected
        kinds = [kind for kind, _ in events if kind != INTERIM]
        assert kinds in ([], [HEAD], [HEAD, DATA], [HEAD, END], [HEAD, DATA, END], [HEAD, UPGRADE]), kinds
        assert upgrade or UPGRADE not in kinds
        assert method != b"HEAD" or DATA not in kinds
        assert (end == "whole") == (kinds[-1:] in ([END], [UPGRADE]))
        if end == "whole" and method == b"GET" and UPGRADE not in kinds:
            assert by_h11(data) == (b"".join(payload for kind, payload in events if kind == DATA), True)
        for pieces in (
            [data],
            [data[at : at + 1] for at in range(len(data))],
            [data[at : at + 7] for at in range(0, len(data), 7)],
        ):
            assert read(pieces, False, method, upgrade) == expected, pieces
            assert read(pieces, True, method, upgrade) == expected, pieces
        found = HTTP.read_whole_response(data, method)
        if found is not None:
            payload, body, _ = found
            assert expected == ([(HEAD, payload), *([(DATA, body)] if body else []), (END, b"")], "whole"), "whole"


if __name__ == "__main__":
    main(http_worker, CORPUS)
