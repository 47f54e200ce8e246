"""All codes of a WebSocket's Close frame, and which code the client gets for which end (RFC 6455 section 7.4.1; IANA's registry).

``websocket_life`` decides that a WebSocket ends, and why; for a relayed WebSocket ``server/upgraded/relay`` does. ``codecs/websocket_frames`` checks
what a client sends, and names the code of the rule that the client broke.
"""

from __future__ import annotations

__all__ = [
    "AFTER_FAILURE",
    "AT_PROCESS_END",
    "AT_SERVER_STOP",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "INVALID_TEXT",
    "LOST",
    "MESSAGE_TOO_BIG",
    "NO_CODE",
    "POLICY_VIOLATION",
    "PROTOCOL_ERROR",
    "SERVICE_RESTART",
    "TRY_AGAIN_LATER",
    "WHEN_NOT_READ",
    "is_sendable",
]

GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
"""A frame breaks the protocol."""
NO_CODE = 1005
"""A Close came without a code. It is never sent."""
LOST = 1006
"""The connection ended without a Close. It is never sent to a client."""
INVALID_TEXT = 1007
"""A text, or the reason of a Close, is not UTF-8."""
POLICY_VIOLATION = 1008
"""The client sends too many fragments, or too many control frames (R33)."""
MESSAGE_TOO_BIG = 1009
"""The client's message is longer than ``--websocket-max-message-size``."""
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

# Which end of a WebSocket tells the client which code. A rule that the client broke has the code above that says so.
AT_SERVER_STOP = GOING_AWAY
"""The server stops. A relayed connection gets it, too, when it was idle for too long."""
AT_PROCESS_END = SERVICE_RESTART
"""The process is replaced, or has died."""
AFTER_FAILURE = INTERNAL_ERROR
"""The application or the server failed, or the client has not answered a ping."""
WHEN_NOT_READ = TRY_AGAIN_LATER
"""The application does not read what the client sends."""

_SENDABLE = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


def is_sendable(code: int) -> bool:
    """Whether a Close frame may carry the code (section 7.4; the registry adds 1012 to 1014). 3000 to 4999 are the applications'."""
    return code in _SENDABLE or 3000 <= code <= 4999
