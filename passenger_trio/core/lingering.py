"""How long a client's connection stays open after its last response, and how much the server still reads from it (R29).

Closing a connection with unread input makes the kernel send a reset, which can destroy the response before the client reads it.

``server/http/end_connection`` lingers after HTTP; ``websocket_life`` and ``server/upgraded/client_frames`` after a Close that names a broken rule.
"""

from __future__ import annotations

__all__ = ["LINGER_BYTES", "LINGER_TIME"]

LINGER_TIME = 2.0
"""Seconds."""
LINGER_BYTES = 256 * 1024
"""Bytes that are read and dropped."""
