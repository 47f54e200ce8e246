"""One request of a test, as its client saw it: the client's half of a timeline.

It is noted on the way (``tap``), or by the client itself (``raw_client``).
"""

from __future__ import annotations

import attrs

from passenger_trio.late_classes import define

__all__ = ["Exchange"]


@define
class Exchange:
    """One request of the test, as its client saw it. Times are seconds since the epoch; None: it has not happened."""

    number: int
    connected: float
    method: str = ""
    target: str = ""
    request_fields: list[tuple[bytes, bytes]] = attrs.Factory(list)
    begun: float | None = None
    sent: float | None = None
    """The request was complete."""
    first_byte: float | None = None
    ended: float | None = None
    status: int | None = None
    reason: bytes = b""
    fields: list[tuple[bytes, bytes]] = attrs.Factory(list)
    body: bytes = attrs.field(default=b"", repr=False)
    size: int = 0
    """Bytes of the response body."""
    outcome: str = "no response"
    """``complete``, ``cut short``, ``no response``, ``upgraded``, ``not HTTP``, or ``read as bytes`` (by a test that looks at them itself)."""
