"""The stages of a connection, and the numbers that bound them."""

from __future__ import annotations

import errno
from enum import Enum

__all__ = ["BUFFERED", "PATIENCE", "READ_AHEAD", "SCRATCH", "SHORT_OF_DESCRIPTORS", "ClientGone", "Stage"]

PATIENCE = 0.05
"""Seconds that the fast lane waits for an application; what takes longer goes on in the slow lane, which sees the client's connection break."""
READ_AHEAD = 65536
"""Bytes of following requests that are read while one is served (R31)."""
BUFFERED = 128 * 1024
"""Bytes of a request body that are kept in memory before a process is borrowed; what is longer is buffered on disk."""
SCRATCH = 256 * 1024
"""Bytes that are moved at once from a process to a client, or from a client to a buffer."""
SHORT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What the kernel says when we, and nobody else, are short of something (R36)."""


class Stage(Enum):
    """What a connection is doing; the value is what an operator reads."""

    IDLE = "idle"
    HEAD = "reading the request head"
    BODY = "reading the request body"
    QUEUE = "waiting for a process"
    SLOW_QUEUE = "waiting for a process (slow lane)"
    APP = "waiting for the application"
    SLOW_APP = "waiting for the application (slow lane)"
    WRITE = "writing to the client"
    WEBSOCKET = "websocket"
    RELAY = "relaying (upgraded)"
    LINGER = "closing"


class ClientGone(Exception):
    """The client's connection broke: nobody is left to be answered."""
