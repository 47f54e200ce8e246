"""Applications whose directories were looked at before, and what they have: they need no second look.

An application is found by its options: at once if it is the very same object, as nearly all of thousands are (OP5: to compute the hash of
all its options takes longer than all else that is done with it here). Else, by its place, one with equal options.

Law: an application that is found has the options that it was looked at with.
"""

from __future__ import annotations

from collections.abc import Iterable

from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp

__all__ = ["KnownApps"]

_Known = tuple[AppOptions, DetectedApp]


class KnownApps:
    """What is known. It keeps the options, so that no other object has their identity."""

    __slots__ = ("_by_identity", "_by_place")

    def __init__(self, known: Iterable[_Known] = ()) -> None:
        self._by_identity: dict[int, _Known] = {}
        self._by_place: dict[tuple[str, str, str], _Known] = {}
        for app, found in known:
            self.add(app, found)

    def add(self, app: AppOptions, found: DetectedApp) -> None:
        """One more."""
        self._by_identity[id(app)] = self._by_place[_place(app)] = app, found

    def add_all(self, others: KnownApps) -> None:
        """Those that others know; they count more."""
        self._by_identity |= others._by_identity
        self._by_place |= others._by_place

    def get(self, app: AppOptions) -> DetectedApp | None:
        """What its directory has; None: it was not looked at with these options."""
        known = self._by_identity.get(id(app))
        if known is not None:
            return known[1]
        known = self._by_place.get(_place(app))
        return known[1] if known is not None and known[0] == app else None


def _place(app: AppOptions) -> tuple[str, str, str]:
    return app.root, app.name, app.base_uri
