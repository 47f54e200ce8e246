"""The opening handshake of a WebSocket: the client's request (RFC 6455, section 4.2.1), the worker's ``W`` frame, and the 101.

``strict_request`` checks for every kind of application that the request is a GET of HTTP/1.1 without a body, with
``Upgrade: websocket``, ``Connection: upgrade`` and version 13 (R19). The key is checked only if the worker takes
WebSockets. No extension is negotiated (R33), so nothing can be inflated without bounds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.refusals import refuse
from passenger_trio.codecs.response_head import check_fields
from passenger_trio.errors import MalformedResponse, UnfitResponseHead

__all__ = ["accept_fields", "check_key", "offered_protocols"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OURS = frozenset(
    (b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-version", b"sec-websocket-key")
)
"""Fields of the handshake that the application must not set."""


def check_key(head: Head) -> bytes:
    """The client's key.

    :raises RequestError: the key is not 16 bytes in base64 (400).
    """
    key = next((value for name, value in head.fields if name.lower() == b"sec-websocket-key"), b"")
    try:
        if len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16:
            return key
    except binascii.Error:
        pass
    raise refuse("websocket_key")


def offered_protocols(head: Head) -> list[bytes]:
    """The subprotocols that the client offers, in its order."""
    values = [value for name, value in head.fields if name.lower() == b"sec-websocket-protocol"]
    return [word for value in values for word in (part.strip(b" \t") for part in value.split(b",")) if word]


def accept_fields(head: Head, payload: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of the 101, from the payload of a ``W`` frame.

    :raises MalformedResponse: the payload is no list of pairs, which is the loader's fault.
    :raises UnfitResponseHead: a field cannot be sent (R21), or the subprotocol is not one that the client offers.
    """
    parts = payload.split(b"\0")
    if parts.pop() or len(parts) % 2:
        raise MalformedResponse("the process accepted a WebSocket in a form that the session protocol does not have")
    given = check_fields(b"", list(zip(parts[::2], parts[1::2], strict=True)))
    digest = hashlib.sha1(check_key(head) + _GUID, usedforsecurity=False).digest()
    fields = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", base64.b64encode(digest)),
    ]
    chosen = [value for name, value in given if name.lower() == b"sec-websocket-protocol"]
    if chosen:
        if len(chosen) > 1 or chosen[0] not in offered_protocols(head):
            raise UnfitResponseHead("the application chose a WebSocket subprotocol that the client does not offer")
        fields.append((b"Sec-WebSocket-Protocol", chosen[0]))
    return fields + [
        field for field in given if field[0].lower() not in _OURS and field[0].lower() != b"sec-websocket-protocol"
    ]
