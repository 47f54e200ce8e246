"""Every error of RFC 6455, sections 5 to 7, that a client can make, as raw frames: the right close code, whole and byte by byte. And what is right stays right however it is cut."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAILURE,
    PING,
    PONG,
    TEXT,
    WHOLE,
    FrameLimits,
    FrameReader,
    close_code,
    close_payload,
    encode_frame,
    is_close_payload,
)

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 1000

Event = tuple[int, bytes]


def masked(first: int, payload: bytes = b"", *, mask: bytes = MASK) -> bytes:
    """A frame whose first byte is ``first``, with the shortest length."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    return bytes([first]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def text(payload: bytes) -> bytes:
    return masked(0x81, payload)


def begin(payload: bytes = b"", opcode: int = TEXT) -> bytes:
    return masked(opcode, payload)


def more(payload: bytes = b"") -> bytes:
    return masked(CONTINUATION, payload)


def last(payload: bytes = b"") -> bytes:
    return masked(0x80, payload)


def closing(payload: bytes) -> bytes:
    return masked(0x88, payload)


def code(number: int) -> bytes:
    return struct.pack("!H", number)


def read(data: bytes, size: int, *, plain_parser: bool = True, limit: int = 0) -> list[Event]:
    reader = FrameReader(FrameLimits(limit or LIMIT), 0.0, plain_parser=plain_parser)
    events: list[Event] = []
    for at in range(0, len(data), size):
        events += reader.receive(data[at : at + size], 0.0)
    return events


