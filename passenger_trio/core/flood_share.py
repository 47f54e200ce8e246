"""How much of the event loop's time floods may use while other clients are served (KE7).

A *flood* is a stream of many small pieces; the pieces of a *heavy* flood are tiny (``core.read_size``). Each step of a flood is
timed. When the steps have taken ``BUDGET``, the next one waits: for as long as they took, or seven times as long after steps of
heavy floods. So all floods together get at most half of the event loop's time, and heavy ones at most an eighth. The process and
the client of a slowed flood wait for full sockets, which leaves the processor to others on a machine with few cores. A flood
that runs alone is not slowed.
"""

from __future__ import annotations

__all__ = ["BUDGET", "FloodShare"]

BUDGET = 0.001
"""Seconds of steps before a rest. An event loop cannot sleep for much less."""
_REST, _REST_OF_HEAVY = 1.0, 7.0
"""Seconds of rest for each second of a step."""
_LONGEST = 0.01
"""Seconds. A step that took longer was interrupted; a flood is not at fault for that."""
_BESIDE = 0.1
"""Seconds for which a client counts as served beside floods."""


class FloodShare:
    """The share of all floods of one event loop. Times are monotonic seconds."""

    __slots__ = ("_began", "_due", "_each", "_used")

    def __init__(self) -> None:
        self._began: float | None = None
        """When the step that is under way began."""
        self._used = 0.0
        """Seconds of steps since the last rest."""
        self._each = _REST
        """Seconds of rest for each second of the step that is under way."""
        self._due = 0.0
        """Seconds of rest for all of these steps."""

    def begin(self, now: float, *, is_heavy: bool) -> None:
        """A step begins."""
        self._began = now
        self._each = _REST_OF_HEAVY if is_heavy else _REST

    def end(self, now: float) -> None:
        """The step is over. Idempotent."""
        if self._began is not None:
            took = min(now - self._began, _LONGEST)
            self._used += took
            self._due += took * self._each
            self._began = None

    def rest(self, now: float, others: float) -> float:
        """How long floods rest before the next step, in seconds; 0: not at all.

        :param others: when the event loop last served a stream that is no flood.
        """
        if self._used < BUDGET:
            return 0.0
        rest, self._due, self._used = self._due, 0.0, 0.0
        return rest if now - others < _BESIDE else 0.0
