"""Requests to the admin API as a caller sends them, and what a reader makes of them."""

from __future__ import annotations

from collections.abc import Iterable

from passenger_trio.codecs.admin_api import AdminReader, AdminRequest
from passenger_trio.errors import AdminRefused

Outcome = AdminRequest | int | str


def read(pieces: Iterable[bytes]) -> Outcome:
    """What comes of these bytes and the end behind them: a request, the status of a refusal, or ``"left"``."""
    reader = AdminReader()
    try:
        for piece in (*pieces, b""):
            if (request := reader.next_request()) is not None:
                return request
            reader.interim()
            reader.feed(piece)
        request = reader.next_request()
    except AdminRefused as refused:
        str(refused).encode("ascii")  # none of the caller's bytes are in it as they are
        return refused.status
    except EOFError:
        return "left"
    assert request is not None, "after the end there is something, or a refusal"
    return request


def post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body
