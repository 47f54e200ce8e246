"""Responses of processes that speak HTTP, and what they are asked: bytes to values and back, in any pieces."""

from __future__ import annotations

import itertools

import h11
import pytest
from http1_strategies import pieces_of
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.codecs.http1_worker_response import HttpReader
from passenger_trio.codecs.request_id import make_id_pairs
from passenger_trio.codecs.session_protocol import DATA, END, HEAD, INTERIM, INTERIM_COST, RUN, UPGRADE
from passenger_trio.codecs.worker_protocol import BodyEncoding
from passenger_trio.errors import IncompleteResponse, MalformedResponse

Outcome = tuple[list[tuple[int, bytes]], str]


def read(pieces: list[bytes], method: bytes = b"GET", *, eof: bool = False, broken: bool = False) -> Outcome:
    """The events, body pieces joined; and how it ended: ``whole``, ``open``, or the name of the error."""
    reader = HttpReader(method)
    events: list[tuple[int, bytes]] = []

    def tell() -> None:
        while (event := reader.next_event()) is not None:
            if event[0] == DATA and events and events[-1][0] == DATA:
                events[-1] = (DATA, events[-1][1] + event[1])
            else:
                events.append(event)

    try:
        for piece in pieces:
            reader.feed(piece)
            tell()
        if eof and not (events and events[-1][0] == END):
            reader.feed_eof(broken)
            tell()
    except (MalformedResponse, IncompleteResponse) as error:
        return events, type(error).__name__
    return events, "whole" if events and events[-1][0] == END else "open"


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def in_bulk(data: bytes, size: int, method: bytes = b"GET") -> Outcome:
    """As the response forwarder does it: body bytes are taken from the view, the rest is fed."""
    reader = HttpReader(method)
    events: list[tuple[int, bytes]] = []
    body = b""
    for at in range(0, len(data), size):
        view = memoryview(data)[at : at + size]
        pieces, taken = reader.take_body(view)
        body += b"".join(pieces)
        if taken < len(view):
            reader.feed(bytes(view[taken:]))
        while (event := reader.next_event()) is not None:
            if event[0] == DATA:
                body += event[1]
            else:
                events.append(event)
    return [*events, (DATA, body)], "whole" if events and events[-1][0] == END else "open"


