"""The session protocol after a ``W``: what a worker sends on a WebSocket, against a naive reader, however it is cut."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from message_model import Outcome, expected_messages, message_streams, read_messages
from session_model import cut, frame

from passenger_trio.codecs.session_messages import BINARY, CLOSE, TEXT, MessageReader, encode_message
from passenger_trio.codecs.session_protocol import ACCEPT, HEAD, INTERIM, MAX_FRAME, MAX_HEAD, ResponseReader
from passenger_trio.codecs.websocket_frames import WHOLE
from passenger_trio.errors import IncompleteResponse, MalformedResponse

BYE = frame(b"C", b"\x03\xe8bye")
E = frame(b"E")


@settings(max_examples=400, deadline=None)
@given(message_streams, st.booleans(), st.lists(st.integers(0, 300), max_size=6))
@example(frame(b"T") + BYE + E, True, [])
@example(BYE + E + b"T", True, [])
@example(E, False, [])
def test_whole_byte_by_byte_and_any_cut_give_what_the_naive_reader_gives(
    data: bytes, closing: bool, places: list[int]
) -> None:
    right = expected_messages(data, closing)
    assert same(read_messages([data], closing), right)
    assert same(read_messages([data[at : at + 1] for at in range(len(data))], closing), right)
    assert same(read_messages(cut(data, places), closing), right)


def same(one: Outcome, other: Outcome) -> bool:
    """Equal, except that bytes behind the end are told with the end when both come together, and else after it."""
    if one[1] == other[1] == "malformed":
        return [event for event in one[0] if event[0] != 69] == [event for event in other[0] if event[0] != 69]
    return one == other


@pytest.mark.parametrize("kind", [b"T", b"B"])
@pytest.mark.parametrize("size", [WHOLE, WHOLE + 1, 200_000])
@pytest.mark.parametrize("piece", [10**6, 65536, 1000])
def test_a_long_message_comes_in_pieces_and_no_piece_is_held(kind: bytes, size: int, piece: int) -> None:
    payload = ("ä" * (size // 2 + 1)).encode()[: size - size % 2]
    data = frame(kind, payload) + frame(b"B", b"next")
    reader = MessageReader()
    found = b""
    lasts: list[bool] = []
    for at in range(0, len(data), piece):
        reader.feed(data[at : at + piece])
        while (event := reader.next_event()) is not None:
            if event[1] == b"next":
                break
            assert event[0] == kind[0]
            found += event[1]
            lasts.append(event[2])
    assert found == payload
    assert lasts.count(True) == 1
    assert lasts[-1]


def test_a_long_text_that_is_none_is_refused_with_the_piece() -> None:
    reader = MessageReader()
    reader.feed(frame(b"T", bytes(70_000) + b"\xff" + bytes(70_000))[:80_000])
    with pytest.raises(MalformedResponse):
        reader.next_event()
    reader = MessageReader()
    reader.feed(frame(b"T", bytes(70_000) + b"\xc3"))
    with pytest.raises(MalformedResponse):
        reader.next_event()


def test_an_end_needs_a_close_of_ours() -> None:
    reader = MessageReader(E)
    with pytest.raises(MalformedResponse):
        reader.next_event()
    reader = MessageReader(E)
    reader.closing = True
    assert reader.next_event() == (ord("E"), b"", True)
    reader.feed_eof()
    with pytest.raises(MalformedResponse):
        reader.feed(b"T")


def test_an_early_end_is_incomplete() -> None:
    for data in (b"", b"T", frame(b"T"), BYE):
        reader = MessageReader(data)
        while reader.next_event() is not None:
            pass
        with pytest.raises(IncompleteResponse):
            reader.feed_eof()


def test_what_is_sent_to_a_worker() -> None:
    assert encode_message(TEXT, b"") == b"T\0\0\0\0"
    assert encode_message(BINARY, b"ab") == b"B\0\0\0\2ab"
    assert encode_message(CLOSE, struct.pack("!H", 1006)) == b"C\0\0\0\2\x03\xee"


@pytest.mark.parametrize("kind", [b"T", b"B"])
def test_a_length_beyond_a_frame_is_refused_at_once(kind: bytes) -> None:
    reader = MessageReader(kind + struct.pack("!I", MAX_FRAME + 1))
    with pytest.raises(MalformedResponse):
        reader.next_event()
    reader = MessageReader(kind + struct.pack("!I", MAX_FRAME))
    assert reader.next_event() is None


# --- the W itself -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10**6, 1, 3])
def test_an_accept_ends_the_frames_of_a_response_and_what_is_behind_it_is_kept(size: int) -> None:
    data = frame(b"I", b"103\0\0") + frame(b"W", b"a\0b\0") + frame(b"T", b"hello") + b"T\0"
    reader = ResponseReader(websocket=True)
    events = []
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
        while (event := reader.next_event()) is not None:
            events.append(event)
    assert events == [(INTERIM, b"103\0\0"), (ACCEPT, b"a\0b\0")]
    assert reader.take_rest() == frame(b"T", b"hello") + b"T\0"
    assert reader.take_rest() == b""


def test_an_accept_may_not_come_unasked_or_behind_a_head_or_be_long() -> None:
    for websocket, data in (
        (False, frame(b"W")),
        (True, frame(b"R", b"200\0\0") + frame(b"W")),
        (True, b"W" + struct.pack("!I", MAX_HEAD + 1)),
    ):
        reader = ResponseReader(websocket=websocket)
        reader.feed(data)
        if data.startswith(b"R"):
            assert reader.next_event() == (HEAD, b"200\0\0")
        with pytest.raises(MalformedResponse):
            reader.next_event()


def test_a_rejection_is_read_as_any_response() -> None:
    reader = ResponseReader(websocket=True)
    reader.feed(frame(b"R", b"403\0\0") + frame(b"E"))
    assert reader.next_event() == (HEAD, b"403\0\0")
    assert reader.next_event() == (ord("E"), b"")
    assert reader.complete
