"""Histograms of durations, and their buckets (``REQUEST_BOUNDS``, ``SPAWN_BOUNDS``): of requests, and of starts of processes (OB1).

Pure. Knows seconds; never knows what took them. ``metric_counts`` fills histograms, ``codecs/openmetrics`` writes them. Law: a count never decreases.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf

__all__ = ["REQUEST_BOUNDS", "SPAWN_BOUNDS", "Histogram"]

REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds (OpenTelemetry's semantic conventions for ``http.server.request.duration``)."""
SPAWN_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds: a fork takes milliseconds, and loading a large application a minute."""

_FEW = 8


class Histogram:
    """How often a time was at most each bound. ``counts`` has one more for the times above the last bound."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...] = REQUEST_BOUNDS) -> None:
        self.bounds: tuple[float, ...] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.seconds: float = 0.0
        """The sum of the times."""

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def observe_all(self, times: Sequence[float], *, positive: bool = False) -> None:
        """Count many times. Sorting them costs much less than finding the place of each, if they are many.

        :param positive: leave out those that are 0.
        """
        if len(times) < _FEW:
            for seconds in times:
                if seconds or not positive:
                    self.observe(seconds)
            return
        ordered = sorted(times)
        before = bisect_right(ordered, 0.0) if positive else 0
        for place, bound in enumerate(self.bounds):
            upto = bisect_right(ordered, bound, before)
            self.counts[place] += upto - before
            before = upto
        self.counts[-1] += len(ordered) - before
        self.seconds += sum(ordered)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def told(self) -> tuple[list[int], float]:
        """The counts as JSON values."""
        return list(self.counts), self.seconds

    @classmethod
    def of_told(cls, counts: object, seconds: object) -> Histogram:
        """A histogram of requests, from ``told``.

        :raises ValueError: it is none.
        """
        told = cls()
        if (
            not isinstance(counts, list)
            or len(counts) != len(told.counts)
            or not all(type(count) is int and count >= 0 for count in counts)
            or isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not 0 <= seconds < inf
        ):
            raise ValueError("no histogram")
        told.counts, told.seconds = list(counts), float(seconds)
        return told

    def add(self, other: Histogram) -> None:
        """Add the counts of another one with the same bounds."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds
