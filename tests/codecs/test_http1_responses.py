"""The writing side (R21 to R25): both writers write the same, and h11's client reads in it what was meant."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from http1_exchange import DATE, is_reusable
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.errors import InvariantBroken, RequestError, UnfitResponseHead

FIELDS = [(b"Content-Type", b"text/plain"), (b"X-A", b"b c"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")]
BOTH_PARSERS = pytest.mark.parametrize("plain_parser", [True, False])


def client_after(
    method: bytes = b"GET",
    *,
    plain_parser: bool = True,
    version: bytes = b"1.1",
    fields: bytes = b"",
    body: bytes = b"",
) -> ClientSide:
    """A connection that has read one request."""
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(b"%s / HTTP/%s\r\nHost: a\r\n%s\r\n%s" % (method, version, fields, body))
    assert client.next_head() is not None
    while client.read_body():
        pass
    return client


def read_back(data: bytes, method: bytes = b"GET", *, eof: bool = False) -> list[tuple[Any, ...]]:
    """What h11's client makes of a response; the data of a body in one piece."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if eof:
        connection.receive_data(b"")
    events: list[tuple[Any, ...]] = []
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            events.append((event.status_code, bytes(event.reason), sorted(event.headers.raw_items())))
        elif isinstance(event, h11.EndOfMessage):
            events.append(("body", body))
            keeps = connection.their_state is h11.DONE
            assert connection.trailing_data[0] == b""
            return [*events, ("keeps", keeps)]
        else:
            return [*events, ("unfinished", body)]


def write(
    client: ClientSide, status: int, fields: list[tuple[bytes, bytes]], parts: list[bytes], length: int | None
) -> bytes:
    out = [client.begin_response(status, b"Reason", fields, length=length, date=DATE)]
    for part in parts:
        out += client.response_body(part)
    out.append(client.end_response())
    return b"".join(out)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize("status", [200, 201, 204, 304, 404, 500])
@pytest.mark.parametrize("length", [None, 0, 5])
@pytest.mark.parametrize("request_fields", [b"", b"Connection: close\r\n"])
def test_R23_both_writers_write_the_same(method: bytes, status: int, length: int | None, request_fields: bytes) -> None:
    parts = [b"he", b"", b"llo"] if length != 0 else []
    sent = []
    for plain_parser in (True, False):
        client = client_after(method, plain_parser=plain_parser, fields=request_fields)
        sent.append(write(client, status, FIELDS, parts, length))
        assert is_reusable(client) is (not request_fields)
    assert sent[0] == sent[1]
    events = read_back(sent[0], method)
    bodiless = method == b"HEAD" or status in (204, 304)
    assert events[1:] == [("body", b"" if bodiless else b"".join(parts)), ("keeps", not request_fields)]
    got_status, reason, fields = events[0]
    assert (got_status, reason) == (status, b"Reason")
    framing = []
    if status != 204:  # R23: neither length nor coding; 304 and HEAD keep a length that is known
        if length is not None:
            framing.append((b"Content-Length", b"%d" % length))
        elif status != 304:
            framing.append((b"Transfer-Encoding", b"chunked"))
    if request_fields:
        framing.append((b"Connection", b"close"))
    assert fields == sorted([*FIELDS, (b"Date", DATE), (b"Server", b"passenger_trio"), *framing])


