"""What the pool knows of a request that failed at a front, for the page that explains it (OB10).

The front asks its owner over the stream of orders and reports. The owner does not trust the front. So it answers only for
applications whose error pages may explain failures, and only about their own processes.

Laws: a front waits for at most ``_PATIENCE`` seconds; an owner looks for at most ``MOST`` requests of a front at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Iterable
from typing import Protocol

import trio

from passenger_trio.codecs.front_reports import Explain, Explained, encode_explain
from passenger_trio.core.evidence import Evidence
from passenger_trio.core.model import GroupKey
from passenger_trio.fronts.reports import Reports
from passenger_trio.options import AppOptions

__all__ = ["MOST", "Explanations", "FindEvidence", "may_explain"]

MOST = 8
_PATIENCE = 2.0


class FindEvidence(Protocol):
    """``PoolInterface.evidence``."""

    def __call__(self, key: GroupKey, pid: int, /, *, ends: bool) -> Awaitable[Evidence | None]: ...


def may_explain(asked: Explain, routes: Iterable[tuple[GroupKey, AppOptions]]) -> bool:
    """Whether a front may be told what the pool knows of an application."""
    return any(key == asked.group and app.explains_errors for key, app in routes)


class Explanations:
    """The questions of a front, and the answers of its owner."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._numbers = itertools.count(1)
        self._asked: dict[int, trio.Event] = {}
        self._found: dict[int, Evidence | None] = {}

    async def ask(self, key: GroupKey, pid: int, /, *, ends: bool) -> Evidence | None:
        """Ask the owner. Always a checkpoint. None: the owner knows nothing, or did not answer in time."""
        number = next(self._numbers)
        self._asked[number] = trio.Event()
        try:
            self._reports.send(encode_explain(Explain(number, key, pid, ends)))
            with trio.move_on_after(_PATIENCE):
                await self._asked[number].wait()
            return self._found.pop(number, None)
        finally:
            del self._asked[number]

    def answered(self, order: Explained) -> None:
        """The owner has answered."""
        if order.number in self._asked:
            self._found[order.number] = order.evidence
            self._asked[order.number].set()
