"""The plain-request parser's language is a subset of that of the strict check and h11, and says the same: by generated heads."""

from __future__ import annotations

from edge_cases import CASES
from http1_exchange import Exchange, exchange
from http1_strategies import near_heads, pieces_of, plain_heads
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.codecs.h11_message import H11Message
from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.plain_request import parse_plain_request
from passenger_trio.codecs.strict_request import HeadScan

LIMITS = HttpLimits()


def agree(data: bytes, limits: HttpLimits = LIMITS) -> bool:
    """Whether the plain-request parser recognised ``data``; if so, the others must have made the same of it."""
    found = parse_plain_request(data, limits)
    if found is None:
        return False
    head, length = found
    scan = HeadScan(limits)
    assert scan.feed(data), "the strict check finds no end"
    assert scan.head == head
    assert len(scan.raw) == length
    assert scan.raw + scan.rest == data
    H11Message(head, scan.raw, limits)  # raises unless h11 reads the same
    return True


@settings(max_examples=300, deadline=None)
@given(plain_heads())
def test_plain_heads_are_recognised_and_equal(data: bytes) -> None:
    assert agree(data)
    assert agree(
        data, HttpLimits(max_request_line=len(data), max_header_size=len(data), max_header_field_size=len(data))
    )
    assert not agree(data, HttpLimits(max_request_line=len(data) - 1))


@settings(max_examples=1000, deadline=None)
@given(near_heads())
def test_what_the_lane_recognises_is_equal(data: bytes) -> None:
    agree(data)


@settings(max_examples=300, deadline=None)
@given(data=near_heads(), draw=st.data())
def test_lane_and_pieces_change_nothing(data: bytes, draw: st.DataObject) -> None:
    expected = exchange([data], plain_parser=False)
    assert exchange([data]) == expected
    pieces = draw.draw(pieces_of(data))
    assert exchange(pieces) == expected
    assert exchange(pieces, plain_parser=False) == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(plain_heads(), min_size=2, max_size=4), st.data())
def test_pipelines(heads: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(heads) + b"x" * 20
    expected = exchange([data], plain_parser=False)
    pieces = draw.draw(pieces_of(data))
    assert exchange(pieces) == exchange(pieces, plain_parser=False) == expected
    sent = []
    for plain_parser in (True, False):
        run = Exchange(plain_parser=plain_parser)
        for piece in pieces:
            run.feed(piece)
        sent.append(run.sent)
    assert sent[0] == sent[1], "nobody can tell from the responses which reader it was"


def test_every_byte_in_every_place() -> None:
    """One byte of a plain head replaced by each other byte: 256 times as many heads as it has bytes."""
    head = b"PUT /a?b HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\nContent-Length: 1\r\nX: y\r\n\r\n"
    recognised = sum(
        agree(head[:at] + bytes([byte]) + head[at + 1 :]) for at in range(len(head)) for byte in range(256)
    )
    assert recognised > 1000


def test_one_byte_less_or_one_line_twice() -> None:
    head = b"PUT /a?b HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\nContent-Length: 1\r\nX: y\r\n\r\n"
    for at in range(len(head)):
        agree(head[:at] + head[at + 1 :])
    lines = head.split(b"\r\n")
    for at in range(len(lines)):
        agree(b"\r\n".join((*lines[:at], lines[at], *lines[at:])))
        agree(b"\r\n".join((*lines[:at], *lines[at + 1 :])))


def test_the_corpus() -> None:
    for case in CASES:
        if agree(case.data):
            assert case.expected == "accept" or case.before or case.code == "body_truncated", case.id