@pytest.mark.parametrize("plain_parser", [True, False])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("length", [None, 9])
def test_R23_a_small_piece_is_framed_as_any_other(
    plain_parser: bool, method: bytes, status: int, length: int | None
) -> None:
    """``response_chunk`` says the same as ``response_body``, or nothing."""
    one, other = (client_after(method, plain_parser=plain_parser) for _ in range(2))
    assert one.response_chunk(b"abc") == b"", "before the head"
    for client in (one, other):
        client.begin_response(status, b"OK", list(FIELDS), length=length, date=DATE)
    chunk = one.response_chunk(b"abc")
    assert bool(chunk) is (plain_parser and method == b"GET" and status == 200 and length is None)
    if chunk:
        assert chunk == b"".join(other.response_body(b"abc"))
    one.end_response()
    assert one.response_chunk(b"abc") == b"", "behind the end"
    one.finish_message()
    assert one.response_chunk(b"abc") == b"", "between two requests"


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
    status=st.sampled_from([200, 204, 205, 206, 304, 400, 599]),
    parts=st.lists(st.binary(max_size=40), max_size=5),
    length=st.one_of(st.none(), st.integers(0, 100), st.just(-1)),
    fields=st.lists(
        st.sampled_from([*FIELDS, (b"date", b"then"), (b"SERVER", b"us"), (b"Empty", b"")]), max_size=4, unique=True
    ),
    close=st.booleans(),
)
def test_R24_any_response(
    method: bytes, status: int, parts: list[bytes], length: int | None, fields: list[tuple[bytes, bytes]], close: bool
) -> None:
    if length == -1:
        length = sum(map(len, parts))
    outcomes = []
    for plain_parser in (True, False):
        client = client_after(method, plain_parser=plain_parser)
        out = [client.begin_response(status, b"", list(fields), length=length, date=DATE, close=close)]
        for part in parts:
            out += client.response_body(part)
        out.append(client.end_response())
        data = b"".join(out)
        head, _, body = data.partition(b"\r\n\r\n")
        outcomes.append(
            (sorted(head.split(b"\r\n")), body, is_reusable(client), client.short, client.overrun, client.must_close)
        )
        events = read_back(data, method)
        sent = b"".join(parts)[: length if length is not None else None]
        bodiless = method == b"HEAD" or status in (204, 304)
        if bodiless:
            assert events[1:] == [("body", b""), ("keeps", not close)]
        elif length is not None and len(sent) < length:
            assert events[1:] == [("unfinished", sent)]
        else:
            assert events[1:] == [("body", sent), ("keeps", not close)]
    assert outcomes[0] == outcomes[1]


@BOTH_PARSERS
def test_R24_fewer_bytes_than_declared(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser)
    data = write(client, 200, [], [b"abc"], 5)
    assert data.endswith(b"\r\n\r\nabc")
    assert client.short
    assert client.must_close
    assert not client.finish_message()


@BOTH_PARSERS
def test_R24_more_bytes_than_declared(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser)
    data = write(client, 200, [], [b"abc", b"def", b"ghi"], 5)
    assert data.endswith(b"\r\n\r\nabcde")
    assert (client.overrun, client.short, client.must_close, is_reusable(client)) == (4, False, True, False)


@BOTH_PARSERS
def test_R25_without_an_end_there_is_no_last_chunk(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser)
    data = client.begin_response(200, b"OK", [], length=None, date=DATE) + b"".join(client.response_body(b"abc"))
    assert data.endswith(b"\r\n\r\n3\r\nabc\r\n")
    assert read_back(data)[-1] == ("unfinished", b"abc")
    assert not is_reusable(client)


@BOTH_PARSERS
def test_R24_data_is_passed_through_uncopied(plain_parser: bool) -> None:
    data = bytes(1000)
    for length in (None, 1000):
        client = client_after(plain_parser=plain_parser)
        client.begin_response(200, b"OK", [], length=length, date=DATE)
        assert any(piece is data for piece in client.response_body(data))


@BOTH_PARSERS
def test_R23_whole_response_is_the_three_in_one(plain_parser: bool) -> None:
    for method, status, body, length in [
        (b"GET", 200, b"hello", None),
        (b"GET", 200, b"", None),
        (b"GET", 200, b"hello", 5),
        (b"GET", 200, b"hello", 9),
        (b"GET", 200, b"hello", 3),
        (b"HEAD", 200, b"", 1234),
        (b"HEAD", 200, b"dropped", 7),
        (b"GET", 204, b"dropped", None),
        (b"GET", 304, b"", 1234),
        (b"GET", 304, b"", None),
    ]:
        for close in (False, True):
            one, three = (
                client_after(method, plain_parser=plain_parser),
                client_after(method, plain_parser=plain_parser),
            )
            bodiless = method == b"HEAD" or status in (204, 304)
            declared = length if length is not None or bodiless else len(body)
            out = [three.begin_response(status, b"OK", FIELDS, length=declared, date=DATE, close=close)]
            out += three.response_body(body)
            out.append(three.end_response())
            whole = one.write_response(status, b"OK", FIELDS, body, date=DATE, close=close, length=length)
            assert whole == b"".join(out)
            assert (is_reusable(one), one.short, one.overrun) == (is_reusable(three), three.short, three.overrun)


