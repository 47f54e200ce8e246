"""Every case of the corpus: one verdict, whole or in pieces, with the plain-request parser or without."""

from __future__ import annotations

from typing import Any

import pytest
from edge_cases import CASES, Case
from http1_exchange import DATE, Exchange, exchange, is_reusable, splits, verdict

from passenger_trio.codecs import strict_request
from passenger_trio.codecs.chunked import ChunkScan
from passenger_trio.codecs.h11_message import H11Message
from passenger_trio.codecs.head import Head, HttpLimits
from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.codecs.refusals import REFUSALS
from passenger_trio.errors import RequestError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_crash_loop(case: Case) -> None:
    expected = exchange([case.data])
    assert verdict(expected) == (case.expected, case.code, case.before)
    for pieces in splits(case.data):
        for plain_parser in (True, False):
            # It reads heads. Of a long body, byte by byte, there is nothing that it could do otherwise.
            if plain_parser or len(pieces) < 10_000:
                assert exchange(pieces, plain_parser=plain_parser) == expected


def test_case_ids_are_unique_and_every_rule_has_one() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.rule for case in CASES} == {f"R{number}" for number in range(1, 21)}


def test_every_refusal_occurs_in_the_corpus() -> None:
    # These two say that our readers differ, which no bytes are known to cause; the third is told, not read; the next needs a list of methods. The others are decided
    # by time, by the table of applications, and for WebSockets only.
    beyond_bytes = {"readers_disagree", "refused_by_h11", "connection_closing", "unknown_method"}
    beyond_bytes |= {"header_timeout", "body_timeout", "no_application", "websocket_key"}
    assert {case.code for case in CASES if case.code} == set(REFUSALS) - beyond_bytes


def head_of(data: bytes, *, plain_parser: bool = True) -> Head:
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(data)
    head = client.next_head()
    assert head is not None
    return head


