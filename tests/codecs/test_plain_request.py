"""The recogniser by itself: what it takes, what it leaves, what it costs and what it remembers."""

from __future__ import annotations

import re
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs import lines, plain_request, response_head, strict_request
from passenger_trio.codecs.cgi_fields import cgi_pairs
from passenger_trio.codecs.head import Head, HeaderCache, HttpLimits
from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.codecs.lines import LineScan
from passenger_trio.codecs.plain_message import PlainMessage
from passenger_trio.codecs.plain_request import parse_plain_request
from passenger_trio.codecs.strict_request import HeadScan

LIMITS = HttpLimits()
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_plain_request() -> None:
    data = b"POST /x/y%20z?q=1 HTTP/1.1\r\nhost: a:80\r\nX-A:  b \t\r\nContent-Length: 3\r\nConnection: Close\r\n\r\nabcGET"
    assert parse_plain_request(data, LIMITS) == (
        Head(
            b"POST",
            b"/x/y%20z?q=1",
            b"/x/y%20z",
            b"q=1",
            b"1.1",
            b"a:80",
            [(b"host", b"a:80"), (b"X-A", b"b"), (b"Content-Length", b"3"), (b"Connection", b"Close")],
            content_length=3,
            keep_alive=False,
        ),
        len(data) - 6,
    )


@pytest.mark.parametrize(
    "field",
    [
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: x",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"TE: trailers",
        b"Trailer: X",
        b"Connection: upgrade",
        b"Connection: close, keep-alive",
        b"Connection:",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: 134217729",
        b"Host: b",
        b"X : y",
        b" X: y",
        b"X\xe9: y",
        b"X: \x01",
        b"X: \x7f",
        b"X: a\rb",
        b"X: a\nb",
        b": y",
        b"X",
    ],
)
def test_what_it_leaves(field: bytes) -> None:
    for _ in range(2):
        assert parse_plain_request(GET[:-2] + field + b"\r\n\r\n", LIMITS) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        GET[:-1],
        GET[:-2],
        b"\r\n" + GET,
        GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GET.replace(b"GET", b"TRACE"),
        GET.replace(b"GET", b"get"),
        GET.replace(b" / ", b" * "),
        GET.replace(b" / ", b" http://a/ "),
        GET.replace(b" / ", b" /#x "),
        GET.replace(b" / ", b" /\xe9 "),
        GET.replace(b" / ", b"  / "),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"Host: a", b"Host:"),
        GET.replace(b"Host: a", b"Host: a/b"),
        b"GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    ],
)
def test_what_it_leaves_whole(data: bytes) -> None:
    assert parse_plain_request(data, LIMITS) is None


def test_singletons_twice() -> None:
    for name in strict_request.SINGLETONS:
        line = name + b": 1\r\n"
        assert (
            parse_plain_request(
                b"GET / HTTP/1.1\r\n" + (b"" if name == b"host" else b"Host: a\r\n") + line * 2 + b"\r\n", LIMITS
            )
            is None
        )
    assert parse_plain_request(GET[:-2] + b"Connection: close\r\nConnection: close\r\n\r\n", LIMITS) is None


def test_the_limits() -> None:
    assert parse_plain_request(GET, HttpLimits(max_request_line=len(GET))) is not None
    for name in ("max_request_line", "max_header_size", "max_header_field_size"):
        assert parse_plain_request(GET, HttpLimits(**{name: len(GET) - 1})) is None
    two = GET[:-2] + b"X: y\r\n\r\n"
    assert parse_plain_request(two, HttpLimits(max_header_fields=2)) is not None
    assert parse_plain_request(two, HttpLimits(max_header_fields=1)) is None
    body = GET[:-2] + b"Content-Length: 9\r\n\r\n"
    assert parse_plain_request(body, HttpLimits(max_request_body=9)) is not None
    assert parse_plain_request(body, HttpLimits(max_request_body=8)) is None
    assert parse_plain_request(body, HttpLimits(max_request_body=0)) is not None


def test_its_memory_is_bounded_and_keeps_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[bytes, Any] = {}
    monkeypatch.setattr(plain_request, "_KNOWN_LINES", known)
    monkeypatch.setattr(plain_request, "_MOST_KNOWN_LINES", 10)
    for number in range(100):
        data = GET[:-2] + b"X: %d\r\nCookie: secret=%d\r\nAuthorization: secret%d\r\n\r\n" % (number, number, number)
        found = parse_plain_request(data, LIMITS)
        assert found is not None
        assert found[0].fields[1] == (b"X", b"%d" % number)
        assert len(known) <= 10
        assert not any(b"secret" in line for line in known)
    parse_plain_request(GET[:-2] + b"Long: " + b"x" * 300 + b"\r\n\r\n", LIMITS)
    assert all(len(line) < 256 for line in known)


def test_remembered_heads_do_not_share_a_list() -> None:
    first, second = parse_plain_request(GET, LIMITS), parse_plain_request(GET, LIMITS)
    assert first is not None
    assert second is not None
    first[0].fields.append((b"X", b"y"))
    assert second[0].fields == [(b"Host", b"a")]