@BOTH_PARSERS
def test_R23_head_keeps_the_length_that_get_would_have(plain_parser: bool) -> None:
    data = client_after(b"HEAD", plain_parser=plain_parser).write_response(200, b"OK", [], b"", date=DATE, length=1234)
    assert b"\r\nContent-Length: 1234\r\n" in data
    assert data.endswith(b"\r\n\r\n")


@BOTH_PARSERS
def test_date_and_server_of_the_application_win(plain_parser: bool) -> None:
    data = client_after(plain_parser=plain_parser).write_response(
        200, b"OK", [(b"DATE", b"then"), (b"server", b"me")], b"", date=DATE
    )
    assert data == b"HTTP/1.1 200 OK\r\nDATE: then\r\nserver: me\r\nContent-Length: 0\r\n\r\n"


@BOTH_PARSERS
def test_http_1_0(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser, version=b"1.0", fields=b"Connection: keep-alive\r\n")
    data = client.write_response(200, b"OK", [], b"hello", date=DATE)
    assert read_back(data)[1:] == [("body", b"hello"), ("keeps", False)]
    assert b"\r\nContent-Length: 5\r\nConnection: close\r\n" in data
    assert not is_reusable(client)

    client = client_after(plain_parser=plain_parser, version=b"1.0")
    data = write(client, 200, [], [b"hel", b"lo"], None)
    assert b"Transfer-Encoding" not in data
    assert b"\r\nConnection: close\r\n\r\nhello" in data
    assert read_back(data, eof=True)[1] == ("body", b"hello")
    assert not is_reusable(client)


@BOTH_PARSERS
def test_R18_an_unread_request_body_ends_the_connection(plain_parser: bool) -> None:
    for fields, body in (
        (b"Content-Length: 5\r\n", b""),
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b""),
    ):
        client = ClientSide(HttpLimits(), plain_parser=plain_parser)
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body)
        client.next_head()
        assert not client.body_complete
        data = client.write_response(200, b"OK", [], b"no", date=DATE)
        assert b"\r\nConnection: close\r\n" in data
        assert not is_reusable(client)


@BOTH_PARSERS
def test_a_body_that_is_read_while_the_response_is_written(plain_parser: bool) -> None:
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    client.next_head()
    data = client.begin_response(200, b"OK", [], length=None, date=DATE)
    assert client.read_body() == b"he"
    assert client.read_body() is None
    client.receive(b"llo")
    assert client.read_body() == b"llo"
    assert client.read_body() == b""
    data += b"".join(client.response_body(b"hello")) + client.end_response()
    assert read_back(data)[1:] == [("body", b"hello"), ("keeps", False)]
    assert not is_reusable(client), "the head has said so"


@BOTH_PARSERS
def test_close_is_the_callers_word(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser)
    assert b"\r\nConnection: close\r\n\r\n" in client.write_response(200, b"OK", [], b"", date=DATE, close=True)
    assert client.must_close


# Interim responses


@BOTH_PARSERS
def test_R21_interim_responses(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser)
    hints = client.interim(
        103,
        b"Early Hints",
        [(b"Link", b"</a.css>; rel=preload"), (b"Content-Length", b"5"), (b"Transfer-Encoding", b"x")],
    )
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    assert client.interim(102, b"Processing", []) == b"HTTP/1.1 102 Processing\r\n\r\n"
    data = hints + client.write_response(200, b"OK", [], b"x", date=DATE)
    assert [event[0] for event in read_back(data)] == [103, 200, "body", "keeps"]
    assert is_reusable(client)
    with pytest.raises(InvariantBroken):
        client.interim(103, b"", [])


@BOTH_PARSERS
def test_R20_no_interim_response_to_http_1_0(plain_parser: bool) -> None:
    assert client_after(plain_parser=plain_parser, version=b"1.0").interim(103, b"Early Hints", []) == b""


