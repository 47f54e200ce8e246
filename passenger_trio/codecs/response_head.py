"""The head of an application's response: the payload of an ``R`` or ``I`` frame as a value (CONTRACT.md, section 3).

Everything from an application is checked before a client gets it (R21): names are tokens and values have no
control characters, so a response cannot be split. Framing and connection fields are the server's (R22):
hop-by-hop fields are removed, and the length is stored for the code that frames the body. An error names the field
and never shows its value.

Every response passes here: one regular expression checks all bytes, and the meaning of field names is cached.
"""

from __future__ import annotations

import re

import attrs

from passenger_trio.codecs.chunked import may_trail
from passenger_trio.codecs.patterns import compiled
from passenger_trio.errors import MalformedResponse, UnfitResponseHead
from passenger_trio.late_classes import define

__all__ = [
    "AppHead",
    "Fields",
    "check_fields",
    "parse_interim",
    "parse_response_head",
    "parse_switch",
    "parse_trailers",
]

Fields = list[tuple[bytes, bytes]]

_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_TEXT = rb"[\t -~\x80-\xff]*+"
_PAIRS = rb"(?:%s\0%s\0)*+" % (_NAME, _TEXT)
_RESPONSE = compiled(rb"([2-5][0-9][0-9])\0%s\0%s" % (_TEXT, _PAIRS))
_INTERIM = compiled(rb"(1[0-9][0-9])\0%s\0%s" % (_TEXT, _PAIRS))
_SWITCH = compiled(rb"101\0%s\0%s" % (_TEXT, _PAIRS))
_A_NAME, _A_TEXT = compiled(_NAME), compiled(_TEXT)
_LENGTH = re.compile(rb"[0-9]{1,19}")

#: Fields of one connection; an application has none (R22; RFC 9110 7.6.1).
HOP_BY_HOP = frozenset(
    b"keep-alive proxy-connection proxy-authenticate proxy-authentication-info proxy-authorization te "
    b"trailer transfer-encoding upgrade".split()
)

_KEEP, _DROP, _CONNECTION, _LENGTH_FIELD, _DATE, _SERVER, _OOB_WORK = range(7)
_ACTIONS_OF = {
    **dict.fromkeys(HOP_BY_HOP, _DROP),
    b"connection": _CONNECTION,
    b"content-length": _LENGTH_FIELD,
    b"date": _DATE,
    b"server": _SERVER,
    b"x-passenger-request-oob-work": _OOB_WORK,
    b"!~request-oob-work": _OOB_WORK,
}
_SECRET = b"!~"
"""Fields with such names are for the server only, as in Phusion Passenger 5 and newer (OP14)."""
_MOST_KNOWN, _LONGEST_KNOWN = 4096, 64


class _Actions(dict[bytes, int]):
    """Field name as written -> what is done with it."""

    def __missing__(self, name: bytes) -> int:
        action = _ACTIONS_OF.get(name.lower(), _DROP if name.startswith(_SECRET) else _KEEP)
        if len(name) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[name] = action
        return action


_ACTIONS = _Actions()


@define(eq=True)
class AppHead:
    """A response head that may be sent on. ``fields`` are end-to-end, without the length."""

    status: int
    reason: bytes
    fields: Fields
    content_length: int | None = None
    has_date: bool = False
    has_server: bool = False
    wants_oob_work: bool = False
    """Whether the application asks for out-of-band work (OP14)."""
    lines: bytes | None = attrs.field(default=None, eq=False, repr=False)
    """Status line and fields as bytes, without the fields that depend on the connection. The first writer of the head makes them."""

    def with_fields(self, more: Fields) -> AppHead:
        """The same head with more fields, for one response."""
        return attrs.evolve(self, fields=[*self.fields, *more], lines=None)


class _Known(dict[bytes, AppHead]):
    """Payload -> head, for heads that repeat. A head that sets a cookie is not kept: it is for one client, and secret."""

    def __missing__(self, payload: bytes) -> AppHead:
        head = _parse(payload)
        if len(payload) <= _LONGEST_KNOWN_HEAD and not any(name.lower() == b"set-cookie" for name, _ in head.fields):
            if len(self) >= _MOST_KNOWN_HEADS:
                self.clear()
            self[payload] = head
        return head


_KNOWN = _Known()
_MOST_KNOWN_HEADS, _LONGEST_KNOWN_HEAD = 512, 1024


def parse_response_head(payload: bytes) -> AppHead:
    """The head in the payload of an ``R`` frame. Equal payloads share one ``AppHead`` (a cache): change nothing in it. Only its writer stores ``lines``.

    :raises MalformedResponse: the payload is no list of pairs, which is the loader's fault.
    :raises UnfitResponseHead: the head (R21) or its length (R24) is invalid; ``code`` says which. The status must be
        200 to 599.
    """
    return _KNOWN[payload]


def _parse(payload: bytes) -> AppHead:
    match = _RESPONSE.fullmatch(payload)
    if match is None:
        raise _diagnosis(payload)
    parts = payload.split(b"\0")
    head = AppHead(int(match[1]), parts[1], [])
    add = head.fields.append
    nominated: list[bytes] = []
    names = iter(parts[2:-1])
    for name in names:
        value = next(names).strip(b" \t")
        action = _ACTIONS[name]
        if action == _KEEP:
            add((name, value))
        elif action == _LENGTH_FIELD:
            head.content_length = _length(value, head.content_length)
        elif action == _DATE:
            head.has_date = True
            add((name, value))
        elif action == _SERVER:
            head.has_server = True
            add((name, value))
        elif action == _CONNECTION:
            nominated += _words(value)
        elif action == _OOB_WORK:
            head.wants_oob_work = True
    if nominated:
        words = frozenset(nominated)
        head.fields = [field for field in head.fields if field[0].lower() not in words]
        head.has_date = head.has_date and b"date" not in words
        head.has_server = head.has_server and b"server" not in words
    return head


