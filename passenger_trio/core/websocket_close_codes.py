"""The codes with which the server itself closes a WebSocket, or tells a worker how one has ended (RFC 6455 section 7.4.1; IANA's registry).

``websocket_life`` decides which one a WebSocket gets; for a relayed one ``server/upgraded/relay`` does. Those for what a client
breaks (1002, 1007 to 1009) stand where each rule is checked: ``codecs/websocket_frames``.
"""

from __future__ import annotations

__all__ = ["GOING_AWAY", "INTERNAL_ERROR", "LOST", "NO_CODE", "SERVICE_RESTART", "TRY_AGAIN_LATER"]

GOING_AWAY = 1001
"""The server stops."""
NO_CODE = 1005
"""A Close came without a code. It is never sent."""
LOST = 1006
"""The connection ended without a Close. It is never sent to a client."""
INTERNAL_ERROR = 1011
"""The worker, or the server, failed."""
SERVICE_RESTART = 1012
"""The process is replaced, or has died."""
TRY_AGAIN_LATER = 1013
"""The worker does not read."""
