"""Which processes are measured in a round of the gauges: those whose size may have changed.

To measure a process walks its page tables, which takes milliseconds. A host of many small applications has dozens of processes and
preloaders of which nearly all rest, and measuring each of them every few seconds was most of what the host did (OP6, and
"idle under 1 %"). One that has done nothing has about the size that it had. So each time that it is measured and has done nothing since, the pause
until the next time doubles, up to ``MOST_ROUNDS`` rounds: threads of its own may fill its memory, too.

It knows numbers only. It never knows sizes, processes or a clock.
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
        """Begin a round: whom to measure in it.

        :param deeds: of each one that there is, what it has done so far, as anything that can be compared; None: it is at work now.
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
