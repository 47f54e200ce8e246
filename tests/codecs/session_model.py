"""A naive reader of a worker's response: obviously right, all at once, with no state. And how to make and to feed frames."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import strategies as st

from passenger_trio.codecs.session_protocol import (
    DATA,
    END,
    ERROR,
    HEAD,
    INTERIM,
    MAX_FRAME,
    MAX_HEAD,
    UPGRADE,
    ResponseReader,
)
from passenger_trio.errors import IncompleteResponse, MalformedResponse

Event = tuple[int, bytes]
Outcome = tuple[list[Event], str]
"""The events, and how it ended: ``complete``, ``incomplete``, ``malformed``, or ``raw`` after an upgrade; then the raw bytes are the last event."""

RAW = 0

_MOST = {HEAD: MAX_HEAD, INTERIM: MAX_HEAD, ERROR: MAX_HEAD, DATA: MAX_FRAME, END: 1, UPGRADE: 0}


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(payload)) + payload


def expected(data: bytes) -> Outcome:
    """What a stream that carries ``data`` and then ends has to give. Body pieces are joined."""
    events: list[Event] = []
    allowed = {INTERIM, HEAD, ERROR, UPGRADE}
    at = 0
    while True:
        if at == len(data):
            return joined(events), "incomplete" if allowed else "complete"
        kind = data[at]
        if kind not in allowed:
            return joined(events), "malformed"
        if len(data) - at < 5:
            return joined(events), "incomplete"
        (size,) = struct.unpack_from("!I", data, at + 1)
        if size > _MOST[kind] or (kind == DATA and not size):
            return joined(events), "malformed"
        payload = data[at + 5 : at + 5 + size]
        at += 5 + size
        if kind == DATA:
            events.append((DATA, payload))
        if at > len(data):
            return joined(events), "incomplete"
        if kind != DATA:
            events.append((kind, payload))
        if kind == UPGRADE:
            return [*joined(events), (RAW, data[at:])], "raw"
        if kind == INTERIM:
            continue
        if kind == HEAD:
            allowed = {DATA, END, UPGRADE} if payload.startswith(b"101\0") else {DATA, END}
        elif kind == DATA:
            allowed = {DATA, END}
        elif kind == ERROR:
            allowed = {END}
        elif kind == END:
            allowed = set()


def read(pieces: Iterable[bytes]) -> Outcome:
    """What ``ResponseReader`` makes of the pieces of a stream that then ends."""
    reader = ResponseReader()
    events: list[Event] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event()) is not None:
                events.append(event)
        reader.feed_eof()
    except MalformedResponse:
        return joined(events), "malformed"
    except IncompleteResponse:
        assert not reader.complete
        return joined(events), "incomplete"
    if events and events[-1][0] == UPGRADE:
        return [*joined(events), (RAW, reader.take_rest())], "raw"
    assert reader.complete
    return joined(events), "complete"


def joined(events: Iterable[Event]) -> list[Event]:
    """Adjacent body pieces as one; a piece without bytes is none."""
    merged: list[Event] = []
    for kind, payload in events:
        if kind == DATA and not payload:
            continue
        if kind == DATA and merged and merged[-1][0] == DATA:
            merged[-1] = (DATA, merged[-1][1] + payload)
        else:
            merged.append((kind, payload))
    return merged


def same(one: Outcome, other: Outcome) -> bool:
    """Equal, except that bytes behind the end are told with the end when both come together, and else after it."""
    if one[1] == other[1] == "malformed":
        return _without_end(one[0]) == _without_end(other[0])
    return one == other


def _without_end(events: list[Event]) -> list[Event]:
    return events[:-1] if events and events[-1][0] == END else events


payloads = st.binary(max_size=40)
proper_responses = st.builds(
    lambda interims, head, body, flags: b"".join(
        (
            *(frame(b"I", interim) for interim in interims),
            frame(b"R", head),
            *(frame(b"D", piece) for piece in body),
            frame(b"E", flags),
        )
    ),
    st.lists(payloads, max_size=2),
    payloads,
    st.lists(st.binary(min_size=1, max_size=40), max_size=3),
    st.sampled_from([b"", b"\0", b"\1", b"\2", b"\3"]),
)
upgrades = st.builds(
    lambda interims, head, raw: b"".join((*(frame(b"I", interim) for interim in interims), head, frame(b"U"), raw)),
    st.lists(payloads, max_size=2),
    st.one_of(st.just(b""), st.builds(lambda rest: frame(b"R", b"101\0" + rest), payloads)),
    st.binary(max_size=60),
)
error_responses = st.builds(lambda payload: frame(b"X", payload) + frame(b"E"), payloads)
any_frames = st.lists(
    st.one_of(
        st.builds(frame, st.sampled_from([b"R", b"D", b"E", b"I", b"X", b"U", b"H", b"A", b"\0"]), payloads),
        st.builds(
            lambda kind, size: kind + struct.pack("!I", size),
            st.sampled_from([b"R", b"D", b"E", b"I", b"X"]),
            st.sampled_from([0, 1, 2, MAX_HEAD, MAX_HEAD + 1, MAX_FRAME, MAX_FRAME + 1, 2**32 - 1]),
        ),
    ),
    max_size=5,
).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A response with a piece cut out, put in or put behind."""
    data = draw(st.one_of(proper_responses, error_responses, upgrades))
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]


streams = st.one_of(proper_responses, error_responses, upgrades, damaged(), any_frames, st.binary(max_size=60))


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """Pieces between the given places."""
    places = sorted({0, len(data), *(min(place, len(data)) for place in at)})
    return [data[a:b] for a, b in pairwise(places)]