@pytest.mark.parametrize("plain_parser", [True, False])
class TestHead:
    def test_R3_origin_form(self, plain_parser: bool) -> None:
        data = b"GET /a%20b?c=d?e HTTP/1.1\r\nHost: x:80\r\nX-A: \t1 \r\n\r\n"
        assert head_of(data, plain_parser=plain_parser) == Head(
            method=b"GET",
            target=b"/a%20b?c=d?e",
            path=b"/a%20b",
            query=b"c=d?e",
            version=b"1.1",
            host=b"x:80",
            fields=[(b"Host", b"x:80"), (b"X-A", b"1")],
        )

    @pytest.mark.parametrize(
        ("first", "path", "query", "host"),
        [
            (b"GET http://x:80/a?b HTTP/1.1", b"/a", b"b", b"x:80"),
            (b"GET HTTPS://X:80 HTTP/1.1", b"/", b"", b"X:80"),
            (b"GET http://x?b HTTP/1.1", b"/", b"b", b"x"),
            (b"OPTIONS http://x HTTP/1.1", b"*", b"", b"x"),
            (b"OPTIONS http://x/ HTTP/1.1", b"/", b"", b"x"),
            (b"OPTIONS * HTTP/1.1", b"*", b"", b"x:80"),
            (b"GET //y/z HTTP/1.1", b"//y/z", b"", b"x:80"),
        ],
    )
    def test_R3_other_forms(self, plain_parser: bool, first: bytes, path: bytes, query: bytes, host: bytes) -> None:
        head = head_of(first + b"\r\nHost: x:80\r\n\r\n", plain_parser=plain_parser)
        assert (head.path, head.query, head.host) == (path, query, host)
        assert head.target == first.split(b" ")[1]

    def test_R3_authority_wins_in_1_0(self, plain_parser: bool) -> None:
        assert head_of(b"GET http://x/ HTTP/1.0\r\n\r\n", plain_parser=plain_parser).host == b"x"

    @pytest.mark.parametrize(
        ("fields", "keep_alive"),
        [
            (b"", True),
            (b"Connection: keep-alive\r\n", True),
            (b"Connection: Close\r\n", False),
            (b"Connection: x\r\nConnection: a, close\r\n", False),
            (b"Connection: closed\r\n", True),
        ],
    )
    def test_R18_keep_alive(self, plain_parser: bool, fields: bytes, keep_alive: bool) -> None:
        assert (
            head_of(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n", plain_parser=plain_parser).keep_alive
            is keep_alive
        )
        assert (
            head_of(b"GET / HTTP/1.0\r\nHost: x\r\n" + fields + b"\r\n", plain_parser=plain_parser).keep_alive is False
        )

    def test_R19_upgrade(self, plain_parser: bool) -> None:
        ask = b"Connection: upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
        start = b"%s / HTTP/%s\r\nHost: x\r\n"
        assert head_of(start % (b"GET", b"1.1") + ask % b"WebSocket", plain_parser=plain_parser).upgrade == b"websocket"
        assert head_of(start % (b"GET", b"1.1") + ask % b"h2c", plain_parser=plain_parser).upgrade == b""
        assert head_of(start % (b"POST", b"1.1") + ask % b"websocket", plain_parser=plain_parser).upgrade == b""
        assert head_of(start % (b"GET", b"1.0") + ask % b"websocket", plain_parser=plain_parser).upgrade == b""

    def test_R19_bytes_after_the_handshake_are_held(self, plain_parser: bool) -> None:
        client = ClientSide(HttpLimits(), plain_parser=plain_parser)
        client.receive(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x00"
        )
        head = client.next_head()
        assert head is not None
        assert head.upgrade == b"websocket"
        assert client.read_body() == b""
        assert client.buffered == 2

    def test_R13_body(self, plain_parser: bool) -> None:
        start = b"POST / HTTP/1.1\r\nHost: x\r\n"
        assert not head_of(start + b"\r\n", plain_parser=plain_parser).has_body
        assert not head_of(start + b"Content-Length: 0\r\n\r\n", plain_parser=plain_parser).has_body
        five = head_of(start + b"Content-Length: 05\r\n\r\n", plain_parser=plain_parser)
        assert (five.has_body, five.content_length, five.chunked) == (True, 5, False)
        chunked = head_of(start + b"Transfer-Encoding: Chunked\r\n\r\n", plain_parser=plain_parser)
        assert (chunked.has_body, chunked.content_length, chunked.chunked) == (True, None, True)


def test_R26_a_refusal_never_repeats_the_clients_bytes() -> None:
    for case in CASES:
        if case.expected == "accept":
            continue
        run = Exchange()
        run.feed(case.data)
        run.feed(b"")
        assert run.sent.count(b"HTTP/1.1 ") == case.before + 1
        answer = run.sent[run.sent.rindex(b"HTTP/1.1 ") :]
        assert answer.startswith(b"HTTP/1.1 %d " % case.expected)
        assert b"\r\nConnection: close" in answer
        for word in (b"smuggled", b"evil", b"X-Nothing"):
            assert word not in answer


def test_R18_nothing_is_read_after_a_refusal() -> None:
    client = ClientSide(HttpLimits())
    client.receive(b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in range(2):
        with pytest.raises(RequestError) as caught:
            client.next_head()
        assert caught.value.code == "bare_lf"
        client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.buffered == 0
    assert client.must_close
    assert not client.mid_head


@pytest.mark.parametrize("plain_parser", [True, False])
def test_R18_a_body_that_was_refused_stays_refused(plain_parser: bool) -> None:
    """HO5: what came behind the mistake is read as nothing else, and the connection is not used again."""
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n!\r\n")
    assert client.next_head() is not None
    for _ in range(2):
        with pytest.raises(RequestError) as caught:
            client.read_body()
        assert caught.value.code == "bad_chunk_size"
        client.receive(b"0\r\n\r\n")
        assert client.buffered == 0
    assert client.raw_body_left == 0
    client.write_response(400, b"Bad Request", [], b"", date=DATE)
    assert not client.finish_message()


def test_R18_nothing_is_kept_behind_a_last_message() -> None:
    client = ClientSide(HttpLimits())
    client.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /")
    assert client.next_head() is not None
    assert client.buffered == 0
    client.receive(b"x" * 1000)
    assert client.buffered == 0
    client.write_response(200, b"OK", [], b"", date=DATE)
    assert not is_reusable(client)


def test_R19_a_refused_version_names_the_one_that_is_spoken() -> None:
    client = ClientSide(HttpLimits())
    client.receive(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n"
    )
    with pytest.raises(RequestError) as caught:
        client.next_head()
    answer = client.error_response(426, b"Upgrade Required", list(caught.value.headers), b"", DATE)
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert b"\r\nConnection: close, upgrade\r\n" in answer


def test_R8_limits_are_the_options() -> None:
    limits = HttpLimits(
        max_request_line=20, max_header_size=50, max_header_field_size=30, max_header_fields=2, max_request_body=3
    )
    start = b"GET / HTTP/1.1\r\nHost: a\r\n"
    for plain_parser in (True, False):
        for data, code in (
            (b"GET /aaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n", "request_line_too_long"),
            (start + b"X: y\r\nY: z\r\n\r\n", "too_many_fields"),
            (start + b"X: " + b"y" * 28 + b"\r\n\r\n", "field_too_large"),
            (start[:-2] + b"b" * 20 + b"\r\nX: " + b"y" * 25 + b"\r\n\r\n", "headers_too_large"),
            (start + b"Content-Length: 4\r\n\r\nabcd", "body_too_large"),
        ):
            assert verdict(exchange([data], plain_parser=plain_parser, limits=limits))[1] == code
        assert (
            verdict(exchange([start + b"Content-Length: 3\r\n\r\nabc"], plain_parser=plain_parser, limits=limits))[0]
            == "accept"
        )


def test_R13_no_limit_of_the_body() -> None:
    limits = HttpLimits(max_request_body=0)
    for plain_parser in (True, False):
        client = ClientSide(limits, plain_parser=plain_parser)
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nabc")
        head = client.next_head()
        assert head is not None
        assert head.content_length == 2**63 - 1
        assert client.read_body() == b"abc"


@pytest.mark.parametrize("plain_parser", [True, False])
def test_R20_continue(plain_parser: bool) -> None:
    def client_with(data: bytes) -> ClientSide:
        client = ClientSide(HttpLimits(), plain_parser=plain_parser)
        client.receive(data)
        assert client.next_head() is not None
        return client

    expects = b"POST / HTTP/%s\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    client = client_with(expects % b"1.1")
    assert client.continue_bytes() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.continue_bytes() == b"", "once only"
    client.receive(b"hi")
    assert client.read_body() == b"hi"
    client.write_response(200, b"OK", [], b"", date=DATE)
    assert is_reusable(client)
    assert client_with(expects % b"1.0").continue_bytes() == b""
    assert client_with(expects % b"1.1" + b"h").continue_bytes() == b"", "it does not wait"
    assert client_with(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").continue_bytes() == b"", "no body"
    answered = client_with(expects % b"1.1")
    assert b"Connection: close" in answered.write_response(403, b"Forbidden", [], b"", date=DATE)
    assert answered.continue_bytes() == b"", "the final response takes its place"


@pytest.mark.parametrize("plain_parser", [True, False])
def test_R31_pipelined_bytes_are_counted_and_kept(plain_parser: bool) -> None:
    run = Exchange(plain_parser=plain_parser)
    client = run.client
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    client.receive(request)
    assert client.mid_head
    assert client.next_head() is not None
    assert not client.mid_head
    for at in range(len(request)):
        client.receive(request[at : at + 1])
    assert client.buffered == len(request)
    client.write_response(200, b"OK", [], b"", date=DATE)
    assert client.finish_message()
    assert client.mid_head
    assert client.buffered == len(request)
    assert client.next_head() is not None
    assert client.buffered == 0


def test_R27_mid_head_from_the_first_byte_to_the_last() -> None:
    client = ClientSide(HttpLimits())
    assert not client.mid_head
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for at in range(len(request)):
        client.receive(request[at : at + 1])
        assert client.mid_head
        assert (client.next_head() is not None) == (at == len(request) - 1)
    assert not client.mid_head


def test_R1_a_skipped_crlf_leaves_the_connection_idle() -> None:
    client = ClientSide(HttpLimits())
    client.receive(b"\r\n")
    assert client.next_head() is None
    assert not client.mid_head


@pytest.mark.parametrize("plain_parser", [True, False])
def test_R28_end_of_file_behind_a_request_is_no_abort(plain_parser: bool) -> None:
    client = ClientSide(HttpLimits(), plain_parser=plain_parser)
    client.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    client.receive(b"")
    for _ in range(2):
        assert client.next_head() is not None
        assert client.peer_closed
        client.write_response(200, b"OK", [], b"", date=DATE)
        assert is_reusable(client)
        assert client.finish_message()
    assert client.next_head() is None


# The two readers


def test_readers_that_disagree_on_a_head_are_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    check = strict_request.check_head

    def misread(*arguments: Any) -> Head:
        head = check(*arguments)
        head.fields = [(name, value + b"?") for name, value in head.fields]
        return head

    monkeypatch.setattr(strict_request, "check_head", misread)
    assert verdict(exchange([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], plain_parser=False)) == (400, "readers_disagree", 0)


@pytest.mark.parametrize("surplus", [-1, 1])
def test_readers_that_disagree_on_a_body_are_a_refusal(monkeypatch: pytest.MonkeyPatch, surplus: int) -> None:
    scan = ChunkScan.scan

    def miscount(self: ChunkScan, data: bytes) -> int:
        good = scan(self, data)
        self.total += surplus
        return good

    monkeypatch.setattr(ChunkScan, "scan", miscount)
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert verdict(exchange([data])) == (400, "readers_disagree", 0)


def test_what_h11_alone_refuses_is_a_refusal() -> None:
    head = Head(b"GET", b"/", b"/", b"", b"1.1", b"a", [(b"Host", b"a")])
    for raw, code in (
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "refused_by_h11"),
        (b"GET / HTTP/1.1\r\n", "readers_disagree"),
    ):
        with pytest.raises(RequestError) as caught:
            H11Message(head, raw, HttpLimits())
        assert caught.value.code == code


# Fault 26 (ED13): what the RFCs allow


@pytest.mark.parametrize("plain_parser", [True, False])
class TestED13:
    """Fault 26: each form as its RFC has it. Whole, byte by byte and split: the corpus (``test_crash_loop``), which has each of them."""

    def test_fault_26_trailers_are_dropped(self, plain_parser: bool) -> None:
        data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-MD5: x\r\nX-User: y\r\n\r\n"
        for pieces in splits(data):
            events = exchange(pieces, plain_parser=plain_parser)
            assert events[0][1].fields == [(b"Host", b"a"), (b"Transfer-Encoding", b"chunked")]
            assert events[1:] == [("body", b"hello"), ("end",)]

    @pytest.mark.parametrize(
        ("first", "host"),
        [
            (b"GET http://other.example/x HTTP/1.1", b"other.example"),
            (b"GET http://other.example:81/x HTTP/1.1", b"other.example:81"),
            (b"OPTIONS http://other.example HTTP/1.1", b"other.example"),
        ],
    )
    def test_fault_26_the_authority_of_the_target_wins_over_host(
        self, plain_parser: bool, first: bytes, host: bytes
    ) -> None:
        data = first + b"\r\nHost: evil.example\r\n\r\n"
        for pieces in splits(data):
            assert exchange(pieces, plain_parser=plain_parser)[0][1].host == host

    def test_fault_26_a_later_minor_version_is_served_as_1_1(self, plain_parser: bool) -> None:
        for pieces in splits(b"GET / HTTP/1.7\r\nHost: a\r\n\r\n"):
            run = Exchange(plain_parser=plain_parser)
            for piece in pieces:
                run.feed(piece)
            assert run.events[0][1].version == b"1.1"
            assert run.events[0][1].keep_alive
            assert run.sent.startswith(b"HTTP/1.1 200 OK\r\n")

    def test_fault_26_white_space_in_front_of_extensions_is_nothing(self, plain_parser: bool) -> None:
        start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for pieces in splits(start + b'5 ;a = b\r\nhello\r\n3\t;\tc="d ;"\r\nabc\r\n0 ; e\r\n\r\n'):
            assert exchange(pieces, plain_parser=plain_parser)[1:] == [("body", b"helloabc"), ("end",)]

    def test_fault_26_an_empty_host_is_none(self, plain_parser: bool) -> None:
        for pieces in splits(b"GET /x HTTP/1.1\r\nHost:\r\n\r\n"):
            assert exchange(pieces, plain_parser=plain_parser)[0][1].host == b""

    @pytest.mark.parametrize("method", [b"GET", b"BREW", b"get"])
    def test_fault_26_a_list_of_methods_is_an_option(self, plain_parser: bool, method: bytes) -> None:
        limits = HttpLimits(methods=frozenset((b"GET", b"HEAD")))
        for pieces in splits(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"):
            expected = ("accept", "", 1) if method == b"GET" else (501, "unknown_method", 0)
            assert verdict(exchange(pieces, plain_parser=plain_parser, limits=limits)) == expected
            assert verdict(exchange(pieces, plain_parser=plain_parser)) == ("accept", "", 1)

    @pytest.mark.parametrize(
        "data",
        [
            b"HEAD / HTTP/1.1\r\n\r\n",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            b"HEAD / HTTP/2.0\r\n\r\n",
            b"HEAD /" + b"a" * 9000,
            b"HEAD / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 17000,
            b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n",
            b"\r\nHEAD / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\n\r\n",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HEAD / HTTP/1.1\r\nHost: a",
        ],
    )
    def test_fault_26_a_refused_head_gets_no_body(self, plain_parser: bool, data: bytes) -> None:
        """RFC 9110 9.3.2: whatever is wrong with it, as far as it has come."""
        for pieces in splits(data):
            refusal = self._refusal(pieces, plain_parser)
            assert refusal.endswith(b"\r\n\r\n")
            assert b"\r\nContent-Length: 8\r\n" in refusal

    @pytest.mark.parametrize(
        "data", [b"GET / HTTP/1.1\r\n\r\n", b"HEADER / HTTP/1.1\r\n\r\n", b"HEA\n", b"head / HTTP/2.0\r\n\r\n"]
    )
    def test_fault_26_and_no_other_method_goes_without(self, plain_parser: bool, data: bytes) -> None:
        for pieces in splits(data):
            assert self._refusal(pieces, plain_parser).endswith(b"\r\n\r\nthe body")

    def test_fault_26_a_head_that_comes_too_late_gets_no_body(self, plain_parser: bool) -> None:
        """The 408 of a head that has not come whole: nothing was wrong with it."""
        client = ClientSide(HttpLimits(), plain_parser=plain_parser)
        client.receive(b"HEAD / HTTP/1.1\r\nHost: ")
        assert client.next_head() is None
        assert client.error_response(408, b"No", [], b"the body", DATE).endswith(b"\r\n\r\n")

    @staticmethod
    def _refusal(pieces: list[bytes], plain_parser: bool) -> bytes:
        run = Exchange(plain_parser=plain_parser, page=b"the body")
        for piece in (*pieces, b""):
            run.feed(piece)
        assert run.events[-1][0] == "refused"
        return run.sent[run.sent.rindex(b"HTTP/1.1 ") :]
