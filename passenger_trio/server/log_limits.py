"""Limits on log lines that a client can cause without effort: refused requests, and warnings.

Laws: the access log gets at most ``REFUSALS_A_SECOND`` refused requests a second (ED14), and a line says how many were left out. At most one warning a
second is logged, whatever its text (F31). Both limits hold for all fronts together.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from passenger_trio.core.fronts.share import Share
from passenger_trio.log_lines import server as lines

__all__ = ["REFUSALS_A_SECOND", "LogLimits"]

REFUSALS_A_SECOND = 100
"""Refused requests per second in the access log."""


class LogLimits:
    """The limits of one server, or of one front of several."""

    def __init__(self, current_time: Callable[[], float], share: Share) -> None:
        """:param current_time: reads the monotonic clock, in seconds.
        :param share: this front's share of the limits of all fronts together.
        """
        self._current_time = current_time
        self._warned = 0.0
        self._quiet = float(share.fronts)
        """Seconds between two warnings."""
        self._most_refusals = share.part(REFUSALS_A_SECOND)
        self._refusal_second = self._refusals = 0

    def takes_refusal(self) -> bool:
        """Whether the access log may get one more refused request now. If so, the request counts from now on."""
        second = int(self._current_time())
        if second != self._refusal_second:
            if self._refusals > self._most_refusals:
                lines.refusals_unlogged(requests=self._refusals - self._most_refusals)
            self._refusal_second, self._refusals = second, 0
        self._refusals += 1
        return self._refusals <= self._most_refusals

    def warn_rarely(self, reason: str) -> None:
        """Log a warning, unless there was one within the last second."""
        now = time.monotonic()
        if now - self._warned >= self._quiet:
            self._warned = now
            lines.server_warning(reason=reason)
