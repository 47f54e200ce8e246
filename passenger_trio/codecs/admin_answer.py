"""The caller's side of the admin API: encodes a request, and decodes the answer, after which the connection ends. Sans-I/O.

The server's side is ``admin_api``, which accepts requests of any client. This module has only what our own commands need: importing an HTTP library
takes longer than a command's whole call, and in a test's process, which was just forked, each page of the library is copied when it is used (TH3).

Law: any bytes give an answer or ``ValueError``. An answer that is not whole is never used.
"""

from __future__ import annotations

import re

__all__ = ["decode_answer", "encode_request", "whole_size"]

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)


def encode_request(method: str, target: str, body: bytes | None) -> bytes:
    """A request of our own commands.

    :param body: None: the request has no body.
    """
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n{length}\r\n"
    return head.encode("ascii") + (body or b"")


def whole_size(data: bytes) -> int | None:
    """The size of the whole answer in bytes, if its head tells it. None: the head is incomplete, or the answer ends with the connection."""
    head, end, _ = data.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n") if end else None
    return None if length is None else len(head) + len(end) + int(length[1])


def decode_answer(data: bytes) -> tuple[int, bytes]:
    """Status and body.

    :param data: all received bytes, up to ``whole_size`` or the end of the connection.
    :raises ValueError: the bytes are no whole answer.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    status = _STATUS_LINE.match(head + b"\r\n")
    if not end or status is None:
        raise ValueError("it is no answer of HTTP")
    length = _LENGTH.search(head + b"\r\n")
    if length is not None and int(length[1]) != len(body):
        raise ValueError(f"the answer has {len(body)} bytes of {int(length[1])}")
    return int(status[1]), body
