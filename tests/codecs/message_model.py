"""A naive reader of what a worker sends on a WebSocket: all at once, with no state."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Iterable

from hypothesis import strategies as st
from session_model import frame

from passenger_trio.codecs.session_messages import MessageReader
from passenger_trio.codecs.session_protocol import MAX_FRAME
from passenger_trio.codecs.websocket_frames import WHOLE
from passenger_trio.errors import IncompleteResponse, MalformedResponse

Event = tuple[int, bytes]
Outcome = tuple[list[Event], str]
"""The events, and how it ended: ``complete``, ``incomplete`` or ``malformed``."""

_MOST = {b"T": MAX_FRAME, b"B": MAX_FRAME, b"C": 125, b"E": 1}


def expected_messages(data: bytes, closing: bool) -> Outcome:
    """What a stream gives that carries ``data`` behind a ``W``, and then ends.

    :param closing: whether the worker was sent a ``C``.
    """
    events: list[Event] = []
    at = 0
    closed = ended = False
    while at < len(data):
        kind = data[at : at + 1]
        if ended or kind not in _MOST or (closed and kind != b"E") or (kind == b"E" and not closing):
            return events, "malformed"
        if len(data) - at < 5:
            return events, "incomplete"
        (size,) = struct.unpack_from("!I", data, at + 1)
        if size > _MOST[kind]:
            return events, "malformed"
        payload = data[at + 5 : at + 5 + size]
        at += 5 + size
        if at > len(data):
            if kind == b"T" and size > WHOLE:
                # It is given out in pieces, so it is judged as it comes.
                try:
                    codecs.getincrementaldecoder("utf-8")().decode(payload)
                except UnicodeDecodeError:
                    return events, "malformed"
            return events, "incomplete"
        if kind in b"TC":
            if kind == b"C" and size == 1:
                return events, "malformed"
            try:
                (payload if kind == b"T" else payload[2:]).decode()
            except UnicodeDecodeError:
                return events, "malformed"
        closed = closed or kind == b"C"
        ended = kind == b"E"
        events.append((kind[0], payload))
    return events, "complete" if ended else "incomplete"


def read_messages(pieces: Iterable[bytes], closing: bool) -> Outcome:
    """What ``MessageReader`` makes of the pieces of a stream that then ends."""
    reader = MessageReader()
    reader.closing = closing
    events: list[Event] = []
    begun = b""
    try:
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event()) is not None:
                begun += event[1]
                if event[2]:
                    events.append((event[0], begun))
                    begun = b""
        reader.feed_eof()
    except MalformedResponse:
        return events, "malformed"
    except IncompleteResponse:
        return events, "incomplete"
    return events, "complete"


_payloads = st.one_of(st.binary(max_size=20), st.text(max_size=10).map(str.encode))
_frames = st.one_of(
    st.builds(frame, st.sampled_from([b"T", b"B"]), _payloads),
    st.builds(frame, st.just(b"C"), st.binary(max_size=6)),
    st.builds(frame, st.just(b"C"), st.text(max_size=100).map(lambda text: b"\x03\xe8" + text.encode())),
    st.builds(frame, st.just(b"E"), st.binary(max_size=2)),
    st.builds(frame, st.sampled_from([b"R", b"D", b"W", b"U", b"\0"]), _payloads),
    st.builds(
        lambda kind, size: kind + struct.pack("!I", size),
        st.sampled_from([b"T", b"B", b"C", b"E"]),
        st.sampled_from([0, 1, 2, 125, 126, MAX_FRAME + 1, 2**32 - 1]),
    ),
)
proper_streams = st.builds(
    lambda messages, flags: b"".join((*messages, frame(b"C", b"\x03\xe8"), frame(b"E", flags))),
    st.lists(st.builds(frame, st.just(b"B"), _payloads), max_size=4),
    st.sampled_from([b"", b"\0", b"\1"]),
)
message_streams = st.one_of(proper_streams, st.lists(_frames, max_size=5).map(b"".join), st.binary(max_size=40))
