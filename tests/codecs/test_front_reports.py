"""FR5: the stream of orders and reports between the owner and a front: whole or byte by byte, and what no front sends is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.front_reports import (
    MAX_FRAME,
    Accept,
    Answer,
    Ask,
    Asked,
    Drained,
    Explain,
    Explained,
    FrameReader,
    Line,
    Order,
    Reconfigure,
    Report,
    Served,
    Serving,
    Stop,
    encode_answer,
    encode_drained,
    encode_explain,
    encode_line,
    encode_order,
    encode_serving,
    read_order,
    read_report,
)
from passenger_trio.core.model import GroupKey
from passenger_trio.errors import BadFrontMessage
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions

LINE = Line(30, "passenger_trio.server", "cannot accept\nconnections", {"pid": 7, "why": None}, "")
ANSWER = Answer(3, {"requests": []})
ASKED = Explain(1, GroupKey("shop", "production"), 4711, True)
REPORTS = encode_serving() + encode_line(LINE) + encode_answer(ANSWER) + encode_explain(ASKED) + encode_drained()
MEANT: list[Report] = [Serving(), LINE, ANSWER, ASKED, Drained()]


def frames(pieces: list[bytes]) -> list[bytes]:
    reader = FrameReader()
    found = []
    for piece in pieces:
        reader.feed(piece)
        found += list(reader.frames())
    return found


@pytest.mark.parametrize("size", [len(REPORTS), 1, 2, 7])
def test_reports_arrive_whole_and_byte_by_byte(size: int) -> None:
    pieces = [REPORTS[at : at + size] for at in range(0, len(REPORTS), size)]
    assert [read_report(payload) for payload in frames(pieces)] == MEANT


def test_orders_arrive() -> None:
    key, app = GroupKey("shop", "test"), AppOptions(root="/srv/shop")
    served = Served(Config(server=ServerOptions(), pool=PoolOptions(), apps=(app,)), ((key, app),), (key,), 4, 6, 20)
    orders: list[Order] = [Accept(), Ask(1, Asked.COUNTS), Explained(1, None), Reconfigure(2, served), Stop(30.0)]
    assert [read_order(payload) for payload in frames([b"".join(map(encode_order, orders))])] == orders


@given(st.binary(max_size=200))
def test_bytes_are_a_report_or_refused(payload: bytes) -> None:
    try:
        report = read_report(payload)
    except BadFrontMessage:
        return
    assert isinstance(report, Serving | Drained | Line | Answer | Explain)


def line(**change: Any) -> bytes:
    members = {"level": 20, "logger": "passenger_trio", "event": "e", "extra": {}, "traceback": ""}
    return json.dumps({"report": "log", **members, **change}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        b'{"report": "serving", "more": 1}',
        b'{"report": "none"}',
        b'{"report": "answer", "number": true, "told": {}}',
        b'{"report": "answer", "number": 1, "told": []}',
        b'{"report": "explain", "number": 1, "group": "shop", "environment": "production", "pid": -1, "ends": true}',
        b'{"report": "explain", "number": 1, "group": "shop", "environment": "production", "pid": 1, "ends": 1}',
        b'{"report": "explain", "number": 1, "group": ["shop"], "environment": "production", "pid": 1, "ends": true}',
        b'{"report": "explain", "number": 1, "group": "shop", "pid": 1, "ends": true}',
        line(level=25),
        line(level=20.0),
        line(logger="root"),
        line(logger="passenger_trio.\n"),
        line(event=None),
        line(extra={"a b": 1}),
        line(extra={"a": []}),
        line(extra=[]),
        line(traceback=1),
        line(more=1),
    ],
    ids=lambda payload: repr(payload[:60]),
)
def test_what_no_front_sends_is_refused(payload: bytes) -> None:
    """Predicate of trust."""
    assert isinstance(read_report(line()), Line)
    with pytest.raises(BadFrontMessage):
        read_report(payload)


def test_a_frame_that_is_too_long_is_refused_by_its_head() -> None:
    assert frames([(MAX_FRAME).to_bytes(4, "big")]) == []
    with pytest.raises(BadFrontMessage):
        frames([(MAX_FRAME + 1).to_bytes(4, "big")])