@BOTH_PARSERS
@pytest.mark.parametrize(
    ("status", "reason", "fields"),
    [
        (101, b"", []),
        (200, b"", []),
        (99, b"", []),
        (103, b"a\r\nb", []),
        (103, b"", [(b"X", b"a\r\nSet-Cookie: b")]),
        (103, b"", [(b"X", b"a\0")]),
        (103, b"", [(b"X Y", b"a")]),
        (103, b"", [(b"", b"a")]),
        (103, b"", [(b"X:", b"a")]),
    ],
)
def test_R21_interim_responses_that_are_none(
    plain_parser: bool, status: int, reason: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    client = client_after(plain_parser=plain_parser)
    with pytest.raises(UnfitResponseHead):
        client.interim(status, reason, fields)
    client.write_response(500, b"", [], b"", date=DATE)
    assert is_reusable(client), "the request can still be answered, and the connection be used"


# Error responses


def test_R26_an_error_response_without_a_head() -> None:
    client = ClientSide(HttpLimits())
    data = client.error_response(408, b"Request Timeout", [(b"Content-Type", b"text/plain")], b"late", DATE)
    status, *rest = read_back(data)
    assert status[0] == 408
    assert rest == [("body", b"late"), ("keeps", False)]
    with pytest.raises(RequestError):
        client.next_head()


@BOTH_PARSERS
def test_R26_an_error_response_after_a_refused_body(plain_parser: bool) -> None:
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    client.next_head()
    for _ in range(2):
        with pytest.raises(RequestError) as caught:
            client.read_body()
        assert caught.value.code == "bad_chunk_size"
    assert read_back(client.error_response(400, b"Bad Request", [], b"no", DATE))[1:] == [
        ("body", b"no"),
        ("keeps", False),
    ]
    assert client.error_response(400, b"Bad Request", [], b"no", DATE) == b"", "once"
    assert not is_reusable(client)


@BOTH_PARSERS
def test_R26_an_error_response_after_the_response_has_begun_is_nothing(plain_parser: bool) -> None:
    client = client_after(plain_parser=plain_parser)
    client.begin_response(200, b"OK", [], length=None, date=DATE)
    assert client.error_response(500, b"", [], b"oops", DATE) == b""


@BOTH_PARSERS
def test_R23_an_error_response_to_head_has_no_body(plain_parser: bool) -> None:
    data = client_after(b"HEAD", plain_parser=plain_parser).error_response(503, b"", [], b"sorry", DATE)
    assert data.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 5\r\n" in data


def test_R21_h11_refuses_what_nobody_has_validated() -> None:
    client = client_after(plain_parser=False)
    with pytest.raises(UnfitResponseHead):
        client.begin_response(200, b"OK", [(b"X", b"a\r\nb")], length=0, date=DATE)
    assert client.error_response(500, b"", [], b"", DATE).startswith(b"HTTP/1.1 500 ")


# Order


@BOTH_PARSERS
def test_calls_out_of_order_are_our_bug(plain_parser: bool) -> None:
    idle = ClientSide(HttpLimits(), plain_parser=plain_parser)
    for call in (idle.read_body, idle.end_response, idle.continue_bytes):
        with pytest.raises(InvariantBroken):
            call()
    assert not idle.finish_message()
    client = client_after(plain_parser=plain_parser)
    for early in (client.next_head, client.end_response):
        with pytest.raises(InvariantBroken):
            early()
    with pytest.raises(InvariantBroken):
        client.response_body(b"x")
    client.write_response(200, b"OK", [], b"", date=DATE)
    for late in (
        client.end_response,
        lambda: client.response_body(b"x"),
        lambda: client.write_response(200, b"OK", [], b"", date=DATE),
        lambda: client.begin_response(200, b"OK", [], length=None, date=DATE),
    ):
        with pytest.raises(InvariantBroken):
            late()


@BOTH_PARSERS
def test_only_who_asks_for_it_is_upgraded(plain_parser: bool) -> None:
    asks = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert (
        client_after(plain_parser=plain_parser, fields=asks)
        .switch_protocols(b"Switching Protocols", [])
        .startswith(b"HTTP/1.1 101 ")
    )
    with pytest.raises(InvariantBroken):
        client_after(plain_parser=plain_parser).switch_protocols(b"Switching Protocols", [])


@pytest.mark.parametrize(("version", "waits"), [(b"1.1", True), (b"1.0", False)])
def test_R20_the_expectation_of_a_client_without_interim_responses_is_not_heard(version: bytes, waits: bool) -> None:
    client = ClientSide(HttpLimits())
    client.receive(b"POST / HTTP/%s\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" % version)
    head = client.next_head()
    assert head is not None
    assert head.expect_continue is waits
