"""How many bytes a connection reads at once, reads ahead, and keeps in memory.

Limits that an operator sets are in ``options``; those of a request head in ``codecs.head``; the thresholds of a buffer in ``core.spill_ledger``.
"""

from __future__ import annotations

__all__ = ["BODY_IN_MEMORY", "READ_AHEAD", "RECEIVE_SIZE"]

READ_AHEAD = 65536
"""Bytes of the following requests that are read ahead while one is served (R31)."""
BODY_IN_MEMORY = 128 * 1024
"""Bytes of a request body that are kept in memory before a process is borrowed; a longer body is buffered on disk."""
RECEIVE_SIZE = 256 * 1024
"""The most bytes that are received at once: the size of the shared receive buffer (``Front.receive_buffer``)."""
