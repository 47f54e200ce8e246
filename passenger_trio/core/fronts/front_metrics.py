"""The metrics of one front as a value. Each front makes its own, and the owner adds them (FR5).

``told`` encodes the value as JSON values, and ``of_told`` decodes it at the owner. The owner does not trust a front: a value that is no count, or an
application that the owner does not have, raises ``BadFrontMessage``.

With a thousand applications all of that takes long. So it happens in parts of ``PART`` applications, and the caller pauses between two parts.

Laws: ``of_told(told(counts))`` equals ``counts``, also when it is added to an empty value. All parts put together equal the whole.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import attrs

from passenger_trio.core.metric_counts import RequestTally
from passenger_trio.core.model import GroupKey
from passenger_trio.errors import BadFrontMessage
from passenger_trio.late_classes import define

__all__ = ["PART", "FrontMetrics"]

PART = 40
"""Applications that are encoded, checked or added in one step."""

_WORD = re.compile(r"[A-Za-z0-9_.,:'() -]{1,100}")
_NUMBERS = ("accepted", "most_connections", "disk", "disk_limit", "memory", "pauses", "log_written", "log_dropped")
_COUNTERS = ("rejected", "stages", "spilled", "buffer_errors", "faults")


@define(eq=False)
class FrontMetrics:
    """Counters and gauges of one front, or of several together."""

    tallies: dict[GroupKey, RequestTally] = attrs.field(factory=dict)
    """Of each application."""
    refused: RequestTally = attrs.field(factory=RequestTally)
    """Requests that were refused before they had an application."""
    in_flight: Counter[GroupKey] = attrs.field(factory=Counter)
    rejected: Counter[str] = attrs.field(factory=Counter)
    """Refused requests, by the code of the refusal."""
    stages: Counter[str] = attrs.field(factory=Counter)
    """Open connections, by what they do."""
    spilled: Counter[str] = attrs.field(factory=Counter)
    """Bytes on disk, of requests and responses under way."""
    buffer_errors: Counter[str] = attrs.field(factory=Counter)
    faults: Counter[str] = attrs.field(factory=Counter)
    """By the task."""
    accepted: int = 0
    most_connections: int = 0
    disk: int = 0
    disk_limit: int = 0
    memory: int = 0
    pauses: int = 0
    has_log: bool = False
    log_written: int = 0
    log_dropped: int = 0
    lag: float = 0.0
    """The longest delay of a timer in the last minute, in seconds; for several fronts the largest one."""

    def add(self, other: FrontMetrics) -> None:
        """Add the counts of another front."""
        for _ in self.add_in_parts(other):
            pass

    def add_in_parts(self, other: FrontMetrics) -> Iterator[None]:
        """The same, with a pause after each part."""
        tallies = iter(tuple(other.tallies.items()))
        while part := tuple(islice(tallies, PART)):
            for key, tally in part:
                self.tallies.setdefault(key, RequestTally()).add(tally)
            yield
        self.refused.add(other.refused)
        self.in_flight += other.in_flight
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.has_log = self.has_log or other.has_log
        self.lag = max(self.lag, other.lag)

    def put_together(self, part: FrontMetrics) -> None:
        """Add the applications of a later part of the same counts."""
        self.tallies.update(part.tallies)
        self.in_flight.update(part.in_flight)

    def lasting(self) -> FrontMetrics:
        """The values that stay true when the front is gone: its counters without its gauges."""
        return FrontMetrics(
            tallies=self.tallies,
            refused=self.refused,
            rejected=self.rejected,
            buffer_errors=self.buffer_errors,
            faults=self.faults,
            accepted=self.accepted,
            pauses=self.pauses,
            has_log=self.has_log,
            log_written=self.log_written,
            log_dropped=self.log_dropped,
        )

    def told(self, keys: Sequence[GroupKey]) -> dict[str, Any]:
        """JSON values.

        :param keys: the applications, in the order that both sides know.
        """
        return {
            "tallies": [self.tallies[key].told() if key in self.tallies else None for key in keys],
            "refused": self.refused.told(),
            "in_flight": [self.in_flight[key] for key in keys],
            "has_log": self.has_log,
            "lag": self.lag,
            **{name: dict(getattr(self, name)) for name in _COUNTERS},
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    @classmethod
    def of_told(cls, told: Mapping[str, Any], keys: Sequence[GroupKey]) -> FrontMetrics:
        """The value that ``told`` has encoded.

        :param keys: as for ``told``. The front may not know the last ones yet.
        :raises BadFrontMessage: these are not the values of a front.
        """
        try:
            known = keys[: len(told["tallies"])]
            counts = cls(
                tallies={
                    key: RequestTally.of_told(one)
                    for key, one in zip(known, told["tallies"], strict=True)
                    if one is not None
                },
                refused=RequestTally.of_told(told["refused"]),
                in_flight=Counter({key: _count(one) for key, one in zip(known, told["in_flight"], strict=True)}),
                has_log=told["has_log"] is True,
                lag=_seconds(told["lag"]),
            )
            for name in _COUNTERS:
                setattr(counts, name, Counter({_word(word): _count(one) for word, one in told[name].items()}))
            for name in _NUMBERS:
                setattr(counts, name, _count(told[name]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadFrontMessage(f"a front tells counts that are none: {error}") from None
        return counts


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no count")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError("no time")
    return float(value)


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError("no word")
    return value