ERRORS: dict[str, tuple[int, bytes]] = {
    # 5.2: reserved bits, opcodes
    "the first reserved bit": (1002, masked(0xC1, b"x")),
    "the second reserved bit": (1002, masked(0xA1, b"x")),
    "the third reserved bit": (1002, masked(0x91, b"x")),
    "all reserved bits": (1002, masked(0xF2, b"x")),
    "a reserved bit of a control frame": (1002, masked(0xC9)),
    "a reserved bit of a close": (1002, masked(0xC8, code(1000))),
    "a reserved bit of a continuation": (1002, begin(b"a") + masked(0xC0, b"b")),
    **{
        f"the reserved opcode {number}": (1002, masked(0x80 | number)) for number in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "a reserved opcode that is not final": (1002, masked(0x03)),
    # 5.1, 5.3: masks
    "a text that is not masked": (1002, b"\x81\x01x"),
    "an empty text that is not masked": (1002, b"\x81\x00"),
    "a ping that is not masked": (1002, b"\x89\x00"),
    "a close that is not masked": (1002, b"\x88\x02\x03\xe8"),
    "a long binary that is not masked": (1002, b"\x82\x7e\x01\x00" + bytes(256)),
    # 5.2: lengths
    "two bytes for a length of 125": (1002, b"\x81\xfe\x00\x7d" + MASK),
    "two bytes for a length of 0": (1002, b"\x81\xfe\x00\x00" + MASK),
    "eight bytes for a length of 126": (1002, b"\x82\xff" + struct.pack("!Q", 126) + MASK),
    "eight bytes for a length of 65535": (1002, b"\x82\xff" + struct.pack("!Q", 65535) + MASK),
    "eight bytes for a length of 0": (1002, b"\x82\xff" + struct.pack("!Q", 0) + MASK),
    "a length with the top bit": (1002, b"\x82\xff" + struct.pack("!Q", 1 << 63) + MASK),
    "the longest length": (1002, b"\x82\xff" + b"\xff" * 8 + MASK),
    "two bytes for the length of a fragment": (1002, begin(b"a") + b"\x80\xfe\x00\x01" + MASK),
    # 5.5: control frames
    "a fragmented ping": (1002, masked(PING)),
    "a fragmented pong": (1002, masked(PONG)),
    "a fragmented close": (1002, masked(CLOSE, code(1000))),
    "a ping of 126 bytes": (1002, masked(0x89, bytes(126))),
    "a pong of 126 bytes": (1002, masked(0x8A, bytes(126))),
    "a close of 126 bytes": (1002, closing(code(1000) + bytes(124))),
    "a ping whose length has eight bytes": (1002, b"\x89\xff" + bytes(8)),
    # 5.4: fragments
    "a continuation of nothing": (1002, last(b"x")),
    "a continuation of nothing that is not final": (1002, more(b"x")),
    "a continuation of what is finished": (1002, begin(b"a") + last(b"b") + last(b"c")),
    "a text within a text": (1002, begin(b"a") + text(b"b")),
    "a binary within a text": (1002, begin(b"a") + masked(0x82, b"b")),
    "a begun text within a text": (1002, begin(b"a") + begin(b"b")),
    "a text within a binary, behind a ping": (1002, begin(b"a", BINARY) + masked(0x89) + text(b"b")),
    # 5.6, 8.1: UTF-8
    "a byte that is never one": (1007, text(b"a\xffb")),
    "a cut character at the end": (1007, text(b"ab\xc3")),
    "a cut character of four bytes": (1007, text(b"\xf0\x9f\x98")),
    "a surrogate": (1007, text(b"\xed\xa0\x80")),
    "a pair of surrogates": (1007, text(b"\xed\xa0\xbd\xed\xb8\x80")),
    "an overlong slash": (1007, text(b"\xc0\xaf")),
    "an overlong NUL": (1007, text(b"\xe0\x80\x80")),
    "beyond the last code point": (1007, text(b"\xf4\x90\x80\x80")),
    "a continuation byte alone": (1007, text(b"\x80")),
    "a wrong byte in the second fragment": (1007, begin(b"a") + last(b"\xfe")),
    "a character that a fragment begins and none ends": (1007, begin(b"\xc3") + more() + last()),
    "a character that the next fragment continues wrongly": (1007, begin(b"\xe2\x82") + last(b"A")),
    "a wrong byte in a fragment that is not the last": (1007, begin(b"\xff")),
    "a cut character, with a ping between": (1007, begin(b"\xe2\x82") + masked(0x89) + last()),
    # 5.5.1, 7.4: closes
    "a close of one byte": (1002, closing(b"\x03")),
    **{
        f"the close code {number}": (1002, closing(code(number)))
        for number in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535)
    },
    "a close reason that is not UTF-8": (1007, closing(code(1000) + b"\xff")),
    "a close reason with a cut character": (1007, closing(code(1000) + b"a\xe2\x82")),
    "a wrong code and a wrong reason": (1002, closing(code(1005) + b"\xff")),
    # R33: sizes
    "a message that is too big": (1009, text(b"x" * (LIMIT + 1))),
    "a message that is said to be too big": (1009, b"\x82\xfe" + struct.pack("!H", LIMIT + 1)),
    "a message that is said to be of 2**62 bytes": (1009, b"\x82\xff" + struct.pack("!Q", 1 << 62)),
    "fragments that are too big together": (1009, begin(bytes(600), BINARY) + last(bytes(401))),
    "fragments that are said to be too big": (1009, begin(bytes(600), BINARY) + b"\x80\xfe" + struct.pack("!H", 500)),
    "small fragments that are too big": (1009, begin(bytes(100), BINARY) + more(bytes(100)) * 9 + more(b"x")),
    "too many fragments": (1008, begin(b"a") + more(b"b") * 4096),
    "too many empty fragments": (1008, begin() + more() * 64),
    "too many control frames": (1008, masked(0x89) * 101),
    "too many pongs within a message": (1008, begin() + masked(0x8A) * 101),
}


@pytest.mark.parametrize("plain_parser", [True, False], ids=["plain_parser", "wsproto"])
@pytest.mark.parametrize("size", [1 << 20, 1, 2, 3, 7], ids=lambda size: "whole" if size > 9 else f"by {size}")
@pytest.mark.parametrize("what", ERRORS)
def test_each_error_has_its_code(what: str, size: int, plain_parser: bool) -> None:
    right, wire = ERRORS[what]
    behind = text(b"never read")
    events = read(
        text(b"before") + wire + behind,
        size,
        plain_parser=plain_parser,
        limit=5000 if what == "too many fragments" else 0,
    )
    assert events[0] == (TEXT, b"before")
    assert events[-1][0] == FAILURE
    assert close_code(events[-1][1]) == right
    assert (TEXT, b"never read") not in events
    assert is_close_payload(events[-1][1])
    assert not any(event[0] == FAILURE for event in events[:-1])


