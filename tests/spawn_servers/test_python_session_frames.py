"""HO2: the one reader of frames that the Python loader's WSGI and ASGI workers share (CONTRACT.md, section 3), without a process."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passenger_trio_loader.session_frames import FrameReader, ProtocolViolation

from passenger_trio.testing.conformance import frame

TO_A_WORKER = b"HDEATBC"
FRAMES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("HD"), st.binary(min_size=1, max_size=30)),
        st.tuples(st.sampled_from("EA"), st.just(b"")),
        st.tuples(st.sampled_from("TBC"), st.binary(max_size=30)),
    ),
    max_size=8,
)


def pieces_of(reader: FrameReader, data: bytes) -> list[tuple[str, bytes, bool]]:
    reader.feed(data)
    found = []
    while piece := reader.next_frame(TO_A_WORKER):
        kind, payload, is_whole = piece
        found.append((chr(kind), payload, is_whole))
    return found


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 300), max_size=8), one_by_one=st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_same_frames_in_any_pieces(frames: list[tuple[str, bytes]], cuts: list[int], one_by_one: bool) -> None:
    wire = b"".join(frame(kind, payload) for kind, payload in frames)
    edges = range(len(wire) + 1) if one_by_one else sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    reader = FrameReader()
    found: list[tuple[str, bytes]] = []
    begun = b""
    for begin, end in zip(edges, edges[1:], strict=False):
        for kind, payload, is_whole in pieces_of(reader, wire[begin:end]):
            begun += payload
            if is_whole:
                found.append((kind, begun))
                begun = b""
    assert found == frames
    assert begun == b""
    assert reader.is_between_frames


@pytest.mark.parametrize("kind", "HC")
def test_what_is_short_is_given_out_whole(kind: str) -> None:
    reader = FrameReader()
    wire = frame(kind, b"payload")
    assert pieces_of(reader, wire[:-1]) == []
    assert not reader.is_between_frames
    assert pieces_of(reader, wire[-1:]) == [(kind, b"payload", True)]


@pytest.mark.parametrize("kind", "DTB")
def test_a_body_is_given_out_as_it_comes(kind: str) -> None:
    reader = FrameReader()
    wire = frame(kind, b"payload")
    assert pieces_of(reader, wire[:5]) == [], "no piece of nothing"
    assert pieces_of(reader, wire[5:8]) == [(kind, b"pay", False)]
    assert not reader.is_between_frames
    assert pieces_of(reader, wire[8:]) == [(kind, b"load", True)]


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("H", 1, 131072),
        ("D", 1, 16777216),
        ("E", 0, 0),
        ("A", 0, 0),
        ("T", 0, 16777216),
        ("B", 0, 16777216),
        ("C", 0, 125),
    ],
)
def test_lengths(kind: str, least: int, most: int) -> None:
    """Yes at both limits, no beyond them; and what is refused is not waited for."""
    for length in (least, most):
        assert FrameReader(kind.encode() + length.to_bytes(4, "big")).next_frame(TO_A_WORKER) in (
            None,
            (ord(kind), b"", True),
        )
    for length in {max(0, least - 1), most + 1} - {least}:
        with pytest.raises(ProtocolViolation):
            FrameReader(kind.encode() + length.to_bytes(4, "big")).next_frame(TO_A_WORKER)


@pytest.mark.parametrize("expected", [b"H", b"DEA", b"TBCA"])
def test_what_may_not_come_now_is_refused_with_its_first_byte(expected: bytes) -> None:
    for byte in range(256):
        reader = FrameReader(bytes((byte,)))
        if byte in expected:
            assert reader.next_frame(expected) is None
        else:
            with pytest.raises(ProtocolViolation):
                reader.next_frame(expected)


def test_a_stream_that_waits_for_its_next_head_holds_no_memory() -> None:
    reader = FrameReader()
    assert pieces_of(reader, frame("D", b"x" * 60_000)) == [("D", b"x" * 60_000, True)]
    assert reader._data == b""


def test_what_is_behind_a_frame() -> None:
    reader = FrameReader(frame("E") + b"behind")
    assert reader.next_frame(b"E") == (ord("E"), b"", True)
    assert reader.take_rest() == b"behind"
    assert reader.take_rest() == b""
