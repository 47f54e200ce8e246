"""How many bytes are read at once or ahead, how many of a body stay in memory, and how many go to disk at once.

Limits that an operator sets are in ``options``; those of a request head in ``codecs.head``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BATCH", "BODY_IN_MEMORY", "READ_AHEAD", "RECEIVE_SIZE", "THRESHOLD"]

READ_AHEAD: Final = 65536
"""Bytes of the following requests that are read ahead while one is served (R31)."""
BODY_IN_MEMORY: Final = 128 * 1024
"""Bytes of a request body that are kept in memory before a process is borrowed; a longer body is buffered on disk."""
RECEIVE_SIZE: Final = 256 * 1024
"""The most bytes that are received at once: the size of the shared receive buffer (``Front.receive_buffer``)."""
THRESHOLD: Final = 128 * 1024
"""Bytes of a response, or of an upload beside it, that stay in memory for a peer that is slower (``spill_ledger``)."""
BATCH: Final = 256 * 1024
"""Bytes that are in memory at most before they go to disk together."""