def test_a_frame_that_is_too_long_is_refused_before_its_payload() -> None:
    reader = FrameReader(FrameLimits(LIMIT), 0.0)
    events = reader.receive(b"\x82\xff" + struct.pack("!Q", 1 << 40), 0.0)  # not even its mask has come
    assert close_code(events[0][1]) == 1009
    assert reader.buffered == 0


def test_reserved_bits_and_opcodes_are_refused_with_the_first_byte() -> None:
    for first in (0xC1, 0x83, 0x09, 0x80):
        assert FrameReader(FrameLimits(), 0.0).receive(bytes([first]), 0.0)[0][0] == FAILURE


RIGHT: dict[str, tuple[list[Event], bytes]] = {
    "a text": ([(TEXT, "grüße".encode())], text("grüße".encode())),
    "an empty text": ([(TEXT, b"")], text(b"")),
    "an empty binary": ([(BINARY, b"")], masked(0x82)),
    "125 bytes": ([(BINARY, b"b" * 125)], masked(0x82, b"b" * 125)),
    "126 bytes": ([(BINARY, b"b" * 126)], masked(0x82, b"b" * 126)),
    "the longest message": ([(BINARY, b"b" * LIMIT)], masked(0x82, b"b" * LIMIT)),
    "a mask of zeros": ([(TEXT, b"plain")], masked(0x81, b"plain", mask=bytes(4))),
    "fragments": ([(TEXT, b"abc")], begin(b"a") + more(b"b") + last(b"c")),
    "fragments without anything": ([(BINARY, b"")], begin(b"", BINARY) + last()),
    "the longest message in fragments": ([(BINARY, bytes(LIMIT))], begin(bytes(500), BINARY) + last(bytes(500))),
    "a character over fragments": (
        [(TEXT, b"\xf0\x9f\x98\x80")],
        begin(b"\xf0") + more(b"\x9f") + more() + last(b"\x98\x80"),
    ),
    "control frames between fragments": (
        [(PING, b"p"), (PONG, b""), (TEXT, b"ab"), (TEXT, b"c")],
        begin(b"a") + masked(0x89, b"p") + masked(0x8A) + last(b"b") + text(b"c"),
    ),
    "a ping of 125 bytes": ([(PING, bytes(125))], masked(0x89, bytes(125))),
    "a close within a message": ([(CLOSE, b"")], begin(b"a") + closing(b"")),
    "a close, and data behind it": ([(CLOSE, code(1000))], closing(code(1000)) + text(b"x") + b"\xff\xff"),
    "the longest close": ([(CLOSE, code(1000) + b"r" * 123)], closing(code(1000) + b"r" * 123)),
    "a noncharacter": ([(TEXT, b"\xef\xbf\xbf")], text(b"\xef\xbf\xbf")),
    "the last code point": ([(TEXT, b"\xf4\x8f\xbf\xbf")], text(b"\xf4\x8f\xbf\xbf")),
    **{
        f"the close code {number}": ([(CLOSE, code(number))], closing(code(number)))
        for number in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    },
    "64 empty fragments": ([(TEXT, b"")], begin() + more() * 63 + last()),
    "a hundred control frames": ([(PING, b"")] * 100, masked(0x89) * 100),
}


@pytest.mark.parametrize("plain_parser", [True, False], ids=["plain_parser", "wsproto"])
@pytest.mark.parametrize("size", [1 << 20, 1, 2, 3, 7], ids=lambda size: "whole" if size > 9 else f"by {size}")
@pytest.mark.parametrize("what", RIGHT)
def test_what_is_right_is_read(what: str, size: int, plain_parser: bool) -> None:
    events, wire = RIGHT[what]
    assert read(wire, size, plain_parser=plain_parser) == events


@pytest.mark.parametrize("size", [WHOLE - 1, WHOLE, WHOLE + 1, 300_000])
@pytest.mark.parametrize("piece", [1 << 20, 4096, 65536])
def test_long_messages(size: int, piece: int) -> None:
    payload = bytes(at % 251 for at in range(size))
    data = masked(0x82, payload) + text(b"next")
    assert read(data, piece, limit=1 << 20) == [(BINARY, payload), (TEXT, b"next")]


