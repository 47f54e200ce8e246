"""The opening handshake of a WebSocket: the key, the subprotocol, and what an application has no word in (RFC 6455 4.2; R21, R33)."""

from __future__ import annotations

import base64

import pytest

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.websocket_handshake import accept_fields, check_key, offered_protocols
from passenger_trio.errors import MalformedResponse, RequestError, UnfitResponseHead

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455, section 1.3."""
OURS = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", ACCEPT)]


def head_with(*fields: tuple[bytes, bytes], key: bytes = KEY) -> Head:
    return Head(b"GET", b"/", b"/", b"", b"1.1", b"a", [(b"Sec-WebSocket-Key", key), *fields], upgrade=b"websocket")


def frame(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(name + b"\0" + value + b"\0" for name, value in fields)


def test_the_key_of_the_rfc() -> None:
    assert check_key(head_with()) == KEY
    assert accept_fields(head_with(), b"") == OURS


@pytest.mark.parametrize("size", range(14, 20))
def test_a_key_is_16_bytes(size: int) -> None:
    key = base64.b64encode(b"x" * size)
    if size == 16:
        assert check_key(head_with(key=key)) == key
    else:
        with pytest.raises(RequestError, match="not 16 bytes") as told:
            check_key(head_with(key=key))
        assert (told.value.status, told.value.code) == (400, "websocket_key")


@pytest.mark.parametrize("key", [b"", b"x" * 24, KEY[:-1] + b"!", b"\xff" * 24, b"dGhlIHNhbXBsZSBub25j ZQ=="])
def test_a_key_is_base64(key: bytes) -> None:
    with pytest.raises(RequestError):
        check_key(head_with(key=key))


def test_without_a_key() -> None:
    head = head_with()
    head.fields.clear()
    with pytest.raises(RequestError):
        check_key(head)


@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ([], []),
        ([b"chat"], [b"chat"]),
        ([b"chat, superchat"], [b"chat", b"superchat"]),
        ([b"chat", b" \tv2 ,,v3"], [b"chat", b"v2", b"v3"]),
        ([b""], []),
    ],
)
def test_the_subprotocols_that_are_offered(values: list[bytes], offered: list[bytes]) -> None:
    head = head_with(*((b"sec-websocket-PROTOCOL", value) for value in values), (b"X", b"other"))
    assert offered_protocols(head) == offered


def test_a_subprotocol_is_one_of_those_that_are_offered() -> None:
    head = head_with((b"Sec-WebSocket-Protocol", b"chat, v2"))
    assert accept_fields(head, b"") == OURS, "none need be chosen"
    assert accept_fields(head, frame((b"sec-websocket-protocol", b"v2"))) == [*OURS, (b"Sec-WebSocket-Protocol", b"v2")]
    for wrong in ((b"v3",), (b"chat, v2",), (b"chat", b"v2")):
        with pytest.raises(UnfitResponseHead, match="subprotocol"):
            accept_fields(head, frame(*((b"Sec-WebSocket-Protocol", value) for value in wrong)))
    with pytest.raises(UnfitResponseHead):
        accept_fields(head_with(), frame((b"Sec-WebSocket-Protocol", b"chat")))


@pytest.mark.parametrize("name", [b"Accept", b"Extensions", b"Version", b"Key"])
def test_an_application_has_no_word_in_the_handshake(name: bytes) -> None:
    """R33: no extension is taken."""
    given = frame((b"Set-Cookie", b"a=b"), (b"SEC-WebSocket-" + name, b"x"))
    assert accept_fields(head_with(), given) == [*OURS, (b"Set-Cookie", b"a=b")]


def test_fields_that_cannot_be_sent() -> None:
    """R21"""
    with pytest.raises(UnfitResponseHead):
        accept_fields(head_with(), frame((b"X", b"a\r\nb")))


@pytest.mark.parametrize("payload", [b"X", b"X\0", b"X\0a", b"X\0a\0Y\0"])
def test_what_is_no_pairs(payload: bytes) -> None:
    with pytest.raises(MalformedResponse):
        accept_fields(head_with(), payload)