def test_which_reader_a_head_gets() -> None:
    def reader(*pieces: bytes, plain_parser: bool = True) -> type:
        client = ClientSide(LIMITS, plain_parser=plain_parser)
        for piece in pieces:
            client.receive(piece)
            client.next_head()
        return type(client._message)

    assert reader(GET) is PlainMessage
    assert reader(b"\r\n" + GET) is PlainMessage
    assert reader(GET[:9], GET[9:]) is PlainMessage
    assert reader(*(GET[at : at + 1] for at in range(len(GET)))) is PlainMessage
    assert reader(GET, plain_parser=False) is not PlainMessage
    assert reader(GET.replace(b"1.1", b"1.0")) is not PlainMessage


def test_an_idle_connection_holds_nothing_but_the_field_lines_of_its_last_plain_request() -> None:
    for data in (GET, GET.replace(b"GET", b"TRACE")):
        client = ClientSide(LIMITS)
        held = [name for name in ClientSide.__slots__ if name != "_header_cache"]
        before = [getattr(client, name) for name in held]
        client.receive(data)
        client.next_head()
        client.write_response(200, b"OK", [], b"x", date=b"now")
        assert client.finish_message()
        assert [getattr(client, name) for name in held] == before
        assert client._header_cache is None or client._header_cache.raw == data.partition(b"\r\n")[2]
        assert not hasattr(client, "__dict__")


# Linear time


def test_each_byte_of_a_head_is_looked_at_once() -> None:
    data = b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n"
    scan = HeadScan(LIMITS)
    for at in range(len(data) - 1):
        assert not scan.feed(data[at : at + 1])
        # All that came was seen, but for a CR that waits for its LF.
        assert scan._lines.seen >= at
    assert scan.feed(data[-1:])


def test_the_lane_is_asked_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counting(data: bytes, limits: HttpLimits, last: HeaderCache | None = None) -> tuple[Head, int] | None:
        nonlocal asked
        asked += 1
        return parse_plain_request(data, limits, last)

    monkeypatch.setattr("passenger_trio.codecs.http1.parse_plain_request", counting)
    client = ClientSide(LIMITS)
    for at in range(len(GET)):
        client.receive(GET[at : at + 1])
        client.next_head()
    assert asked == 2


def unbounded_repeats(pattern: re.Pattern[bytes]) -> list[str]:
    """The kinds of the repeats without an upper bound in a compiled expression."""
    kinds: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, _parser.SubPattern):
            for operation, argument in node:
                if (
                    str(operation) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
                    and argument[1] == _parser.MAXREPEAT
                ):
                    kinds.append(str(operation))
                walk(argument)
        elif isinstance(node, list | tuple):
            for item in node:
                walk(item)

    walk(_parser.parse(pattern.pattern, pattern.flags))
    return kinds


@pytest.mark.parametrize(
    "pattern",
    [
        plain_request._REQUEST_LINE,
        plain_request._FIELD_LINE,
        plain_request._LENGTH,
        response_head._RESPONSE,
        response_head._INTERIM,
        strict_request._LENGTH,
    ],
)
def test_expressions_on_the_hot_way_cannot_backtrack(pattern: re.Pattern[bytes]) -> None:
    assert set(unbounded_repeats(pattern)) <= {"POSSESSIVE_REPEAT"}


def test_the_walker_sees_a_repeat_that_backtracks() -> None:
    assert unbounded_repeats(re.compile(rb"(a+)+")) == ["MAX_REPEAT", "MAX_REPEAT"]


@pytest.mark.parametrize("pattern", [lines.TOKEN, lines._CONTROL, strict_request._TARGET])
def test_other_expressions_are_one_class(pattern: re.Pattern[bytes]) -> None:
    assert len(_parser.parse(pattern.pattern)) == 1


def test_a_line_is_cut_in_linear_steps() -> None:
    scan = LineScan()
    scan.feed(b"a\r\n" * 1000)
    for _ in range(1000):
        assert scan.next_line(10, "field_too_large") == b"a"
    assert scan.seen == scan.start == 3000


@given(st.lists(st.sampled_from([b"/", b"/a?b", b"/c"]), min_size=1, max_size=4), st.data())
def test_lines_in_common_change_nothing(targets: list[bytes], data: st.DataObject) -> None:
    """What the plain-request parser makes of a head is the same whatever head came before it on the connection."""
    blocks = [
        b"Host: a\r\n\r\n",
        b"Host: a\r\nCookie: b=c\r\n\r\n",
        b"Host: a\r\nCookie: b=c\r\nConnection: close\r\n\r\n",
        b"Host: a\r\nX-Request-Id: mine\r\n\r\n",
        b"Host: a\r\nContent-Length: 3\r\n\r\n",
        b"Host: ab\r\n\r\n",
    ]
    last = None
    trusted = data.draw(st.booleans())
    for target in targets:
        block = data.draw(st.sampled_from(blocks))
        raw = b"GET " + target + b" HTTP/1.1\r\n" + block
        limits = HttpLimits(max_header_size=data.draw(st.sampled_from([len(raw) - 1, len(raw), 8192])))
        alone, found = parse_plain_request(raw + b"rest", limits), parse_plain_request(raw + b"rest", limits, last)
        assert alone == found
        if found is not None and alone is not None:
            assert cgi_pairs(alone[0], b"", b"", trusted, b"id") == cgi_pairs(found[0], b"", b"", trusted, b"id")
            last = found[0].header_cache
