"""OP13: the cookie of sticky sessions."""

from __future__ import annotations

import pytest

from passenger_trio.codecs.sticky_cookie import StickyCookie
from passenger_trio.errors import OptionError

COOKIE = StickyCookie("_passenger_route", "HttpOnly; SameSite=Lax", b"/")


@pytest.mark.parametrize(
    ("value", "route"),
    [
        (b"_passenger_route=0a1b", b"0a1b"),
        (b"a=b; _passenger_route=0a1b; c=d", b"0a1b"),
        (b"a=b;_passenger_route=0a1b ;c=d", b"0a1b"),
        (b"_passenger_route=01; _passenger_route=02", b"01"),  # the longest path comes first
        (b"x_passenger_route=0a1b", b""),
        (b'_passenger_route="0a1b"', b""),
        (b"_passenger_route=0A1B", b""),
        (b"_passenger_route=" + b"0" * 65, b""),
        (b"_passenger_route=", b""),
        (b"a=_passenger_route=0a1b", b""),
        (b"", b""),
    ],
)
def test_a_route_is_read(value: bytes, route: bytes) -> None:
    assert COOKIE.read([(b"Host", b"localhost"), (b"cOOkie", value)]) == route


def test_several_cookie_fields() -> None:
    assert COOKIE.read([(b"Cookie", b"a=b"), (b"Cookie", b"_passenger_route=01")]) == b"01"
    assert COOKIE.read([]) == b""


def test_the_field_is_set() -> None:
    assert COOKIE.field(b"01", secure=False) == (
        b"Set-Cookie",
        b"_passenger_route=01; Path=/; HttpOnly; SameSite=Lax",
    )
    own = StickyCookie("route", "SameSite=None;Secure; Max-Age=60;", b"/shop")
    assert own.field(b"01", secure=True)[1] == b"route=01; Path=/shop; SameSite=None; Secure; Max-Age=60"
    assert own.field(b"01", secure=False)[1] == b"route=01; Path=/shop; SameSite=None; Secure; Max-Age=60"
    assert COOKIE.field(b"01", secure=True)[1].endswith(b"; SameSite=Lax; Secure")


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "ä", "a\n"])
def test_a_name_that_is_no_token(name: str) -> None:
    with pytest.raises(OptionError, match="--sticky-sessions-cookie-name"):
        StickyCookie(name, "", b"/")


@pytest.mark.parametrize("attributes", ["a\r\nSet-Cookie: b", "ä", "\0"])
def test_attributes_that_cannot_be_sent(attributes: str) -> None:
    with pytest.raises(OptionError, match="--sticky-sessions-cookie-attributes"):
        StickyCookie("a", attributes, b"/")
