"""What an application sees of a request: R9, R11, R22, and section 3 of the contract."""

from __future__ import annotations

import itertools

import pytest
from http1_strategies import TOKEN_CHARS, text_of
from hypothesis import given, settings

from passenger_trio.codecs import cgi_fields
from passenger_trio.codecs.cgi_fields import cgi_pairs
from passenger_trio.codecs.head import Head
from passenger_trio.codecs.request_id import make_id_pairs

CONNECTION = b"SERVER_NAME\0host\0REMOTE_ADDR\x001.2.3.4\0"


def head_with(*fields: tuple[bytes, bytes], path: bytes = b"/a%20b", **more: object) -> Head:
    head = Head(b"GET", path + b"?q=1", path, b"q=1", b"1.1", b"example.com", [(b"Host", b"example.com"), *fields])
    for name, value in more.items():
        setattr(head, name, value)
    return head


def env(head: Head, *, script_name: bytes = b"", trusted: bool = False) -> dict[bytes, bytes]:
    payload = cgi_pairs(head, CONNECTION, script_name, trusted, make_id_pairs(b"our-id", b""))
    assert payload.endswith(b"\0")
    parts = payload[:-1].split(b"\0")
    names = parts[::2]
    assert len(parts) % 2 == 0
    assert len(set(names)) == len(names), "each name occurs once"
    assert all(names)
    return dict(zip(names, parts[1::2], strict=True))


def test_a_plain_request() -> None:
    head = head_with(
        (b"Accept", b"*/*"), (b"content-type", b"a/b"), (b"Content-Length", b"05"), (b"X-Thing", b""), content_length=5
    )
    assert env(head) == {
        b"SERVER_NAME": b"host",
        b"REMOTE_ADDR": b"1.2.3.4",
        b"REQUEST_METHOD": b"GET",
        b"REQUEST_URI": b"/a%20b?q=1",
        b"SCRIPT_NAME": b"",
        b"PATH_INFO": b"/a%20b",
        b"QUERY_STRING": b"q=1",
        b"SERVER_PROTOCOL": b"HTTP/1.1",
        b"HTTP_HOST": b"example.com",
        b"CONTENT_LENGTH": b"5",
        b"CONTENT_TYPE": b"a/b",
        b"HTTP_ACCEPT": b"*/*",
        b"HTTP_X_THING": b"",
        b"HTTP_X_REQUEST_ID": b"our-id",
    }


def test_repeated_fields_are_joined() -> None:
    found = env(head_with((b"Cookie", b"a=b"), (b"X-A", b"1"), (b"cookie", b"c=d"), (b"x-a", b"2"), (b"X-A", b"")))
    assert found[b"HTTP_COOKIE"] == b"a=b; c=d"
    assert found[b"HTTP_X_A"] == b"1, 2, "


@pytest.mark.parametrize(
    ("script_name", "path", "expected"),
    [
        (b"", b"/x", (b"", b"/x")),
        (b"/app", b"/app/x", (b"/app", b"/x")),
        (b"/app", b"/app", (b"/app", b"")),
        (b"/app", b"/apple", (b"", b"/apple")),
        (b"/app", b"/other", (b"", b"/other")),
        (b"/app", b"*", (b"", b"")),
        (b"/a/b", b"/a/b/%2fc", (b"/a/b", b"/%2fc")),
    ],
)
def test_script_name(script_name: bytes, path: bytes, expected: tuple[bytes, bytes]) -> None:
    found = env(head_with(path=path), script_name=script_name)
    assert (found[b"SCRIPT_NAME"], found[b"PATH_INFO"]) == expected


def test_versions_hosts_and_lengths_come_from_the_head() -> None:
    found = env(head_with((b"Host", b"field"), version=b"1.0", host=b"authority"))
    assert found[b"SERVER_PROTOCOL"] == b"HTTP/1.0"
    assert found[b"HTTP_HOST"] == b"authority"
    assert b"CONTENT_LENGTH" not in found
    assert b"HTTP_HOST" not in env(head_with(version=b"1.0", host=b""))
    assert b"CONTENT_LENGTH" not in env(head_with((b"Transfer-Encoding", b"chunked"), chunked=True))


def cgi_name(name: bytes) -> bytes | None:
    """What the application calls a field; None: it does not get it."""
    return cgi_fields._TRUSTED[name] or None


def test_R6_a_percent_encoded_path_stays_as_it_came() -> None:
    assert env(head_with(path=b"/%00%0d%0a%252e"))[b"PATH_INFO"] == b"/%00%0d%0a%252e"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    "name",
    b"X_User Content_Length Content_Type Transfer_Encoding X_Forwarded_For Remote_User X.Y X'Y _ Proxy PROXY proxy".split(),
)
def test_R9_names_that_deceive_are_dropped(name: bytes, trusted: bool) -> None:
    head = head_with((name, b"evil"), (b"X-User", b"good"))
    found = env(head, trusted=trusted)
    assert b"evil" not in found.values()
    assert found[b"HTTP_X_USER"] == b"good"
    assert cgi_name(name) is None


@settings(max_examples=200, deadline=None)
@given(text_of(TOKEN_CHARS, least=1), text_of(TOKEN_CHARS, least=1))
def test_R9_two_names_never_become_one_but_by_case(one: bytes, other: bytes) -> None:
    first, second = cgi_name(one), cgi_name(other)
    if first is not None and first == second:
        assert one.lower() == other.lower()