def test_the_allowance_of_control_frames_grows_back() -> None:
    reader = FrameReader(FrameLimits(), 0.0)
    ping = masked(0x89)
    assert len(reader.receive(ping * 100, 0.0)) == 100
    assert reader.receive(ping * 20, 1.0) == [(PING, b"")] * 20
    assert reader.receive(ping, 1.0)[-1][0] == FAILURE


def test_nothing_is_held_between_messages() -> None:
    reader = FrameReader(FrameLimits(), 0.0)
    reader.receive(begin(b"abc") + more(b"def") + b"\x80", 0.0)
    assert reader.buffered == 7
    reader.receive(last()[1:], 0.0)
    assert reader.buffered == 0
    assert reader._engine is None


messages = st.lists(
    st.one_of(
        st.tuples(st.just(TEXT), st.text(max_size=60).map(str.encode)),
        st.tuples(st.just(BINARY), st.binary(max_size=200)),
        st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    ),
    max_size=6,
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Event], bytes]:
    """Messages, some of them in fragments with control frames between, and the bytes of them."""
    events: list[Event] = []
    wire = b""
    for opcode, payload in draw(messages):
        mask = draw(st.binary(min_size=4, max_size=4))
        if opcode in (PING, PONG):
            events.append((opcode, payload))
            wire += masked(0x80 | opcode, payload, mask=mask)
            continue
        places = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]
        for at, part in enumerate(parts):
            first = (opcode if at == 0 else 0) | (0x80 if at == len(parts) - 1 else 0)
            wire += masked(first, part, mask=mask)
            if at < len(parts) - 1 and draw(st.booleans()):
                events.append((PING, b"between"))
                wire += masked(0x89, b"between")
        events.append((opcode, payload))
    return events, wire


@given(conversations(), st.lists(st.integers(0, 2000), max_size=8), st.booleans())
def test_any_split_gives_the_same_messages(
    conversation: tuple[list[Event], bytes], places: list[int], plain_parser: bool
) -> None:
    events, wire = conversation
    reader = FrameReader(FrameLimits(LIMIT), 0.0, plain_parser=plain_parser)
    cuts = sorted({0, len(wire), *(min(place, len(wire)) for place in places)})
    found: list[Event] = []
    for a, b in pairwise(cuts):
        found += reader.receive(wire[a:b], 0.0)
    assert found == events
    assert not reader.buffered


@given(st.binary(max_size=300))
def test_any_bytes_are_read_alike_however_they_come(data: bytes) -> None:
    whole = read(data, 1 << 20)
    assert read(data, 1) == whole
    # wsproto sees a wrong byte of a text before its frame is whole; else the plain-request parser is a part of it.
    by_wsproto = read(data, 1 << 20, plain_parser=False)
    assert by_wsproto[: len(whole)] == whole
    for event in by_wsproto[len(whole) :]:
        assert event[0] == FAILURE
        assert close_code(event[1]) == 1007


@given(
    st.sampled_from([TEXT, BINARY, CONTINUATION, PING]),
    st.one_of(st.binary(max_size=300), st.integers(65530, 65540).map(bytes)),
    st.booleans(),
)
def test_our_frames_are_what_another_library_reads(opcode: int, payload: bytes, final: bool) -> None:
    from websockets.frames import Frame, Opcode
    from websockets.streams import StreamReader

    if opcode == PING:
        payload, final = payload[:125], True
    stream = StreamReader()
    stream.feed_data(encode_frame(opcode, payload, final=final))
    parse = Frame.parse(stream.read_exact, mask=False)
    with pytest.raises(StopIteration) as found:
        next(parse)
    frame = found.value.value
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode(opcode), payload, final)


def test_close_payloads() -> None:
    assert close_payload(1000, "bye") == b"\x03\xe8bye"
    assert close_code(b"\x03\xe8bye") == 1000
    assert close_code(b"") == 1005
    assert not is_close_payload(code(1000) + bytes(124))
