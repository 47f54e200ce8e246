"""The stages of a connection, and the numbers that bound them."""

from __future__ import annotations

import errno
from enum import Enum

from passenger_trio.codecs.head import Head

__all__ = [
    "BODY_IN_MEMORY",
    "FAST_PATH_TIMEOUT",
    "READ_AHEAD",
    "RECEIVE_SIZE",
    "SHORT_OF_DESCRIPTORS",
    "ClientGone",
    "HealthAsked",
    "Stage",
]

FAST_PATH_TIMEOUT = 0.05
"""Seconds that the fast path waits for a process, or for its response. What takes longer goes on on the slow path, which notices a client that leaves."""
READ_AHEAD = 65536
"""Bytes of the following requests that are read ahead while one is served (R31)."""
BODY_IN_MEMORY = 128 * 1024
"""Bytes of a request body that are kept in memory before a process is borrowed; a longer body is buffered on disk."""
RECEIVE_SIZE = 256 * 1024
"""Bytes that are received at once. The size of the shared receive buffer (``Front.receive_buffer``)."""
SHORT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that mean that this server is short of descriptors or memory (R36); the peer is not to blame."""


class Stage(Enum):
    """What a connection is doing; the value is what an operator reads."""

    IDLE = "idle"
    HEAD = "reading the request head"
    BODY = "reading the request body"
    QUEUE = "waiting for a process"
    SLOW_QUEUE = "waiting for a process (slow path)"
    APP = "waiting for the application"
    SLOW_APP = "waiting for the application (slow path)"
    WRITE = "writing to the client"
    WEBSOCKET = "websocket"
    RELAY = "relaying (upgraded)"
    LINGER = "closing"


class HealthAsked(Exception):
    """A request is for the server's health (OB3): the server answers it itself."""

    def __init__(self, question: str, head: Head) -> None:
        super().__init__(question)
        self.question = question
        self.head = head


class ClientGone(Exception):
    """The client's connection broke: there is nobody to answer."""
