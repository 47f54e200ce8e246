"""The response of an application, written by the plain-request path: what the general writer makes, but for the order of its last two fields (R22 to R25)."""

from __future__ import annotations

import itertools

import pytest
from http1_exchange import DATE

from passenger_trio.codecs import response_lines
from passenger_trio.codecs.h11_message import H11Message
from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.codecs.plain_message import PlainMessage
from passenger_trio.codecs.response_head import AppHead
from passenger_trio.codecs.response_lines import status_line, with_standard_fields
from passenger_trio.errors import RequestError, UnfitResponseHead

PLAIN = AppHead(200, b"OK", [(b"X-A", b"b")])
HEADS = (
    PLAIN,
    AppHead(201, b"", []),
    AppHead(200, b"OK", [(b"X-A", b"b")], content_length=3),
    AppHead(200, b"OK", [(b"X-A", b"b")], content_length=4),
    AppHead(200, b"OK", [(b"date", b"today")], has_date=True),
    AppHead(200, b"OK", [(b"Server", b"mine")], has_server=True),
    AppHead(204, b"No Content", [(b"X-A", b"b")]),
    AppHead(304, b"Not Modified", []),
)


def client_with(request: bytes, plain_parser: bool) -> ClientSide:
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(request)
    assert client.next_head() is not None
    assert type(client._message) is (PlainMessage if plain_parser else H11Message)
    return client


def answers(request: bytes, head: AppHead, body: bytes, close: bool, plain_parser: bool) -> list[object]:
    """What is written twice (the second time from what is known), and whether the connection lives on."""
    client = client_with(request, plain_parser)
    seen: list[object] = []
    for _ in range(2):
        while client.read_body():
            pass
        try:
            lines, _, content = client.write_app_response(head, body, date=DATE, close=close).partition(b"\r\n\r\n")
            seen += (sorted(lines.split(b"\r\n")), content)
        except UnfitResponseHead as error:
            return [*seen, type(error)]
        lives_on = client.finish_message()
        seen.append(lives_on)
        if not lives_on:
            break
        client.receive(request)
        assert client.next_head() is not None
    return seen


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("head", HEADS)
def test_an_answer_does_not_show_who_has_read_the_request(method: bytes, field: bytes, head: AppHead) -> None:
    request = method + b" / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n"
    for body, close in itertools.product((b"", b"abc"), (False, True)):
        assert answers(request, head, body, close, True) == answers(request, head, body, close, False)


def test_an_answer_before_the_end_of_the_request() -> None:
    """R18: what is left of the body is not read as a request, so the connection ends."""
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"
    written = []
    for plain_parser in (True, False):
        client = client_with(request, plain_parser)
        written.append(client.write_app_response(PLAIN, b"abc", date=DATE))
        assert not client.finish_message()
    assert written[0] == written[1] != b""
    assert b"\r\nConnection: close\r\n" in written[0]


def test_the_lines_of_a_head_are_made_once() -> None:
    head = AppHead(200, b"OK", [(b"X-A", b"b")])
    client = client_with(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True)
    assert client.write_app_response(head, b"abc", date=DATE) == (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nDate: " + DATE + b"\r\nServer: passenger_trio\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert head.lines == b"HTTP/1.1 200 OK\r\nX-A: b\r\nDate: "


def test_a_body_that_the_caller_takes_itself() -> None:
    client = client_with(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", True)
    assert client.raw_body_left == 0, "what is here comes first"
    assert client.read_body() == b"ab"
    assert client.raw_body_left == 3
    client.skip_body(2)
    assert client.raw_body_left == 1
    assert not client.body_complete
    client.skip_body(1)
    assert client.read_body() == b""
    assert client.body_complete


def test_lines_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_lines, "_STATUS_LINES", known := {})
    monkeypatch.setattr(response_lines, "_MOST_KNOWN", 3)
    for number in range(10):
        assert status_line(200, b"%d" % number) == b"HTTP/1.1 200 %d" % number
        assert 0 < len(known) <= 3
    long = b"x" * 65
    assert status_line(200, long) == b"HTTP/1.1 200 " + long
    assert (200, long) not in known
    assert status_line(200, long[1:]) == b"HTTP/1.1 200 " + long[1:]
    assert (200, long[1:]) in known


def test_names_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_lines, "_FLAGS", known := response_lines._Flags())
    monkeypatch.setattr(response_lines, "_MOST_KNOWN", 3)
    for number in range(10):
        with_standard_fields([(b"X-%d" % number, b"")], DATE)
        assert 0 < len(known) <= 3
    with_standard_fields([(b"x" * 65, b"")], DATE)
    assert b"x" * 65 not in known


@pytest.mark.parametrize("name", [b"Date", b"DATE", b"date"])
def test_what_the_application_has_set_stays(name: bytes) -> None:
    assert with_standard_fields([(name, b"x")], DATE) == [(name, b"x"), (b"Server", b"passenger_trio")]
    assert with_standard_fields([(b"SERVER", b"x")], DATE) == [(b"SERVER", b"x"), (b"Date", DATE)]
    assert with_standard_fields([], DATE) == [(b"Date", DATE), (b"Server", b"passenger_trio")]


@pytest.mark.parametrize("plain_parser", [True, False])
def test_a_bare_cr_is_refused_as_soon_as_the_next_byte_is_here(plain_parser: bool) -> None:
    """R1: an empty line may come first, and nothing else that begins like one."""
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(b"\r")
    assert client.next_head() is None
    client.receive(b"G")
    with pytest.raises(RequestError) as told:
        client.next_head()
    assert told.value.status == 400


@pytest.mark.parametrize("plain_parser", [True, False])
def test_nothing_is_asked_behind_a_response(plain_parser: bool) -> None:
    """Fault 29: also where its body came in chunks, whose end has been sent."""
    client = client_with(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", plain_parser)
    client.write_app_response(PLAIN, b"abc", date=DATE)
    assert client.probe() == b""
