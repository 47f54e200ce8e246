"""Counts of what has happened, for the metrics: how many, for which reason, and how long it took.

The code that decides a fact counts it, once. It only adds: the request path pays for additions, and a scrape pays for
everything else (OB1, OB2). This module knows names, words and seconds. It never knows paths or pids: a label with
those would have no bound.

Laws: a count never decreases. Each request that would have a line in the access log is counted once, with or without a
log. Tallies of several servers of one pool can be added (``RequestTally.add``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from passenger_trio.core.duration_histogram import SPAWN_BOUNDS, Histogram
from passenger_trio.core.model import GroupKey

__all__ = [
    "FOLD_AT",
    "OTHER",
    "Finished",
    "PoolTally",
    "RequestTally",
    "close_word",
]

_NO_COUNTS: Mapping[str, int] = MappingProxyType({})
_WIDTH = 5
"""The number of members of a ``Finished``."""
FOLD_AT = 256 * _WIDTH
"""The most members that wait to be folded."""
_KNOWN_METHODS = frozenset(b"CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split())
OTHER = "_OTHER"
"""The label of every unknown method, because clients can make up methods (OpenTelemetry)."""

Finished = tuple[bytes, int, float, float, float]
"""Method, status, and seconds: from the first byte of the request to the last of the response, in the queue, with a process. A
time is 0 if there was none."""


def close_word(code: int) -> str:
    """The code of a WebSocket's Close as a label: the code itself if RFC 6455 or its registry defines it, else its range."""
    return str(code) if 1000 <= code <= 1015 else f"{code // 1000}xxx"


def _is_one(values: list[Any]) -> bool:
    """Whether all values are equal. They mostly are, and this costs a small part of counting them."""
    return values.count(values[0]) == len(values)