def parse_interim(payload: bytes) -> tuple[int, bytes, Fields]:
    """Status, reason and fields in the payload of an ``I`` frame.

    :raises UnfitResponseHead: the head is no interim response, or has status 101, which an application cannot send
        in this way.
    """
    match = _INTERIM.fullmatch(payload)
    if match is None:
        raise _diagnosis(payload, interim=True)
    if match[1] == b"101":
        raise _malformed("bad_status", "an interim response with the status 101")
    parts = payload.split(b"\0")
    fields = list(zip(parts[2:-1:2], parts[3:-1:2], strict=True))
    return int(match[1]), parts[1], check_fields(parts[1], fields)


def parse_switch(payload: bytes, asked: bytes) -> tuple[bytes, Fields]:
    """Reason and fields in the payload of an ``R`` frame of status 101, with the required ``Upgrade`` and ``Connection`` (RFC 9110 7.8, 15.2.2).

    :param asked: the protocol that the client asked for, in lower case; empty if it asked for none.
    :raises MalformedResponse: the payload is no list of pairs.
    :raises UnfitResponseHead: the client asked for no upgrade or for another one (R24), or a field is invalid.
    """
    if not _SWITCH.fullmatch(payload):
        raise _diagnosis(payload, interim=True)
    if not asked:
        raise _malformed("upgrade_not_asked", "its status is 101, but the client did not ask for an upgrade")
    parts = payload.split(b"\0")
    fields = list(zip(parts[2:-1:2], parts[3:-1:2], strict=True))
    protocol = b", ".join(value.strip(b" \t") for name, value in fields if name.lower() == b"upgrade") or asked
    if protocol.lower() != asked:
        raise _malformed("upgrade_not_asked", "it switches to a protocol that the client did not ask for")
    return parts[1], [(b"Upgrade", protocol), (b"Connection", b"Upgrade"), *check_fields(parts[1], fields)]


def parse_trailers(payload: bytes) -> Fields:
    """The fields in the payload of an ``L`` frame, without those that must not be trailers (RFC 9110 6.5.1).

    :raises MalformedResponse: the payload is no list of pairs.
    :raises UnfitResponseHead: a name is no token, or a value has a control character.
    """
    parts = payload.split(b"\0")
    if parts.pop() or len(parts) % 2:
        raise MalformedResponse("the process sent trailers that are no pairs")
    fields = check_fields(b"", list(zip(parts[0::2], parts[1::2], strict=True)))
    return [field for field in fields if may_trail(field[0].lower())]


def check_fields(reason: bytes, fields: Fields) -> Fields:
    """The fields that may be sent on in an interim response, which has neither length nor coding (R20, R21,
    R22).

    :raises UnfitResponseHead: a name is no token, or a value or the reason has a control character.
    """
    if not _A_TEXT.fullmatch(reason):
        raise _malformed("bad_reason", "the reason phrase has a control character")
    kept: Fields = []
    nominated: list[bytes] = []
    for name, value in fields:
        _check(name, value)
        action = _ACTIONS[name]
        if action == _CONNECTION:
            nominated += _words(value)
        elif action not in (_DROP, _LENGTH_FIELD, _OOB_WORK):
            kept.append((name, value.strip(b" \t")))
    words = frozenset(nominated)
    return [field for field in kept if field[0].lower() not in words]


def _length(value: bytes, before: int | None) -> int:
    if not _LENGTH.fullmatch(value):
        raise _malformed("bad_content_length", "its Content-Length is not a number")
    length = int(value)
    if before is not None and before != length:
        raise _malformed("bad_content_length", "it has two Content-Lengths that differ")
    return length


def _words(value: bytes) -> list[bytes]:
    return [word.strip(b" \t") for word in value.lower().split(b",")]


def _diagnosis(payload: bytes, interim: bool = False) -> MalformedResponse | UnfitResponseHead:
    """The error for a payload that the expression does not match."""
    parts = payload.split(b"\0")
    if parts.pop() or len(parts) < 2 or len(parts) % 2:
        return _malformed("bad_pairs", "its head is not NUL-terminated pairs")
    first = b"1" if interim else b"2345"
    if len(parts[0]) != 3 or not parts[0].isdigit() or parts[0][:1] not in first:
        return _malformed("bad_status", "its status is none")
    if not _A_TEXT.fullmatch(parts[1]):
        return _malformed("bad_reason", "the reason phrase has a control character")
    try:
        for name, value in zip(parts[2::2], parts[3::2], strict=True):
            _check(name, value)
    except UnfitResponseHead as error:
        return error
    return _malformed("bad_pairs", "its head is malformed")


def _check(name: bytes, value: bytes) -> None:
    if not _A_NAME.fullmatch(name):
        raise _malformed("bad_field_name", f"a field name is no token: {name[:60]!a}")
    if not _A_TEXT.fullmatch(value):
        raise _malformed(
            "bad_field_value", f"the value of the field {name[:60].decode('ascii')} has a control character"
        )


def _malformed(code: str, text: str) -> MalformedResponse | UnfitResponseHead:
    kind = MalformedResponse if code == "bad_pairs" else UnfitResponseHead
    error = kind(f"the application's response cannot be sent: {text}")
    error.code = code
    return error
