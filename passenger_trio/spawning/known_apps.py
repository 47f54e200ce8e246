"""Remembers what detection found for each application, so that an unchanged application is not detected again.

The key is the application's options. If they are the same object, they are found at once, which is the case for nearly all of thousands of
applications (OP5; computing the hash of all options would take longer than everything else here). Otherwise applications of the same directory are
compared by all of their options.

Law: a result is returned only for options that equal those of its detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp

__all__ = ["KnownApps"]

_Known = tuple[AppOptions, DetectedApp]


class KnownApps:
    """The results so far. It keeps the options objects alive, so that no other object gets their identity."""

    __slots__ = ("_by_identity", "_by_place")

    def __init__(self, known: Iterable[_Known] = ()) -> None:
        self._by_identity: dict[int, _Known] = {}
        self._by_place: dict[tuple[str, str, str], _Known] = {}
        for app, found in known:
            self.add(app, found)

    def add(self, app: AppOptions, found: DetectedApp) -> None:
        """Add the result of a detection."""
        self._by_identity[id(app)] = self._by_place[_place(app)] = app, found

    def add_all(self, others: KnownApps) -> None:
        """Add the results of ``others``, which replace older ones."""
        self._by_identity |= others._by_identity
        self._by_place |= others._by_place

    def get(self, app: AppOptions) -> DetectedApp | None:
        """The result for these options; None: there is none."""
        known = self._by_identity.get(id(app))
        if known is not None:
            return known[1]
        known = self._by_place.get(_place(app))
        return known[1] if known is not None and known[0] == app else None


def _place(app: AppOptions) -> tuple[str, str, str]:
    return app.root, app.name, app.base_uri
