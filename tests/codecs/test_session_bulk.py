"""``ResponseReader.take_body``, the way of bulk, and ``take_piece``, that of one small frame, give the same body as ``feed`` and ``next_event``, wherever the
bytes are cut.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.session_protocol import DATA, END, HEAD, MAX_FRAME, RUN, ResponseReader
from passenger_trio.errors import MalformedResponse

START = b"R\0\0\0\x07200\0OK\0"


def frames(pieces: list[bytes]) -> bytes:
    return START + b"".join(b"D" + len(piece).to_bytes(4, "big") + piece for piece in pieces) + b"E\0\0\0\0"


def read(wire: bytes, cuts: list[int], bulk: bool, piece: bool = False) -> tuple[bytes, list[int]]:
    """The body, and the kinds of the other events in their order."""
    reader = ResponseReader()
    body, kinds, at = b"", [], 0
    for cut in [*sorted(cuts), len(wire)]:
        view, at = memoryview(wire)[at:cut], cut
        taken = 0
        if piece and view and (one := reader.take_piece(bytes(view))):
            body += one
            continue
        if bulk:
            pieces, taken = reader.take_body(view)
            body += b"".join(pieces)
        reader.feed(bytes(view[taken:]))
        while (event := reader.next_event()) is not None:
            if event[0] == DATA:
                body += event[1]
            else:
                kinds.append(event[0])
    assert reader.complete
    return body, kinds


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_the_same_wherever_it_is_cut(pieces: list[bytes], draw: st.DataObject) -> None:
    wire = frames(pieces)
    cuts = draw.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    ends = [len(START) + sum(5 + len(piece) for piece in pieces[:count]) for count in range(len(pieces) + 1)]
    expected = (b"".join(pieces), [HEAD, END])
    assert read(wire, cuts, bulk=True) == read(wire, cuts, bulk=False) == expected
    assert read(wire, cuts, bulk=True, piece=True) == read(wire, [*cuts, *ends], bulk=True, piece=True) == expected
    assert read(wire, ends, bulk=True, piece=True) == expected


def in_body() -> ResponseReader:
    reader = ResponseReader()
    reader.feed(START)
    assert reader.next_event() is not None
    return reader


def test_nothing_is_copied() -> None:
    wire = bytearray(b"D\0\0\0\4" + b"abcd" + b"D\0\0\0\4" + b"ef")
    pieces, taken = in_body().take_body(memoryview(wire))
    assert taken == len(wire)
    wire[5:9] = b"ABCD"
    assert [bytes(piece) for piece in pieces] == [b"ABCD", b"ef"]


def test_nothing_is_taken_before_the_head_or_while_fed_bytes_are_left() -> None:
    view = memoryview(b"D\0\0\0\1x")
    assert ResponseReader().take_body(view) == ([], 0)
    reader = in_body()
    reader.feed(b"D\0")
    assert reader.next_event() is None
    assert reader.take_body(view) == ([], 0)


def test_one_whole_frame_is_a_piece() -> None:
    reader = in_body()
    before = reader.pieces
    assert reader.take_piece(b"D\0\0\0\3abc") == b"abc"
    assert (reader.pieces, reader.next_event()) == (before + 1, None)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"D\0\0\0\3ab", id="a part of a frame"),
        pytest.param(b"D\0\0\0\3", id="its head"),
        pytest.param(b"D\0\0", id="a part of that"),
        pytest.param(b"D\0\0\0\1aD\0\0\0\1b", id="two frames"),
        pytest.param(b"D\0\0\0\0", id="an empty frame"),
        pytest.param(b"E\0\0\0\0", id="the end"),
        pytest.param(b"E\0\0\0\1\1", id="the end, with flags"),
        pytest.param(b"Q\0\0\0\1x", id="no frame of the contract"),
    ],
)
def test_anything_else_is_no_piece_and_nothing_is_taken(data: bytes) -> None:
    reader = in_body()
    before = reader.pieces
    assert (reader.take_piece(data), reader.pieces) == (b"", before)


@pytest.mark.parametrize(
    "fed", [b"D\0\0\0\x09abc", b"D\0", b"E\0\0\0\0"], ids=["within a body", "a head", "behind the end"]
)
def test_there_is_no_piece_where_other_bytes_come_first(fed: bytes) -> None:
    assert ResponseReader().take_piece(b"D\0\0\0\1x") == b"", "before the head of the response"
    reader = in_body()
    reader.feed(fed)
    assert reader.take_piece(b"D\0\0\0\1x") == b""
    reader.next_event()
    assert reader.take_piece(b"D\0\0\0\1x") == b""


@pytest.mark.parametrize("size", [0, MAX_FRAME + 1])
def test_a_bad_length_is_left_to_who_judges_it(size: int) -> None:
    reader = in_body()
    wire = b"D\0\0\0\1xD" + size.to_bytes(4, "big")
    pieces, taken = reader.take_body(memoryview(wire))
    assert ([bytes(piece) for piece in pieces], taken) == ([b"x"], 6)
    reader.feed(wire[taken:])
    with pytest.raises(MalformedResponse):
        reader.next_event()


def test_KE7_a_call_reads_a_bounded_number_of_frames_and_joins_their_bodies() -> None:
    many = 10 * RUN
    reader = in_body()
    reader.feed(b"D\0\0\0\1x" * many + b"E\0\0\0\0")
    events = []
    while (event := reader.next_event()) is not None:
        events.append(event)
    assert events == [(DATA, b"x" * RUN)] * 10 + [(END, b"")]
    assert reader.pieces == many + 2

    reader = in_body()
    wire = b"D\0\0\0\1x" * many
    pieces, taken = reader.take_body(memoryview(wire))
    assert (len(pieces), taken, reader.pieces) == (RUN, 6 * RUN, RUN + 1)
