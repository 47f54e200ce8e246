"""The value of ``--metrics-listen``: ``HOST:PORT``, ``:PORT``, ``[::1]:PORT``, or ``unix:PATH``."""

from __future__ import annotations

import re

from passenger_trio.errors import OptionError
from passenger_trio.late_patterns import late

__all__ = ["parse_metrics_address"]

_TCP = late(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]/\s]*):)?([0-9]{1,5})", re.ASCII)


def parse_metrics_address(text: str) -> tuple[str, int] | str:
    """Host and port (without a host: 127.0.0.1), or the path of a Unix socket.

    :raises OptionError: the text is neither.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        return text.removeprefix("unix:")
    match = _TCP.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise OptionError(
            "--metrics-listen",
            text,
            "HOST:PORT, a port of 127.0.0.1, or unix:PATH: 127.0.0.1:9400, [::1]:9400, unix:/run/metrics.sock",
        )
    return match[1] or "127.0.0.1", int(match[2])