class RequestTally:
    """The finished requests of one application, or of none (refused before one was known).

    The request path itself appends a finished request to ``to_fold``, because a call would cost as much again. ``fold``
    counts what was appended, 256 requests at a time, by sorting, which costs a third of finding the place of each. The
    members of all requests lie flat in one list: a fold takes each column as a slice, and the garbage collector has no
    object for each request to look at. Every reader of the counts folds first.
    """

    __slots__ = ("_app", "_counted", "_durations", "_queue", "_websockets", "retried", "to_fold")

    def __init__(self) -> None:
        self.to_fold: list[Any] = []
        """The members of each ``Finished``, one after the other. Code that appends calls ``fold`` at ``FOLD_AT``. Always the same list object."""
        self._counted = 0
        """Requests that were folded."""
        # Made when there is something to count: most of thousands of applications have no request (OP5).
        self._durations: dict[tuple[bytes, int], Histogram] | None = None
        self._queue: Histogram | None = None
        self._app: Histogram | None = None
        self._websockets: Counter[str] | None = None
        self.retried: int = 0
        """Requests that were sent to a second process."""

    def finished(self, request: Finished) -> None:
        """Count a request."""
        to_fold = self.to_fold
        to_fold += request
        if len(to_fold) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Count what was appended."""
        if not self.to_fold:
            return
        to_fold = self.to_fold[:]
        self.to_fold.clear()
        self._counted += len(to_fold) // _WIDTH
        methods, statuses, durations, queued, app = (to_fold[column::_WIDTH] for column in range(_WIDTH))
        if _is_one(methods) and _is_one(statuses):
            kinds = {(methods[0], statuses[0]): durations}
        else:
            kinds = {}
            for method, status, duration in zip(methods, statuses, durations, strict=True):
                kinds.setdefault((method, status), []).append(duration)
        counted = self._durations = {} if self._durations is None else self._durations
        for (method, status), times in kinds.items():
            known = method if method in _KNOWN_METHODS else OTHER.encode()  # a made-up method leaves nothing behind
            counted.setdefault((known, status), Histogram()).observe_all(times)
        if any(queued):
            self._queue = self._queue or Histogram()
            self._queue.observe_all(queued, positive=True)
        if any(app):
            self._app = self._app or Histogram()
            self._app.observe_all(app, positive=True)

    @property
    def websockets(self) -> Mapping[str, int]:
        """WebSockets that have ended, by ``close_word``."""
        return self._websockets or _NO_COUNTS

    def websocket_ended(self, word: str) -> None:
        """Count a WebSocket. :param word: of ``close_word``."""
        self._websockets = self._websockets or Counter()
        self._websockets[word] += 1

    @property
    def durations(self) -> dict[tuple[str, int], Histogram]:
        """Seconds from the first byte of each request to the last of its response, by method and status."""
        self.fold()
        return {(method.decode("ascii"), status): told for (method, status), told in (self._durations or {}).items()}

    @property
    def queue(self) -> Histogram:
        """Seconds in the queue, of the requests that have waited."""
        self.fold()
        return self._queue or Histogram()

    @property
    def app(self) -> Histogram:
        """Seconds for which a process was borrowed, of the requests that had one."""
        self.fold()
        return self._app or Histogram()

    @property
    def count(self) -> int:
        """All requests that were counted."""
        return self._counted + len(self.to_fold) // _WIDTH

    @property
    def stamp(self) -> tuple[int, int, int]:
        """A value that changes when any count changes: its parts only grow, and each new count makes one of them grow."""
        return self.count, self.retried, sum(self.websockets.values())

    def told(self) -> dict[str, Any]:
        """The counts as JSON values, for another process."""
        self.fold()
        return {
            "durations": [
                [method.decode("ascii"), status, *one.told()]
                for (method, status), one in (self._durations or {}).items()
            ],
            "queue": self.queue.told(),
            "app": self.app.told(),
            "retried": self.retried,
            "websockets": dict(self.websockets),
        }

    @classmethod
    def of_told(cls, told: Mapping[str, Any]) -> RequestTally:
        """What another process has told.

        :raises ValueError: (or KeyError, TypeError, AttributeError) the values are not those of a tally.
        """
        tally = cls()
        tally._durations = {}
        for method, status, counts, seconds in told["durations"]:
            known = method.encode("ascii")
            if (known not in _KNOWN_METHODS and method != OTHER) or type(status) is not int or not 100 <= status < 1000:
                raise ValueError("no kind of request")
            one = tally._durations[known, status] = Histogram.of_told(counts, seconds)
            tally._counted += one.count
        tally._queue = Histogram.of_told(*told["queue"])
        tally._app = Histogram.of_told(*told["app"])
        numbers = [told["retried"], *told["websockets"].values()]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("no count")
        if not all(word.isascii() and word.isalnum() and len(word) < 8 for word in told["websockets"]):
            raise ValueError("no code of a Close")
        tally.retried = told["retried"]
        tally._websockets = Counter(told["websockets"])
        return tally

    def add(self, other: RequestTally) -> None:
        """Add what another server of the same pool has counted."""
        self.fold()
        other.fold()
        self._counted += other._counted
        mine = self._durations = {} if self._durations is None else self._durations
        for key, told in (other._durations or {}).items():
            mine.setdefault(key, Histogram()).add(told)
        if other._queue is not None:
            self._queue = self._queue or Histogram()
            self._queue.add(other._queue)
        if other._app is not None:
            self._app = self._app or Histogram()
            self._app.add(other._app)
        self.retried += other.retried
        if other._websockets:
            self._websockets = (self._websockets or Counter()) + other._websockets


class PoolTally:
    """The transitions of the pool, each with its reason. The pool's shell counts a transition when it performs the command,
    or reports the fact.
    """

    def __init__(self) -> None:
        self.spawns_started: Counter[tuple[GroupKey, str]] = Counter()
        """By the reason of the command."""
        self.spawns: dict[tuple[GroupKey, str, str], Histogram] = {}
        """Seconds of each attempt, by method (``smart``, ``direct``, ``unknown``) and outcome (``ready``, ``failed``, ``abandoned``)."""
        self.detached: Counter[tuple[GroupKey, str]] = Counter()
        """Processes that get no more requests, by the reason of the command."""
        self.ended: Counter[tuple[GroupKey, str]] = Counter()
        """Processes that are gone, by the server's reason to end them; else ``exited``, ``signal`` or ``unknown``."""
        self.restarts: Counter[tuple[GroupKey, str]] = Counter()
        """By outcome: ``done``; ``rejected``: the previous version keeps serving; ``failed``: there is none."""

        self.spawn_heard: Callable[[str, str, str, float], None] | None = None
        """Called for each attempt with application, method, outcome and seconds (``server/tracing/spans.py``)."""

    def spawn_ended(self, group: GroupKey, method: str, outcome: str, seconds: float) -> None:
        """An attempt has ended."""
        if self.spawn_heard is not None:
            self.spawn_heard(group.name, method, outcome, seconds)
        key = group, method, outcome
        if key not in self.spawns:
            self.spawns[key] = Histogram(SPAWN_BOUNDS)
        self.spawns[key].observe(seconds)
