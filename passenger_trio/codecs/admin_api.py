"""The admin API's bytes: one request per connection, then one response. Sans-I/O.

This module knows HTTP (through h11, as a server that closes after its response) and JSON. It never knows what a request
means: the table of routes does (``admin/routes.py``).

Laws:

* Any input gives a request, a refusal with its status, or nothing yet; splitting the bytes differently
  changes nothing, up to ``MAX_REQUEST``.
* ``MAX_REQUEST`` bounds the memory a caller can use. ``MAX_NESTING`` bounds the nesting of its JSON, well
  below the interpreter's recursion limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import h11

from passenger_trio.errors import AdminRefused
from passenger_trio.late_classes import frozen

__all__ = [
    "MAX_NESTING",
    "MAX_REQUEST",
    "AdminReader",
    "AdminRequest",
    "Field",
    "Text",
    "encode_answer",
    "encode_stream_head",
    "read_flags",
    "read_order",
]

MAX_REQUEST = 16384
"""Bytes of a request, with its body."""
MAX_NESTING = 500
"""The most opening brackets in a body."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    409: b"Conflict",
    413: b"Content Too Large",
    422: b"Unprocessable Content",
    503: b"Service Unavailable",
}


@frozen
class AdminRequest:
    """:ivar path: without its query. ``method``, ``path`` and ``query`` are ASCII, whatever came."""

    method: str
    path: str
    body: bytes = b""
    query: str = ""


@frozen
class Text:
    """An answer that is not JSON."""

    status: int
    content_type: str
    body: bytes
    rest: Sequence[bytes] = ()
    """The parts after ``body``: a long answer is sent part by part, and never joined."""


@frozen
class Field:
    """A member of an order.

    :ivar kind: as JSON Schema names it: ``string``, ``integer``, ``number``, ``boolean``, ``array``.
    :ivar is_needed: whether each order must have it. If not, it may also be null.
    :ivar items: for an array: the members of the objects in it.
    :ivar bounds: for a number: the least and the greatest value.
    """

    kind: str
    meaning: str
    is_needed: bool = False
    items: Mapping[str, Field] = attrs.field(factory=dict)
    bounds: tuple[float, float] | None = None


class AdminReader:
    """The request of one caller."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._size = 0
        self._continued = False

    @property
    def is_head(self) -> bool:
        """Whether the answer may have no body."""
        return self._head is not None and self._head.method == b"HEAD"

    def feed(self, data: bytes) -> None:
        """Add received bytes; ``b""``: the caller has ended its side.

        :raises AdminRefused: the request is too long.
        """
        self._size += len(data)
        if self._size > MAX_REQUEST:
            raise AdminRefused(413, f"the request is longer than {MAX_REQUEST} bytes")
        try:
            self._connection.receive_data(data)
        except h11.RemoteProtocolError as exc:
            raise _refusal(exc) from None

    def interim(self) -> bytes:
        """The interim response for a caller that waits before it sends its body; ``b""``: none is due."""
        if self._continued or not self._connection.they_are_waiting_for_100_continue:
            return b""
        self._continued = True
        return _CONTINUE

    def next_request(self) -> AdminRequest | None:
        """The request, once it has arrived completely.

        :raises AdminRefused: the request is invalid or too long.
        :raises EOFError: the caller has left without a request.
        """
        while True:
            try:
                event = self._connection.next_event()
            except h11.RemoteProtocolError as exc:
                raise _refusal(exc) from None
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Request):
                self._head = event
                length = dict(event.headers).get(b"content-length", b"0")
                if len(length) > 9 or int(length) > MAX_REQUEST:
                    raise AdminRefused(413, f"the request is longer than {MAX_REQUEST} bytes")
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert self._head is not None
                path, _, query = self._head.target.partition(b"?")
                return AdminRequest(
                    self._head.method.decode("ascii"),
                    path.decode("ascii", "backslashreplace"),
                    bytes(self._body),
                    query.decode("ascii", "backslashreplace"),
                )
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError  # noqa: TRY004  it is no type that is wrong


def _refusal(exc: h11.RemoteProtocolError) -> AdminRefused:
    return AdminRefused(400, f"this is no request: {exc}")


def read_flags(query: str) -> frozenset[str]:
    """The words of a query: ``verbose`` of ``?verbose`` and of ``?verbose=1``."""
    return frozenset(word.partition("=")[0] for word in query.split("&") if word)


def read_order(body: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Read a body as an order: its members without those that are null. An empty body is an empty order.

    :param fields: the members that it may have, by name.
    :raises AdminRefused: the body is no object, or a member is unknown, missing or of another type.
    """
    order = _parse(body or b"{}")
    if not isinstance(order, dict):
        raise AdminRefused(422, "the body must be a JSON object")
    return _members(order, fields)


def _members(order: dict[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in order.items():
        field = fields.get(name)
        if field is None:
            known = ", ".join(fields) or "none"
            raise AdminRefused(422, f"there is no member {_short(name)} here; there are: {known}")
        if value is not None or field.is_needed:
            found[name] = _value(name, field, value)
    for name, field in fields.items():
        if field.is_needed and name not in found:
            raise AdminRefused(422, f"{name} is missing: {field.meaning}")
    return found


_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list of objects",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}


def _value(name: str, field: Field, value: Any) -> Any:
    if field.kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)  # 5.0 is an integer to JSON Schema
    fits = isinstance(value, _TYPES[field.kind]) and (field.kind == "boolean" or not isinstance(value, bool))
    if not fits or (field.kind == "array" and not all(isinstance(item, dict) for item in value)):
        raise AdminRefused(422, f"{name} must be {_WORDS[field.kind]}")
    if field.bounds is not None and not field.bounds[0] <= value <= field.bounds[1]:
        raise AdminRefused(422, f"{name} must be from {field.bounds[0]:g} to {field.bounds[1]:g}")
    return [_members(item, field.items) for item in value] if field.kind == "array" else value


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:40] + "...")


def _parse(body: bytes) -> Any:
    """Parse JSON.

    :raises AdminRefused: the body is not JSON, or is nested too deeply.
    """
    # Brackets within texts count, too: no order has that many.
    if body.count(b"[") + body.count(b"{") > MAX_NESTING:
        raise AdminRefused(422, f"the body has more than {MAX_NESTING} brackets")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except ValueError:  # numbers of thousands of digits, too, and bytes that are no text
        raise AdminRefused(422, "the body must be a JSON object") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def encode_answer(status: int, value: object, *, is_head: bool = False, allow: str = "") -> bytes:
    """An answer, after which the connection is closed.

    :param value: a value for JSON; or JSON as bytes; or a ``Text``, whose ``rest`` the caller must send.
    :param is_head: the answer to HEAD: what GET would have been, without its body (RFC 9110 section 9.3.2).
    :param allow: with 405: the methods that there are (RFC 9110 section 15.5.6).
    """
    kind, rest = b"application/json", 0
    if isinstance(value, Text):
        kind, body, rest = value.content_type.encode(), value.body, sum(map(len, value.rest))
    else:
        body = (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n"
    more = b"Allow: %b\r\n" % allow.encode() if allow else b""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%bConnection: close\r\n\r\n"
    encoded = head % (status, _REASONS[status], kind, len(body) + rest, more)
    return encoded if is_head else encoded + body


def encode_stream_head() -> bytes:
    """The head of an answer that has one JSON object on each line, and ends with the connection (RFC 9112 section 6.3)."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
