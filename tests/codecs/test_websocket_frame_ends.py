"""Where a server's WebSocket frames end: in any pieces, against a model that sees all at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from passenger_trio.codecs.websocket_frame_ends import FrameEnds, close_frame

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
sizes = st.sampled_from([0, 1, 2, 5, 100, 125, 126, 127, 65535, 65536, 70000])


def frame(first: int, size: int) -> bytes:
    if size < 126:
        return bytes([first, size]) + b"\x88" * size
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + b"\x88" * size
    return bytes([first, 127]) + size.to_bytes(8, "big") + b"\x88" * size


frames = st.lists(
    st.builds(frame, st.sampled_from([0x81, 0x82, 0x02, 0x00, 0x80, 0x89, 0x8A, 0xC1]), sizes), max_size=6
)
Places = st.lists(st.integers(0, 200_000), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, *(place % (len(data) + 1) for place in places), len(data)})
    return [data[a:b] for a, b in pairwise(at)]


@given(frames, Places, st.booleans())
def test_it_is_between_two_frames_where_one_has_ended_and_nowhere_else(
    sent: list[bytes], places: list[int], with_head: bool
) -> None:
    head = HEAD if with_head else b""
    ends, total = {len(head)}, len(head)
    for one in sent:
        total += len(one)
        ends.add(total)
    looks = FrameEnds(with_head=with_head)
    assert looks.between is not with_head
    at = 0
    for piece in cut(head + b"".join(sent), places):
        looks.feed(memoryview(piece))
        at += len(piece)
        assert looks.between is (at in ends)


@given(frames, Places, st.sampled_from([close_frame(1000), b"\x88\x00", b"\x81\x80\0\0\0\0"]), st.binary(max_size=9))
def test_after_a_close_or_what_is_no_servers_frame_it_never_is(
    sent: list[bytes], places: list[int], last: bytes, behind: bytes
) -> None:
    looks = FrameEnds()
    for piece in cut(b"".join(sent) + last, places):
        looks.feed(piece)
    assert not looks.between
    looks.feed(behind)
    assert not looks.between


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 101 X\r\n\r\n", b"x" * 70000, b"\r\n\r\n"])
def test_a_response_that_begins_no_websocket(head: bytes) -> None:
    for pieces in ([head], [head[at : at + 1] for at in range(len(head))]):
        looks = FrameEnds(with_head=True)
        for piece in pieces:
            looks.feed(piece)
        looks.feed(b"\x81\x01a")
        assert not looks.between


@pytest.mark.parametrize("code", [1001, 1012])
def test_the_close_frame_is_one(code: int) -> None:
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(close_frame(code))
    (found,) = client.received_frames()
    assert (found.opcode.name, found.payload) == ("CLOSE", (code, ""))


def test_a_head_is_looked_for_up_to_its_bound() -> None:
    """HO5: 65536 bytes may come before its end is seen, and no more."""
    for size, known in ((65536, True), (65537, False)):
        looks = FrameEnds(with_head=True)
        looks.feed(b"HTTP/1.1 101 " + b"x" * (size - 13))
        looks.feed(b"\r\n\r\n")
        assert looks.between is known


def test_frames_are_counted_when_their_headers_have_come() -> None:
    """HO5."""
    looks = FrameEnds()
    for piece, count in (
        (b"\x81", 0),
        (b"\x01", 1),
        (b"a\x81", 1),
        (b"\x01a" + frame(0x82, 126) + frame(0x82, 70000), 4),
    ):
        looks.feed(piece)
        assert looks.frames == count
    assert looks.between
