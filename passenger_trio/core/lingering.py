"""How long a client's connection stays open after its last response, and how much is still read of it (R29): closing it earlier could destroy what the client has not read.

``server/http/end_connection`` lingers after HTTP; ``websocket_life`` and ``server/upgraded/websocket`` after a Close that names a broken rule.
"""

from __future__ import annotations

__all__ = ["LINGER_BYTES", "LINGER_TIME"]

LINGER_TIME = 2.0
"""Seconds."""
LINGER_BYTES = 256 * 1024
"""Bytes that are read and dropped."""
