"""The stages of a connection: what it is doing, and so which deadline it has (``Client.enter``)."""

from __future__ import annotations

from enum import Enum

__all__ = ["FAST_PATH_TIMEOUT", "Stage"]

FAST_PATH_TIMEOUT = 0.05
"""Seconds that the fast path waits for a process, or for its response. A request that takes longer continues on the slow path, which notices a client that leaves."""


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
    MOVED = "moved to another front"
