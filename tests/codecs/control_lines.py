"""Control messages as a loader sends them, and how to feed them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from passenger_trio.codecs.control_protocol import LineReader, Message
from passenger_trio.errors import SpawnServerError

HELLO: dict[str, Any] = {
    "type": "hello",
    "token": "abc",
    "contract": 1,
    "role": "worker",
    "language": "python",
    "version": "3.12.1",
    "pid": 17,
}
STEP: dict[str, Any] = {"type": "step", "name": "listen", "state": "performed", "duration": 0.5}
READY: dict[str, Any] = {
    "type": "ready",
    "sockets": [{"address": "unix:/tmp/a", "protocol": "session", "concurrency": 4}],
    "application": "app:application",
    "hazards": [{"kind": "thread", "what": "the thread APScheduler"}],
}
ERROR: dict[str, Any] = {
    "type": "error",
    "category": "application",
    "summary": "It raised",
    "problem": "a problem",
    "solution": "a solution",
    "traceback": "Traceback ...",
    "details": "details",
}
FORKED: dict[str, Any] = {"type": "forked", "token": "abc", "pid": 18}
FORK_FAILED: dict[str, Any] = {"type": "fork_failed", "token": "abc", "problem": "EAGAIN"}
CHILD_EXITED: dict[str, Any] = {"type": "child_exited", "pid": 18, "status": 256}
EVENT: dict[str, Any] = {"type": "event", "name": "moon", "fields": {"count": 2}}
BACKTRACE: dict[str, Any] = {"type": "backtrace", "id": 7, "text": "main thread"}

ALL = (HELLO, STEP, READY, ERROR, FORKED, FORK_FAILED, CHILD_EXITED, EVENT, BACKTRACE)


def line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def read(pieces: Iterable[bytes]) -> tuple[list[Message], str]:
    """The messages that come before the first that is refused; why that one is, or ``""``."""
    reader = LineReader()
    found: list[Message] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next_message()) is not None:
                found.append(message)
    except SpawnServerError as error:
        return found, str(error)
    return found, ""


def read_one(message: dict[str, Any]) -> Message:
    reader = LineReader()
    reader.feed(line(message))
    found = reader.next_message()
    assert found is not None
    return found