def test_R9_all_spellings_of_short_names() -> None:
    seen: dict[bytes, bytes] = {}
    for letters in itertools.product(TOKEN_CHARS, repeat=2):
        name = bytes((0x58, *letters))
        cgi = cgi_name(name)
        if cgi is not None:
            assert seen.setdefault(cgi, name.lower()) == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        b"X-Forwarded-For",
        b"x-forwarded-proto",
        b"X-Forwarded-Anything",
        b"Forwarded",
        b"X-Real-IP",
        b"Client-IP",
        b"X-Original-URL",
    ],
)
def test_R11_forwarded_fields_are_a_trusted_peers(name: bytes) -> None:
    head = head_with((name, b"1.2.3.4"), (name.lower(), b"5.6.7.8"))
    cgi = b"HTTP_" + name.upper().replace(b"-", b"_")
    assert cgi not in env(head, trusted=False)
    assert env(head, trusted=True)[cgi] == b"1.2.3.4, 5.6.7.8"


@pytest.mark.parametrize("trusted", [True, False])
def test_R22_fields_of_one_connection_end_here(trusted: bool) -> None:
    names = (b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade", b"Proxy-Connection",
             b"Proxy-Authorization", b"HTTP2-Settings", b"Expect")  # fmt: skip
    head = head_with(*((name, b"x") for name in names))
    found = env(head, trusted=trusted)
    assert sorted(name for name in found if name.startswith(b"HTTP_")) == [b"HTTP_HOST", b"HTTP_X_REQUEST_ID"]


def test_R22_fields_that_connection_names() -> None:
    fields = ((b"X-Hop", b"1"), (b"Connection", b"close, X-HOP,\tx-other"), (b"X-Other", b"2"), (b"X-Kept", b"3"))
    found = env(head_with(*fields))
    assert b"HTTP_X_HOP" not in found
    assert b"HTTP_X_OTHER" not in found
    assert found[b"HTTP_X_KEPT"] == b"3"


def test_R22_connection_cannot_name_what_is_meant_for_the_application() -> None:
    names = (b"Cookie", b"Authorization", b"X-Forwarded-For", b"X-Request-Id", b"Content-Type", b"X-Real-IP")
    head = head_with(
        *((name, b"v") for name in names),
        (b"Connection", b", ".join((*names, b"Host", b"Content-Length"))),
        content_length=3,
    )
    assert env(head, trusted=True) == env(head_with(*((name, b"v") for name in names), content_length=3), trusted=True)


@pytest.mark.parametrize("trusted", [True, False])
def test_OB4_the_marks_of_a_request_are_its_own_pairs_and_never_fields(trusted: bool) -> None:
    fields = ((b"X-Request-ID", b"theirs"), (b"x-request-id", b"b"), (b"X-Request-Start", b"t=1"))
    found = env(head_with(*fields, (b"traceparent", b"passed on")), trusted=trusted)
    assert found[b"HTTP_X_REQUEST_ID"] == b"our-id"
    assert b"HTTP_X_REQUEST_START" not in found
    assert found[b"HTTP_TRACEPARENT"] == b"passed on"


def test_cgi_name() -> None:
    assert cgi_name(b"Accept") == cgi_name(b"ACCEPT") == b"HTTP_ACCEPT"
    assert cgi_name(b"content-type") == b"CONTENT_TYPE"
    for name in (b"Content-Length", b"Connection", b"Host", b"Transfer-Encoding"):
        assert cgi_name(name) is None


def test_what_is_remembered_is_bounded() -> None:
    for number in range(10000):
        cgi_name(b"X-Bounded-%d" % number)
        assert len(cgi_fields._TRUSTED) <= cgi_fields._MOST_KNOWN
    cgi_name(b"X-" + b"long" * 100)
    assert max(map(len, cgi_fields._TRUSTED)) <= cgi_fields._LONGEST_KNOWN


def test_R19_an_application_hears_of_an_upgrade_that_can_be_had_and_of_no_other() -> None:
    wish = [(b"Connection", b"keep-alive, uPgrade, X-Mine"), (b"Upgrade", b"h2c, WebSocket"), (b"X-Mine", b"1")]
    found = env(head_with(*wish, upgrade=b"websocket"))
    assert (found[b"HTTP_CONNECTION"], found[b"HTTP_UPGRADE"]) == (b"Upgrade", b"websocket")
    assert b"HTTP_X_MINE" not in found
    assert not {b"HTTP_CONNECTION", b"HTTP_UPGRADE"} & env(head_with(*wish)).keys()


@pytest.mark.parametrize("target", [b"*", b"http://x"])
@pytest.mark.parametrize("script_name", [b"", b"/shop"])
def test_fault_26_the_asterisk_is_no_path(target: bytes, script_name: bytes) -> None:
    """ED13; RFC 3875 4.1.5: PATH_INFO is empty or begins with a slash."""
    head = Head(b"OPTIONS", target, b"*", b"", b"1.1", b"x", [(b"Host", b"x")])
    pairs = env(head, script_name=script_name)
    assert (pairs[b"SCRIPT_NAME"], pairs[b"PATH_INFO"], pairs[b"REQUEST_URI"]) == (b"", b"", target)
