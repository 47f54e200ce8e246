"""Whose memory to measure in a round: the processes whose size may have changed.

The kernel walks a process's page tables to measure it, which takes milliseconds. A host of many small applications has dozens of
processes and preloaders, nearly all of them idle. Measuring all of them every few seconds cost more than everything else
that such a host did (OP6). A process that did nothing has about the same size as before. So each time a process is measured and
has done nothing since, the pause until the next measurement doubles, up to ``MOST_ROUNDS`` rounds. The bound is there because
a process's own threads may fill its memory without a request.

This module knows numbers of rounds. It never knows sizes, processes or a clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import attrs

__all__ = ["MOST_ROUNDS", "Rounds"]

MOST_ROUNDS = 16

_K = TypeVar("_K", bound=Hashable)


@attrs.frozen
class _Measured:
    deeds: Hashable
    pause: int
    next_round: int


@attrs.define
class Rounds(Generic[_K]):
    """The rounds so far, and when each one was measured."""

    _number: int = 0
    _known: dict[_K, _Measured] = attrs.field(factory=dict)

    def due(self, deeds: Mapping[_K, Hashable | None]) -> list[_K]:
        """Begin a round, and return the keys to measure in it.

        :param deeds: key -> what that process has done so far, as any value that can be compared; None: it is at work now.
        """
        self._number += 1
        due: list[_K] = []
        known: dict[_K, _Measured] = {}
        for one, done in deeds.items():
            before = self._known.get(one)
            pause = 1
            if before is not None and done is not None and done == before.deeds:
                if self._number < before.next_round:
                    known[one] = before
                    continue
                pause = min(2 * before.pause, MOST_ROUNDS)
            known[one] = _Measured(done, pause, self._number + pause)
            due.append(one)
        self._known = known
        return due
