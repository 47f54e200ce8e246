"""The session protocol: any cut gives the same events, the quick way and the long way agree, and nothing else comes through."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from session_model import cut, error_responses, expected, frame, proper_responses, read, same, streams, upgrades

from passenger_trio.codecs.session_protocol import (
    BODY_END,
    DATA,
    END,
    ERROR,
    HEAD,
    INTERIM,
    MAX_FRAME,
    MAX_HEAD,
    TRAILERS,
    ResponseReader,
    encode_data,
    encode_head,
    encode_request,
    read_whole_response,
    split_application_error,
)
from passenger_trio.errors import IncompleteResponse, MalformedResponse

R = frame(b"R", b"200\0OK\0A\0b\0")
E = frame(b"E")
WHOLE = R + frame(b"D", b"hello") + E


# --- any cut ----------------------------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(streams, st.lists(st.integers(0, 200), max_size=6))
@example(WHOLE + b"R", [])
@example(frame(b"I") + frame(b"I") + R + E, [])
def test_whole_byte_by_byte_and_any_cut_give_what_the_naive_reader_gives(data: bytes, places: list[int]) -> None:
    right = expected(data)
    assert same(read([data]), right)
    assert same(read([data[at : at + 1] for at in range(len(data))]), right)
    assert same(read(cut(data, places)), right)


@settings(max_examples=200, deadline=None)
@given(st.one_of(proper_responses, error_responses))
def test_what_follows_the_contract_is_complete(data: bytes) -> None:
    assert expected(data)[1] == read([data])[1] == "complete"
    for end in range(len(data)):
        assert read([data[:end]])[1] == "incomplete"


@settings(max_examples=200, deadline=None)
@given(upgrades, st.lists(st.integers(0, 200), max_size=6))
@example(frame(b"U") + WHOLE, [])
@example(frame(b"R", b"101\0\0") + frame(b"U") + frame(b"E"), [])
def test_behind_an_upgrade_everything_is_raw(data: bytes, places: list[int]) -> None:
    assert expected(data)[1] == "raw"
    assert read(cut(data, places)) == expected(data)


def test_empty_pieces_change_nothing() -> None:
    pieces = [b"", WHOLE[:20], b"", WHOLE[20:31], b"", WHOLE[31:], b""]
    assert read(pieces) == expected(WHOLE)


def test_body_bytes_are_never_held_back() -> None:
    reader = ResponseReader()
    reader.feed(R + b"D" + struct.pack("!I", 1000))
    assert reader.next_event() == (HEAD, R[5:])
    assert reader.next_event() is None
    for piece in (b"a", b"bc"):
        reader.feed(piece)
        assert reader.next_event() == (DATA, piece)
        assert reader.next_event() is None


def test_pieces_that_wait_are_given_in_their_order() -> None:
    reader = ResponseReader()
    reader.feed(R + b"D" + struct.pack("!I", 6))
    assert reader.next_event() is not None
    assert reader.next_event() is None
    for piece in (b"ab", b"cd", b"ef" + E):
        reader.feed(piece)
    assert (
        b"".join(payload for _, payload in (reader.next_event() or (0, b""), reader.next_event() or (0, b"")))
        == b"abcdef"
    )
    assert reader.next_event() == (END, b"")


def test_the_middle_of_a_body_is_not_copied() -> None:
    reader = ResponseReader()
    reader.feed(R + b"D" + struct.pack("!I", 100_000))
    reader.next_event()
    reader.next_event()
    piece = bytes(65536)
    reader.feed(piece)
    event = reader.next_event()
    assert event is not None
    assert event[1] is piece


def test_a_megabyte_in_small_frames_costs_no_more_than_its_bytes() -> None:
    """Linear: each frame is taken from the front without moving what is behind it."""
    reader = ResponseReader()
    reader.feed(R + frame(b"D", b"x") * 150_000 + E)
    size = 0
    while (event := reader.next_event()) is not None:
        size += len(event[1]) if event[0] == DATA else 0
    assert size == 150_000
    assert reader.complete


# --- order, sizes, ends -----------------------------------------------------------------------------------------------

ORDERS = {
    "body before head": frame(b"D", b"x"),
    "end before head": E,
    "two heads": R + R,
    "interim after head": R + frame(b"I", b"103\0\0"),
    "error after head": R + frame(b"X", b"a\0b\0c\0"),
    "error, then a head": frame(b"X", b"a\0b\0c\0") + R,
    "error, then a body": frame(b"X", b"a\0b\0c\0") + frame(b"D", b"x"),
    "two errors": frame(b"X", b"a\0b\0c\0") * 2,
    "empty body frame": R + frame(b"D"),
    "end with two flag bytes": R + frame(b"E", b"\0\0"),
    "upgrade, which no contract of version 1 promises": R + frame(b"U"),
    "a frame of a request": frame(b"H", b"a\0b\0"),
    "no type": b"\0",
    "a second response": WHOLE + WHOLE,
    "a byte behind the end": WHOLE + b"\0",
}


@pytest.mark.parametrize("data", ORDERS.values(), ids=ORDERS.keys())
def test_what_is_out_of_order_is_malformed(data: bytes) -> None:
    assert expected(data)[1] == "malformed"
    assert read([data])[1] == "malformed"
    assert read([data[at : at + 1] for at in range(len(data))])[1] == "malformed"
    assert read_whole_response(data) is None


@pytest.mark.parametrize("kind", [b"R", b"I", b"X"])
def test_heads_are_bounded(kind: bytes) -> None:
    reader = ResponseReader()
    reader.feed(kind + struct.pack("!I", MAX_HEAD + 1))
    with pytest.raises(MalformedResponse, match="131073 bytes"):
        reader.next_event()
    reader = ResponseReader()
    reader.feed(frame(kind, bytes(MAX_HEAD)))
    assert reader.next_event() == (kind[0], bytes(MAX_HEAD))


def test_body_frames_are_bounded() -> None:
    reader = ResponseReader()
    reader.feed(R + b"D" + struct.pack("!I", MAX_FRAME))
    reader.next_event()
    assert reader.next_event() is None
    reader = ResponseReader()
    reader.feed(R + b"D" + struct.pack("!I", MAX_FRAME + 1))
    reader.next_event()
    with pytest.raises(MalformedResponse):
        reader.next_event()


def test_a_frame_is_judged_as_soon_as_its_first_bytes_are_here() -> None:
    reader = ResponseReader()
    reader.feed(b"Q")
    with pytest.raises(MalformedResponse, match="0x51"):
        reader.next_event()


def test_bytes_behind_the_end_are_refused_whenever_they_come() -> None:
    reader = ResponseReader()
    reader.feed(WHOLE)
    while reader.next_event():
        pass
    assert reader.complete
    reader.feed(b"")
    with pytest.raises(MalformedResponse, match="after the end"):
        reader.feed(b"R")
    reader = ResponseReader()
    reader.feed(WHOLE + b"R")
    assert reader.next_event() == (HEAD, R[5:])
    assert reader.next_event() == (DATA, b"hello")
    with pytest.raises(MalformedResponse, match="after the end"):
        reader.next_event()


def test_nothing_comes_after_an_error() -> None:
    for data in (R + b"Q" + E, WHOLE + b"R", R + frame(b"D") + E):
        reader = ResponseReader()
        reader.feed(data)
        with pytest.raises(MalformedResponse):  # noqa: PT012  # whichever event it is that fails
            while reader.next_event():
                pass
        for _ in range(3):
            with pytest.raises(MalformedResponse):
                reader.next_event()


def test_an_early_end_says_whether_anything_had_come() -> None:
    reader = ResponseReader()
    assert not reader.begun
    with pytest.raises(IncompleteResponse, match="before it answered"):
        reader.feed_eof()
    reader.feed(b"R")
    assert reader.begun
    with pytest.raises(IncompleteResponse, match="in the middle"):
        reader.feed_eof()


def test_an_interim_response_is_a_response_byte() -> None:
    """R30: the request is not sent to a second process once a byte has come; the client may have had the 103 already."""
    reader = ResponseReader()
    reader.feed(frame(b"I", b"103\0Early Hints\0"))
    assert reader.next_event() == (INTERIM, b"103\0Early Hints\0")
    assert reader.begun
    with pytest.raises(IncompleteResponse, match="in the middle"):
        reader.feed_eof()


def test_an_end_after_the_end_is_the_end() -> None:
    reader = ResponseReader()
    reader.feed(WHOLE)
    while reader.next_event():
        pass
    reader.feed_eof()
    assert reader.next_event() is None


# --- the quick way ----------------------------------------------------------------------------------------------------


def agree(data: bytes) -> bool:
    """Whether the quick way took it; if so, the long way must say the same."""
    found = read_whole_response(data)
    events, end = expected(data)
    quick = found is not None
    if found is not None:
        head, body, flags = found
        assert end == "complete"
        assert events == [(HEAD, head), *([(DATA, body)] if body else []), (END, events[-1][1])]
        assert flags == (events[-1][1] or b"\0")[0]
    return quick


@settings(max_examples=500, deadline=None)
@given(streams)
@example(WHOLE)
@example(R + E)
@example(frame(b"R") + E)
@example(R + frame(b"E", b"\x03"))
def test_the_quick_way_says_nothing_or_the_same(data: bytes) -> None:
    agree(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=30), st.sampled_from([b"", b"\0", b"\1", b"\2"]))
def test_the_quick_way_takes_every_response_with_one_body_frame_or_none(head: bytes, body: bytes, flags: bytes) -> None:
    data = frame(b"R", head) + (frame(b"D", body) if body else b"") + frame(b"E", flags)
    assert agree(data)


def test_the_quick_way_with_every_byte_changed() -> None:
    took = sum(agree(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]) for at in range(len(WHOLE)) for byte in range(256))
    assert took > 1000


def test_the_quick_way_with_every_byte_left_out_and_every_end() -> None:
    for at in range(len(WHOLE)):
        agree(WHOLE[:at] + WHOLE[at + 1 :])
        assert not agree(WHOLE[:at])


def test_the_quick_way_leaves_what_is_too_long_to_the_other() -> None:
    assert agree(frame(b"R", bytes(MAX_HEAD)) + E)
    assert not agree(frame(b"R", bytes(MAX_HEAD + 1)) + E)
    assert agree(R + frame(b"D", bytes(MAX_FRAME)) + E)
    assert not agree(R + frame(b"D", bytes(MAX_FRAME + 1)) + E)


# --- writing ----------------------------------------------------------------------------------------------------------


def frames_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        (size,) = struct.unpack_from("!I", data, 1)
        found.append((data[:1], data[5 : 5 + size]))
        assert len(found[-1][1]) == size
        data = data[5 + size :]
    return found


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_request_is_head_body_if_any_and_end(pairs: bytes, body: bytes) -> None:
    end = (b"E", b"")
    assert frames_of(encode_request(pairs, body)) == [(b"H", pairs), *([(b"D", body)] if body else []), end]
    assert frames_of(encode_head(pairs) + BODY_END) == [(b"H", pairs), end]
    if body:
        assert frames_of(encode_data(body)) == [(b"D", body)]


def test_no_frame_is_written_that_a_worker_must_refuse() -> None:
    """A worker closes the stream for an empty body frame and for one that is too long."""
    assert encode_request(bytes(MAX_HEAD))
    for write in (encode_request, encode_head):
        with pytest.raises(ValueError, match="128 KiB"):
            write(bytes(MAX_HEAD + 1))
    for body in (b"", bytes(MAX_FRAME + 1)):
        with pytest.raises(ValueError, match="16 MiB"):
            encode_data(body)
    with pytest.raises(ValueError, match="16 MiB"):
        encode_request(b"", bytes(MAX_FRAME + 1))
    assert len(encode_data(bytes(MAX_FRAME))) == MAX_FRAME + 5


# --- the application's error ------------------------------------------------------------------------------------------


def test_an_application_error_is_three_texts() -> None:
    assert split_application_error("Kaputt\0weil\0Traceback …\0".encode()) == ("Kaputt", "weil", "Traceback …")
    assert split_application_error(b"\0\0\0") == ("", "", "")
    assert split_application_error(b"a\xff\0b\0c\0")[0] == "a\ufffd"


@pytest.mark.parametrize("payload", [b"", b"a", b"a\0b\0c", b"a\0b\0", b"a\0b\0c\0d", b"a\0b\0c\0\0"])
def test_another_form_of_error_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedResponse, match="a form"):
        split_application_error(payload)
    assert read([frame(b"X", payload) + E]) == ([(ERROR, payload), (END, b"")], "complete")


def test_trailers_stand_behind_the_body_and_in_front_of_the_end() -> None:
    """ED10."""
    wire = frame(b"R", b"200\0OK\0") + frame(b"D", b"x") + frame(b"L", b"a\0b\0") + frame(b"E", b"")
    for size in (1, len(wire)):
        reader = ResponseReader()
        events = []
        for at in range(0, len(wire), size):
            reader.feed(wire[at : at + size])
            while (event := reader.next_event()) is not None:
                events.append(event)
        assert events[2:] == [(TRAILERS, b"a\0b\0"), (END, b"")]
        assert reader.complete
    for wrong in (frame(b"L", b""), frame(b"R", b"200\0OK\0") + frame(b"L", b"") + frame(b"D", b"x")):
        reader = ResponseReader()
        reader.feed(wrong)
        with pytest.raises(MalformedResponse):
            list(iter(reader.next_event, None))