R = b"HTTP/1.1 200 OK\r\n"
GOOD = {
    "by length": (R + b"Content-Length: 5\r\n\r\nhello", b"hello", b""),
    "no body": (R + b"Content-Length: 0\r\n\r\n", b"", b""),
    "chunked, white space and a digest as trailer (fault 26)": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 ; a = b\r\nhello\r\n0\t;c\r\nContent-Digest: x\r\n\r\n",
        b"hello",
        b"",
    ),
    "chunked": (
        R + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\nX-T: 1\r\n\r\n",
        b"helloyou",
        b"",
    ),
    "chunked, trailers that may not be sent as such (RFC 9110 6.5.1): they are dropped": (
        R
        + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\nX-T: 1\r\nTransfer-Encoding: gzip\r\nSet-Cookie: a\r\n\r\n",
        b"hello",
        b"",
    ),
    "chunked in capitals": (R + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a", b""),
    "closing": (R + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", b"ok", b"\x01"),
    "closing among other words": (R + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nok", b"ok", b"\x01"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok", b"\x01"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", b""),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"ok", b""),
    "not even a space": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok", b""),
    "bytes behind the end": (R + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", b"ok", b"\x01"),
    "bytes behind no body": (b"HTTP/1.1 204 No Content\r\n\r\nsurprise", b"", b"\x01"),
    "latin-1 in a value": (R + b"X: \xe9\xff\r\nContent-Length: 2\r\n\r\nok", b"ok", b""),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_response_is_the_same_in_any_pieces(name: str) -> None:
    data, body, flags = GOOD[name]
    events, end = read([data])
    assert end == "whole"
    kinds = [kind for kind, _ in events]
    assert kinds == [HEAD, *([DATA] if body else []), END]
    assert b"".join(payload for kind, payload in events if kind == DATA) == body
    assert events[-1][1] == flags
    expected = ([*events[:-1], (END, b"")], end) if "behind" in name else (events, end)
    # Bytes behind the end are told if they come with it; later ones are found when the stream is looked at again (R41).
    assert read(one_by_one(data)) in ((events, end), expected)
    for at in range(len(data)):
        assert read([data[:at], data[at:]]) in ((events, end), expected)
    for size in (1, 3, len(data)):
        bulk, bulk_end = in_bulk(data, size)
        assert bulk_end == "whole"
        assert bulk[-1] == (DATA, body)
        assert bulk[0] == events[0]


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_head_has_no_body_whatever_is_declared(method: bytes) -> None:
    for framing in (b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n", b""):
        _, end = read([R + framing + b"\r\n"], method)
        assert end == ("whole" if method == b"HEAD" else "open")


def test_the_pairs_are_those_of_the_session_protocol() -> None:
    events, _ = read([R + b"Content-Length:2  \r\nX-A:  b c\t\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nok"])
    assert events[0][1] == b"200\0OK\0Content-Length\x002\0X-A\0b c\0Set-Cookie\0a\0Set-Cookie\0b\0"


def test_interim_responses_come_first_and_100_is_not_passed_on() -> None:
    wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + GOOD["by length"][0]
    for pieces in ([wire], one_by_one(wire)):
        events, end = read(pieces)
        assert end == "whole"
        assert events[0] == (INTERIM, b"103\0Early Hints\0Link\0</a>\0")
        assert [kind for kind, _ in events[1:]] == [HEAD, DATA, END]


UNTIL_CLOSE = R + b"Content-Type: text/plain\r\n\r\nhello"


def test_a_body_without_a_length_ends_with_the_stream() -> None:
    for pieces in ([UNTIL_CLOSE], one_by_one(UNTIL_CLOSE)):
        assert read(pieces)[1] == "open"
        events, end = read(pieces, eof=True)
        assert (events[1:], end) == ([(DATA, b"hello"), (END, b"\x01")], "whole")


def test_a_broken_stream_ends_no_body() -> None:
    events, end = read([UNTIL_CLOSE], eof=True, broken=True)
    assert (events[-1], end) == ((DATA, b"hello"), "IncompleteResponse")


@pytest.mark.parametrize("name", ["by length", "chunked", "closing", "HTTP/1.0"])
def test_an_early_end_is_an_incomplete_response(name: str) -> None:
    data = GOOD[name][0]
    for at in range(len(data)):
        events, end = read([data[:at]], eof=True)
        assert end == "IncompleteResponse", at
        assert all(kind != END for kind, _ in events)


MALFORMED = {
    "length and coding": R + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding and length": R + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "two lengths": R + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "two equal lengths": R + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": R + b"Content-Length: 5, 5\r\n\r\n",
    "a signed length": R + b"Content-Length: +5\r\n\r\n",
    "a negative length": R + b"Content-Length: -5\r\n\r\n",
    "a hexadecimal length": R + b"Content-Length: 0x5\r\n\r\n",
    "an empty length": R + b"Content-Length:\r\n\r\n",
    "a length of twenty digits": R + b"Content-Length: 11111111111111111111\r\n\r\n",
    "another coding": R + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": R + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "two codings": R + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked with a vertical tab": R + b"Transfer-Encoding: chunked\x0b\r\n\r\n",
    "a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded field": R + b"X: a\r\n b\r\n\r\n",
    "space before the colon": R + b"Content-Length : 5\r\n\r\n",
    "a field without a name": R + b": x\r\n\r\n",
    "a field without a colon": R + b"nonsense\r\n\r\n",
    "a name that is no token": R + b"X(: a\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    "a bare LF later": R + b"X: y\nContent-Length: 5\r\n\r\n",
    "a bare CR": R + b"X: a\rb\r\n\r\n",
    "a NUL": R + b"X: a\0b\r\n\r\n",
    "a control character": R + b"X: a\x07b\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an empty line first": b"\r\n" + GOOD["by length"][0],
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "an upgrade that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a chunk size that is none": R + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk size with a sign": R + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a chunk that does not end": R + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    "a bare LF in a chunk": R + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "a trailer that is no field": R + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length 5\r\n\r\n",
    "too many fields": R + b"X: y\r\n" * 1001 + b"\r\n",
    "a head that does not end": R + b"X: " + b"y" * 131072,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_can_be_read_in_two_ways_or_none_is_malformed(name: str) -> None:
    data = MALFORMED[name]
    events, end = read([data])
    assert end == "MalformedResponse"
    assert all(kind != END for kind, _ in events)
    pieces = [data[at : at + 4096] for at in range(0, len(data), 4096)] if len(data) > 10000 else one_by_one(data)
    assert read(pieces) == (events, end)
    assert HTTP.read_whole_response(data, b"GET") is None


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n"
SWITCHED = [(HEAD, b"101\0Switching Protocols\0Upgrade\0websocket\0Connection\0Upgrade\0X\0y\0"), (UPGRADE, b"")]


@pytest.mark.parametrize("early", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"])
@pytest.mark.parametrize("rest", [b"", b"\x81\x05hello", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_101_that_was_asked_for_is_the_last_that_is_http(early: bytes, rest: bytes) -> None:
    wire = early + SWITCH + rest
    cuts = [one_by_one(wire), [wire], *([wire[:at], wire[at:]] for at in range(1, len(wire)))]
    for pieces in cuts:
        reader = HttpReader(b"GET", upgrade=True)
        events, came = [], 0
        for piece in pieces:
            reader.feed(piece)
            while (event := reader.next_event()) is not None:
                events.append(event)
                came += 1
        reader.feed_eof()
        assert events[1 if early else 0 :] == SWITCHED
        assert (reader.take_rest(), reader.take_rest()) == (rest, b"")
        assert reader.take_body(memoryview(b"raw")) == ([], 0)


def test_who_is_asked_for_an_upgrade_may_answer_in_http() -> None:
    for name, (wire, body, flags) in GOOD.items():
        reader = HttpReader(b"GET", upgrade=True)
        reader.feed(wire)
        events = []
        while (event := reader.next_event()) is not None:
            events.append(event)
        assert (events[0][0], events[-1]) == (HEAD, (END, flags)), name
        assert b"".join(payload for kind, payload in events if kind == DATA) == body


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n",
        b"HTTP/1.1 101 Switching\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_101_is_checked_like_any_head(wire: bytes) -> None:
    for pieces in ([wire], one_by_one(wire)):
        reader = HttpReader(b"GET", upgrade=True)
        for piece in pieces:
            reader.feed(piece)
        with pytest.raises(MalformedResponse):
            reader.next_event()


def test_a_101_that_ends_too_early_is_none() -> None:
    for at in range(len(SWITCH)):
        reader = HttpReader(b"GET", upgrade=True)
        reader.feed(SWITCH[:at])
        assert reader.next_event() is None
        with pytest.raises(IncompleteResponse):
            reader.feed_eof()


def test_what_was_good_before_is_told_first() -> None:
    events, end = read([R + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n!\r\n"])
    assert (events[1:], end) == ([(DATA, b"hello")], "MalformedResponse")


def test_small_chunks_of_our_own_processes_are_no_flood() -> None:
    wire = R + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    events, end = read([wire[at : at + 1000] for at in range(0, len(wire), 1000)])
    assert (events[1], end) == ((DATA, b"x" * 20_000), "whole")


CHUNKED = R + b"Transfer-Encoding: chunked\r\n\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20),
    st.lists(st.sampled_from([b"", b"", b"", b";a=b"]), min_size=1, max_size=5),
    st.data(),
)
def test_KE7_plain_chunks_are_read_as_h11_reads_them(
    bodies: list[bytes], extensions: list[bytes], draw: st.DataObject
) -> None:
    """What is read without h11 is what h11 reads, wherever the bytes are cut."""
    wire = CHUNKED + b"".join(
        b"%x%b\r\n%b\r\n" % (len(body), extensions[number % len(extensions)], body)
        for number, body in enumerate(bodies)
    )
    wire += draw.draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n", b"0;a\r\n\r\nmore"]))
    theirs = h11.Connection(h11.CLIENT)
    theirs.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"x")]))
    theirs.send(h11.EndOfMessage())
    theirs.receive_data(wire)
    assert isinstance(theirs.next_event(), h11.Response)
    body = b""
    while isinstance(event := theirs.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    events, end = read(draw.draw(pieces_of(wire)))
    assert (events[1], end) == ((DATA, body), "whole")


@pytest.mark.parametrize("piece", [b"1\r\nx\r\n", b"1;a\r\nx\r\n", b"A\r\n0123456789\r\n"])
def test_KE7_a_call_parses_a_bounded_number_of_chunks(piece: bytes) -> None:
    reader = HttpReader(b"GET")
    reader.feed(CHUNKED + piece * 5000 + b"0\r\n\r\n")
    counts = [0]
    while reader.next_event() is not None:
        counts.append(reader.pieces)
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert max(steps) <= 2 * RUN
    if b";" not in piece:
        assert len(steps) <= 5000 // RUN + 4, "small chunks are joined"


def test_KE7_a_call_parses_one_interim_response() -> None:
    reader = HttpReader(b"GET")
    reader.feed(b"HTTP/1.1 102 Processing\r\n\r\n" * 50 + R + b"Content-Length: 0\r\n\r\n")
    for number in range(1, 51):
        assert reader.next_event() == (INTERIM, b"102\0Processing\0")
        assert reader.pieces == number * INTERIM_COST


# The plain-request parser

FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"Content-Type",
                b"X-A",
                b"Content-Length",
                b"Connection",
                b"Transfer-Encoding",
                b"Set-Cookie",
                b"bad name",
                b"",
            ]
        ),
        st.sampled_from(
            [b"a", b"", b" b ", b"0", b"2", b"chunked", b"close", b"keep-alive", b"a\x07", b"\xff", b"x\r\n y", b"1, 1"]
        ),
    ),
    max_size=4,
)


@st.composite
def near_responses(draw: st.DrawFn) -> bytes:
    line = draw(
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK",
                b"HTTP/1.0 404 Not Found",
                b"HTTP/1.1 204 ",
                b"HTTP/1.1 100 C",
                b"HTTP/1.1 304",
                b"HTTP/2 200",
            ]
        )
    )
    fields = b"".join(b"%b:%b\r\n" % field for field in draw(FIELDS))
    return line + b"\r\n" + fields + b"\r\n" + draw(st.sampled_from([b"", b"ok", b"okay", b"2\r\nok\r\n0\r\n\r\n"]))


@settings(max_examples=1000, deadline=None)
@given(data=near_responses(), method=st.sampled_from([b"GET", b"HEAD"]), draw=st.data())
def test_the_lane_says_what_the_reader_says_and_the_reader_the_same_in_pieces(
    data: bytes, method: bytes, draw: st.DataObject
) -> None:
    expected = read([data], method)
    found = HTTP.read_whole_response(data, method)
    if found is not None:
        payload, body, flags = found
        assert expected == (
            [(HEAD, payload), *([(DATA, body)] if body else []), (END, bytes([flags]) if flags else b"")],
            "whole",
        )
    events, end = read(draw.draw(pieces_of(data)), method)
    drop_flags = [(kind, b"" if kind == END else payload) for kind, payload in events]
    assert (drop_flags, end) == (
        [(kind, b"" if kind == END else payload) for kind, payload in expected[0]],
        expected[1],
    )


def test_the_lane_takes_the_usual_answer_and_leaves_the_rest() -> None:
    assert HTTP.read_whole_response(GOOD["by length"][0], b"GET") == (b"200\0OK\0Content-Length\x005\0", b"hello", 0)
    for name in ("chunked", "bytes behind the end"):
        assert HTTP.read_whole_response(GOOD[name][0], b"GET") is None


# Requests

PEER = b"REQUEST_SCHEME\0http\0SERVER_NAME\x00127.0.0.1\0SERVER_PORT\x0080\0REMOTE_ADDR\x00192.0.2.7\0REMOTE_PORT\x0040000\0"


def head(method: bytes = b"GET", target: bytes = b"/a?b", *fields: tuple[bytes, bytes], **more: object) -> Head:
    path, _, query = target.partition(b"?")
    return Head(method, target, path, query, b"1.1", b"shop.test", [(b"Host", b"shop.test"), *fields], **more)  # type: ignore[arg-type]


def request(of: Head, body: bytes = b"", *, whole: bool = True, trusted: bool = False) -> tuple[bytes, BodyEncoding]:
    return HTTP.request(of, PEER, b"", trusted, make_id_pairs(b"id-1", b""), body, whole, of.content_length)


def parsed(wire: bytes) -> tuple[h11.Request, bytes]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(wire)
    found = connection.next_event()
    assert isinstance(found, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return found, body


def test_a_request_has_what_a_proxy_adds_and_nothing_of_the_other_connection() -> None:
    wire, _ = request(
        head(
            b"GET",
            b"/a?b",
            (b"Connection", b"keep-alive, X-Secret"),
            (b"X-Secret", b"1"),
            (b"Keep-Alive", b"300"),
            (b"TE", b"trailers"),
            (b"Upgrade", b"h2c"),
            (b"Proxy", b"evil"),
            (b"X_Forwarded_For", b"evil"),
            (b"X-Forwarded-For", b"evil"),
            (b"X-Forwarded-Proto", b"https"),
            (b"X-Real-IP", b"evil"),
            (b"X-Request-Id", b"evil"),
            (b"Expect", b"100-continue"),
            (b"Accept", b"*/*"),
            (b"Cookie", b"a=b"),
        )
    )
    found, _ = parsed(wire)
    assert (found.method, found.target) == (b"GET", b"/a?b")
    assert found.headers.raw_items() == [
        (b"Host", b"shop.test"),
        (b"Accept", b"*/*"),
        (b"Cookie", b"a=b"),
        (b"X-Forwarded-For", b"192.0.2.7"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host", b"shop.test"),
        (b"X-Request-Id", b"id-1"),
    ]


def test_R19_an_upgrade_that_can_be_had_is_asked_for() -> None:
    wish = (
        (b"Connection", b"keep-alive, uPgrade, X-Mine"),
        (b"Upgrade", b"h2c, WebSocket"),
        (b"X-Mine", b"1"),
        (b"Sec-WebSocket-Key", b"k"),
        (b"Sec-WebSocket-Protocol", b"a, b"),
    )
    found, _ = parsed(request(head(b"GET", b"/", *wish, upgrade=b"websocket"))[0])
    assert [field for field in found.headers.raw_items() if not field[0].startswith(b"X-")] == [
        (b"Host", b"shop.test"),
        (b"Sec-WebSocket-Key", b"k"),
        (b"Sec-WebSocket-Protocol", b"a, b"),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
    ]
    assert b"x-mine" not in dict(found.headers)


def test_a_trusted_proxy_is_believed_and_its_list_goes_on() -> None:
    fields = (
        (b"X-Forwarded-For", b"203.0.113.9"),
        (b"x-forwarded-proto", b"https"),
        (b"X-Forwarded-Host", b"a.test"),
    )
    found, _ = parsed(request(head(b"GET", b"/", *fields), trusted=True)[0])
    values = dict(found.headers)
    assert values[b"x-forwarded-for"] == b"203.0.113.9, 192.0.2.7"
    assert values[b"x-forwarded-proto"] == b"https"
    assert values[b"x-forwarded-host"] == b"a.test"


def test_OB4_a_request_s_own_pairs_are_fields_of_their_usual_names() -> None:
    id_pairs = make_id_pairs(b"id-1", b"t=1.5") + b"HTTP_TRACEPARENT\0p\0HTTP_TRACESTATE\0a=b\0"
    wire, _ = HTTP.request(head(), PEER, b"", False, id_pairs, b"", True, None)
    assert parsed(wire)[0].headers.raw_items()[-4:] == [
        (b"X-Request-Id", b"id-1"),
        (b"X-Request-Start", b"t=1.5"),
        (b"traceparent", b"p"),
        (b"tracestate", b"a=b"),
    ]


@pytest.mark.parametrize(("target", "sent"), [(b"/a?", b"/a?"), (b"/a%2Fb", b"/a%2Fb"), (b"*", b"*")])
def test_the_target_goes_as_it_came(target: bytes, sent: bytes) -> None:
    assert parsed(request(head(b"OPTIONS", target))[0])[0].target == sent


def test_an_absolute_target_becomes_a_path() -> None:
    absolute = Head(b"GET", b"http://shop.test/a?b", b"/a", b"b", b"1.1", b"shop.test", [])
    assert parsed(request(absolute)[0])[0].target == b"/a?b"


def test_bodies_are_framed() -> None:
    wire, framing = request(head(b"POST", b"/", content_length=5), b"hello")
    assert parsed(wire)[1] == b"hello"
    assert b"Content-Length: 5\r\n" in wire
    wire, framing = request(head(b"POST", b"/", content_length=5), b"he", whole=False)
    assert parsed(wire + framing.before(3) + b"llo" + framing.after + framing.end)[1] == b"hello"
    wire, framing = request(head(b"POST", b"/", chunked=True), b"he", whole=False)
    assert b"Transfer-Encoding: chunked\r\n" in wire
    assert parsed(wire + framing.before(3) + b"llo" + framing.after + framing.piece(b"!") + framing.end)[1] == b"hello!"
    assert b"Content-Length: 0\r\n" in request(head(b"POST", b"/"))[0]
    assert b"Content-Length" not in request(head(b"GET", b"/"))[0]


def test_the_end_of_the_stream_comes_behind_what_came_and_once() -> None:
    """HO5: it is fed while events wait, and fed again."""
    reader = HttpReader(b"GET")
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    reader.feed_eof()
    reader.feed_eof()
    kinds = []
    while (event := reader.next_event()) is not None:
        kinds.append(event[0])
    assert kinds == [HEAD, DATA, END]


def test_the_end_of_the_stream_behind_a_mistake_tells_of_the_mistake() -> None:
    """HO5: what is wrong is told by ``next_event``, whatever came behind it."""
    reader = HttpReader(b"GET")
    reader.feed(R + b"Transfer-Encoding: chunked\r\n\r\n!\r\n")
    reader.feed_eof()
    assert reader.next_event() is not None
    with pytest.raises(MalformedResponse):
        reader.next_event()
