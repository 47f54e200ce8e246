"""FR6: the packet with which a connection moves from one front to another."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.moved_connection import MovedConnection, encode_moved, read_moved
from passenger_trio.errors import BadFrontMessage

PAIRS = b"REQUEST_SCHEME\0http\0SERVER_NAME\0a\0SERVER_PORT\x0080\0REMOTE_ADDR\x00192.0.2.7\0REMOTE_PORT\x004711\0"
MOVED = MovedConnection("192.0.2.7", PAIRS, None, 17.5, 18.25, 3)
UNIX = MovedConnection("unix", b"REMOTE_ADDR\0\0SERVER_SOCKET\0/run/\xff\0", 0, 17.5, 18.25, 2**40)


@pytest.mark.parametrize("moved", [MOVED, UNIX, MovedConnection("2001:db8::1%eth0", b"", None, 1.0, 1.0, 0)])
def test_a_connection_is_read_as_it_was_written(moved: MovedConnection) -> None:
    assert read_moved(encode_moved(moved)) == moved


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_written_again_as_they_are(packet: bytes) -> None:
    try:
        moved = read_moved(packet)
    except BadFrontMessage:
        return
    assert encode_moved(moved) == packet


def test_every_packet_that_is_cut_off_is_refused_or_has_fewer_variables() -> None:
    packet = encode_moved(MOVED)
    for end in range(len(packet)):
        try:
            moved = read_moved(packet[:end])
        except BadFrontMessage:
            continue
        assert PAIRS.startswith(moved.cgi_pairs)
        assert moved.cgi_pairs != PAIRS


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "cut off"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 9) + b"\xff" * 9, "cut off"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 0), "address"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 9) + b"1.2.3.4", "address"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 4) + b"a\nb ", "address"),
        (struct.pack("!ddQqH", math.nan, 1.0, 0, -1, 4) + b"unix", "time"),
        (struct.pack("!ddQqH", 1.0, math.inf, 0, -1, 4) + b"unix", "time"),
        (struct.pack("!ddQqH", -1.0, 1.0, 0, -1, 4) + b"unix", "time"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -2, 4) + b"unix", "user"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 4) + b"unix" + b"HTTP_HOST\0a\0", "variables"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 4) + b"unix" + b"SERVER_NAME\0a", "variables"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 4) + b"unix" + b"SERVER_NAME\0", "variables"),
        (struct.pack("!ddQqH", 1.0, 1.0, 0, -1, 4) + b"unix" + b"SERVER_NAME\0" + b"a" * 5000 + b"\0", "variables"),
    ],
)
def test_what_is_no_connection_is_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(BadFrontMessage, match=reason):
        read_moved(packet)
