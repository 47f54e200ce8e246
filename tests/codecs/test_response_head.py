"""The application's word, checked: R21, R22, R24."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.codecs import response_head
from passenger_trio.codecs.response_head import (
    AppHead,
    check_fields,
    parse_interim,
    parse_response_head,
    parse_switch,
    parse_trailers,
)
from passenger_trio.errors import AppResponseError, MalformedResponse, UnfitResponseHead


def payload(*parts: bytes, status: bytes = b"200", reason: bytes = b"OK") -> bytes:
    return b"".join(part + b"\0" for part in (status, reason, *parts))


def test_a_plain_head() -> None:
    data = payload(
        b"Content-Type", b"text/plain", b"content-length", b"012", b"Set-Cookie", b"a=b", b"Set-Cookie", b"c=d"
    )
    assert parse_response_head(data) == AppHead(
        200,
        b"OK",
        [(b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")],
        content_length=12,
    )
    assert parse_response_head(payload()) == AppHead(200, b"OK", [])
    assert parse_response_head(payload(reason=b"")) == AppHead(200, b"", [])
    assert parse_response_head(payload(b"X", b" \ta\tb \t", b"Y", b"", b"Z", b"caf\xe9")).fields == [
        (b"X", b"a\tb"),
        (b"Y", b""),
        (b"Z", b"caf\xe9"),
    ]


def test_date_and_server_are_noticed() -> None:
    head = parse_response_head(payload(b"DATE", b"x", b"server", b"y"))
    assert (head.has_date, head.has_server) == (True, True)
    assert head.fields == [(b"DATE", b"x"), (b"server", b"y")]
    head = parse_response_head(payload(b"Date", b"x", b"Connection", b"date"))
    assert (head.has_date, head.fields) == (False, [])
    head = parse_response_head(payload(b"Connection", b"x"))
    assert (head.has_date, head.has_server) == (False, False)


@pytest.mark.parametrize("status", [b"200", b"204", b"304", b"404", b"599"])
def test_R21_statuses(status: bytes) -> None:
    assert parse_response_head(payload(status=status)).status == int(status)


def code_of(data: bytes) -> str:
    """The application's fault is told from the loader's: bytes that are no pairs."""
    with pytest.raises(AppResponseError) as caught:
        parse_response_head(data)
    assert type(caught.value) is (MalformedResponse if caught.value.code == "bad_pairs" else UnfitResponseHead)
    return caught.value.code


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"100", b"101", b"103", b"199", b"600", b"999", b"000", b"2x0", b"-20", b"+20",
                                    b"\xb2\xb2\xb2", b" 200", b"200 "])  # fmt: skip
def test_R21_statuses_that_are_none(status: bytes) -> None:
    assert code_of(payload(status=status)) == "bad_status"


@pytest.mark.parametrize(
    "name", [b"", b"X Y", b"X:", b"X\r\nY", b"X\n", b"X\r", b"X\xe9", b"X\x00"[:1] + b"(", b"\tX", b"X\x7f"]
)
def test_R21_names_that_are_none(name: bytes) -> None:
    assert code_of(payload(b"Good", b"x", name, b"value")) == "bad_field_name"
    assert code_of(payload(name, b"value", b"Good", b"x")) == "bad_field_name"


@pytest.mark.parametrize("byte", [*range(1, 9), *range(10, 32), 127])
def test_R21_control_characters_in_values(byte: int) -> None:
    for value in (bytes([byte]), b"a" + bytes([byte]), bytes([byte]) + b"a", b"a\r\n" + bytes([byte])):
        assert code_of(payload(b"X", value)) == "bad_field_value"
    assert code_of(payload(reason=b"a" + bytes([byte]))) == "bad_reason"


def test_R21_folded_values_and_split_responses() -> None:
    for value in (b"a\r\n b", b"a\n\tb", b"a\r\n\r\nHTTP/1.1 200 OK", b"a\r\nSet-Cookie: b", b"a\rb"):
        assert code_of(payload(b"X", value)) == "bad_field_value"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"200",
        b"200\0",
        b"200\0OK",
        b"200\0OK\0X",
        b"200\0OK\0X\0",
        b"200\0OK\0X\0y",
        b"200\0OK\0X\0y\0Z\0",
        b"200\0OK\0\0",
    ],
)
def test_R21_payloads_that_are_no_pairs(data: bytes) -> None:
    assert code_of(data) == "bad_pairs"


def test_R21_the_error_names_the_field_and_shows_no_value() -> None:
    with pytest.raises(UnfitResponseHead, match="X-Thing") as caught:
        parse_response_head(payload(b"X-Thing", b"secret\r\nvalue"))
    assert "secret" not in str(caught.value)
    with pytest.raises(UnfitResponseHead) as caught:
        parse_response_head(payload(b"X\r\n\x1b[31m", b"secret"))
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_R22_hop_by_hop_fields_are_removed() -> None:
    names = (b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade", b"Proxy-Authenticate",
             b"proxy-connection")  # fmt: skip
    parts = [part for name in names for part in (name, b"x")]
    assert parse_response_head(payload(*parts, b"Kept", b"y")).fields == [(b"Kept", b"y")]


def test_R22_fields_that_connection_names_are_removed() -> None:
    data = payload(
        b"X-Hop", b"1", b"Connection", b"close, x-hop", b"connection", b"X-OTHER", b"X-Other", b"2", b"X", b"3"
    )
    assert parse_response_head(data).fields == [(b"X", b"3")]
    assert parse_response_head(payload(b"Content-Length", b"5", b"Connection", b"content-length")).content_length == 5


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1.0", b"0x5", b"5, 5", b"5 5", b"5_0", b"\xb2", b"1" * 20, b"five"]
)
def test_R24_lengths_that_are_none(value: bytes) -> None:
    assert code_of(payload(b"Content-Length", value)) == "bad_content_length"


def test_R24_two_lengths() -> None:
    assert code_of(payload(b"Content-Length", b"5", b"content-length", b"6")) == "bad_content_length"
    assert parse_response_head(payload(b"Content-Length", b"5", b"content-length", b"05")).content_length == 5


def test_R21_interim() -> None:
    data = payload(
        b"Link", b" </a> ", b"Content-Length", b"5", b"Transfer-Encoding", b"x", status=b"103", reason=b"Early Hints"
    )
    assert parse_interim(data) == (103, b"Early Hints", [(b"Link", b"</a>")])
    for status in (b"101", b"200", b"099", b"1000", b""):
        with pytest.raises(UnfitResponseHead) as caught:
            parse_interim(payload(status=status))
        assert caught.value.code == "bad_status"
    with pytest.raises(UnfitResponseHead) as caught:
        parse_interim(payload(b"X", b"a\rb", status=b"103"))
    assert caught.value.code == "bad_field_value"
    with pytest.raises(UnfitResponseHead) as caught:
        check_fields(b"a\nb", [])
    assert caught.value.code == "bad_reason"
    assert check_fields(b"", [(b"X", b"1"), (b"Connection", b"x"), (b"Y", b"2")]) == [(b"Y", b"2")]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=4), st.binary(max_size=4))
def test_R21_whatever_passes_can_be_written_by_h11(fields: list[tuple[bytes, bytes]], reason: bytes) -> None:
    data = payload(*(part for field in fields for part in field), reason=reason)
    try:
        head = parse_response_head(data)
    except AppResponseError:
        assert code_of(data) in {"bad_field_name", "bad_field_value", "bad_reason", "bad_pairs", "bad_content_length"}
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    connection.next_event()
    written = connection.send(h11.Response(status_code=head.status, reason=head.reason, headers=head.fields))
    assert written.count(b"\r\n") == len(head.fields) + 3  # status line, chunked, blank line


def test_what_is_remembered_is_bounded() -> None:
    for number in range(10000):
        parse_response_head(payload(b"X-Bounded-%d" % number, b"y"))
        assert len(response_head._ACTIONS) <= response_head._MOST_KNOWN
        assert len(response_head._KNOWN) <= response_head._MOST_KNOWN_HEADS
    parse_response_head(payload(b"X" * 500, b"y"))
    assert max(map(len, response_head._ACTIONS)) <= response_head._LONGEST_KNOWN


def test_ED10_trailers_that_mean_too_much_behind_a_body_are_left_out() -> None:
    """RFC 9110 6.5.1: framing, routing, cookies, and what the client was to know before the body."""
    kept = [(b"Content-Digest", b"sha-256=:x:"), (b"X-Rows", b"7")]
    others = [(b"Set-Cookie", b"a=b"), (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"Host", b"a")]
    fields = [kept[0], *others, kept[1]]
    assert parse_trailers(b"".join(name + b"\0" + value + b"\0" for name, value in fields)) == kept


def test_a_switch_of_protocols() -> None:
    head = payload(
        b"X",
        b"y",
        b"upgrade",
        b" WebSocket ",
        b"connection",
        b"upgrade, z",
        b"Z",
        b"1",
        b"Content-Length",
        b"3",
        status=b"101",
    )
    assert parse_switch(head, b"websocket") == (
        b"OK",
        [(b"Upgrade", b"WebSocket"), (b"Connection", b"Upgrade"), (b"X", b"y")],
    )
    assert parse_switch(payload(status=b"101"), b"websocket")[1][0] == (b"Upgrade", b"websocket")


@pytest.mark.parametrize(
    ("head", "asked", "code"),
    [
        (payload(status=b"101"), b"", "upgrade_not_asked"),
        (payload(b"Upgrade", b"h2c", status=b"101"), b"websocket", "upgrade_not_asked"),
        (payload(b"Upgrade", b"websocket", b"Upgrade", b"h2c", status=b"101"), b"websocket", "upgrade_not_asked"),
        (payload(b"X", b"a\nb", status=b"101"), b"websocket", "bad_field_value"),
        (payload(b"X y", b"a", status=b"101"), b"websocket", "bad_field_name"),
        (payload(status=b"101", reason=b"\r\n"), b"websocket", "bad_reason"),
        (b"101\0", b"websocket", "bad_pairs"),
    ],
)  # fmt: skip
def test_a_switch_that_cannot_be(head: bytes, asked: bytes, code: str) -> None:
    with pytest.raises(AppResponseError) as caught:
        parse_switch(head, asked)
    assert caught.value.code == code


@pytest.mark.parametrize("name", [b"Set-Cookie", b"set-cookie", b"SET-COOKIE"])
def test_a_head_with_a_cookie_is_not_remembered_and_others_are(name: bytes) -> None:
    """It is one client's, and a secret."""
    secret, plain = payload(b"X-Unlike", b"any other", name, b"a=secret"), payload(b"X-Unlike", b"any other")
    assert parse_response_head(secret).fields[-1] == (name, b"a=secret")
    assert parse_response_head(secret) is not parse_response_head(secret)
    assert secret not in response_head._KNOWN
    assert not [known for known in response_head._KNOWN if b"secret" in known]
    assert parse_response_head(plain) is parse_response_head(plain)
