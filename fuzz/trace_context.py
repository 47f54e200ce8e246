"""The fields of W3C Trace Context, and what a proxy says of a request: read whole or not at all, and the same again when written.

The first line of the input is the ``traceparent``, the second the ``tracestate``, the third the request's start, the fourth its id.

Run: ``python fuzz/trace_context.py --seconds 60``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from driver import main  # noqa: E402

from passenger_trio.codecs.request_id import make_id_pairs, proxy_time, read_request_id, request_id_of  # noqa: E402
from passenger_trio.codecs.trace_context import MOST_MEMBERS, read_trace, read_traceparent, read_tracestate  # noqa: E402

CORPUS = HERE / "corpora" / "trace_context"


def trace_context(data: bytes) -> None:
    parent, state, start, id = (data.split(b"\n", 3) + [b""] * 4)[:4]
    found = read_traceparent(parent)
    if found is not None:
        assert re.fullmatch(r"[0-9a-f]{32}", found.trace_id)
        assert int(found.trace_id, 16)
        assert re.fullmatch(r"[0-9a-f]{16}", found.span_id)
        assert int(found.span_id, 16)
        assert read_traceparent(found.encode()) == found
        assert parent[2:55] == found.encode()[2:]
    members = read_tracestate(state)
    if members is not None:
        assert len(members) == len(dict(members)) <= MOST_MEMBERS
        assert read_tracestate(",".join(f"{key}={value}" for key, value in members).encode("ascii")) == members
    together = read_trace([(b"Traceparent", parent), (b"Tracestate", state)])
    assert together == (found, (members or []) if found else [], found is not None and members is not None)
    said = read_request_id([(b"X-Request-Id", id), (b"X-Request-Start", start)])
    assert said.request_id in (b"", id)
    assert said.start in (b"", start)
    assert bool(said.start) == (said.started > 0)
    assert 0 <= proxy_time(said, 1.6e9) < 3600
    pairs = make_id_pairs(said.request_id or b"-", said.start)
    assert pairs.count(b"\0") == (4 if said.start else 2)
    assert request_id_of(pairs) == (said.request_id or b"-")


if __name__ == "__main__":
    main(trace_context, CORPUS)
