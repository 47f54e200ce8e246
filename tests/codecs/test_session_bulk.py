"""``ResponseReader.take_body``, the way of bulk, gives the same body as ``feed`` and ``next_event``, wherever the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.session_protocol import DATA, END, HEAD, MAX_FRAME, RUN, ResponseReader
from passenger_trio.errors import MalformedResponse

START = b"R\0\0\0\x07200\0OK\0"


def frames(pieces: list[bytes]) -> bytes:
    return START + b"".join(b"D" + len(piece).to_bytes(4, "big") + piece for piece in pieces) + b"E\0\0\0\0"


def read(wire: bytes, cuts: list[int], bulk: bool) -> tuple[bytes, list[int]]:
    """The body, and the kinds of the other events in their order."""
    reader = ResponseReader()
    body, kinds, at = b"", [], 0
    for cut in [*sorted(cuts), len(wire)]:
        view, at = memoryview(wire)[at:cut], cut
        taken = 0
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
    assert read(wire, cuts, bulk=True) == read(wire, cuts, bulk=False) == (b"".join(pieces), [HEAD, END])


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
