"""How many of the fronts serve clients, and which connections move from one front to another (FR6).

A front that serves little costs much: it finds its caches cold, and the slot that it needs is at another front or at the owner. So a server with several
fronts uses only as many as its load needs; those are *active*, the first ones of all that are alive. The others accept nothing, and give their idle
connections to active ones. When the load grows, more fronts become active, and take over idle connections in turn.

This module knows numbers only: processor time, connections, how full the limits of the fronts are. It knows no process, no socket and no clock.

Laws:

* At least one front is active, and never more than there are. Processor time alone makes no more of them active than there are cores, slots, or fours of
  connections.
* Processor time alone makes a front active only if a part of a core is idle for it, and one more for each that is active. Fronts that share their cores with
  the processes are interrupted in each request, which costs a third more: where nothing is idle, one more front serves no more requests. Where the cores are
  full, and one front less would have as much done, it becomes idle.
* A load that lasts makes a front active after two looks that agree; a limit that fills up, at once. A front becomes idle after ``CALM`` seconds in which one front less
  would have been enough with ``_SPARE`` to spare. So a load that does not change does not move connections back and forth.
* Connections move to the front with the fewest, and only if the difference is larger than what the accept gate allows, or if their front is not active.
  None moves where its limit could be exceeded, whatever the others do: an idle one would be closed for it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

from passenger_trio.core.accept_gate import exceeds
from passenger_trio.late_classes import frozen

__all__ = ["CALM", "MOST_MOVES", "ActiveFronts", "Load", "moves"]

CALM = 2.0
"""Seconds."""
MOST_MOVES = 64
"""Connections that a front gives away at one look."""
_CPU = 0.85
"""The part of a core that an active front may use before there is another one. At this load a request waits for less time than a second front, with cold
caches, would cost it."""
_FULL = 0.5
"""The part of a limit (connections, bytes on disk) that an active front may use before there is another one."""
_CONNECTIONS = 256
"""Connections of an active front before there is another one: so many are lost at most with a front that dies, on a server with little load."""
_SERVED = 4
"""Connections that a front must have so that it is worth its turns. With two connections each, and one slot, two fronts served half of what one did."""
_SPARE = 0.75
_ROOM = 0.45
"""The part of a core that must be idle for each active front before there is another one. Measured: 0.2 to 0.5 is what it takes until one more has more done."""
_SHARED = 1.3
"""Cores that fronts use to do what one could do that has a core for itself, where all cores are full. Measured: 1.2 to 1.5."""
_FULL_CORES = 0.1
"""The part of the cores that is idle at most where they are full."""
_ALONE = 0.85
"""The part of the processor time that it wants which a front gets at least, where it has a core for itself."""


@frozen
class Load:
    """Of all fronts together."""

    cpu: float
    """Cores that they want: the time in which they run or wait for a core."""
    full: float
    """How full each front's limits are (0 to 1), added up."""
    connections: int
    slots: int
    """Slots that they have: requests that the processes serve at the same time, while some wait."""
    used: float = math.inf
    """Cores that they get: the time in which they run."""
    idle: float = math.inf
    """Cores that nobody uses, of those that the server may use; infinite: unknown."""

    def needs(self, cores: int, spare: float = 1.0) -> int:
        """How many fronts this takes, if each takes ``spare`` of what it may.

        :param cores: more fronts than these do not serve more requests, and cost more for each.
        """
        served = min(cores, self.slots, self.connections // (spare * _SERVED))
        busy = min(served, self.cpu / (spare * _CPU))
        return math.ceil(max(busy, self.full / (spare * _FULL), self.connections / (spare * _CONNECTIONS), 1.0))


class ActiveFronts:
    """Decides how many fronts are active, from one look at their load after another."""

    def __init__(self, fronts: int, cores: int) -> None:
        """:param fronts: how many there are. :param cores: how many processors the server may use."""
        self.count: int = 1
        """How many are active now."""
        self._fronts = fronts
        self._cores = cores
        self._grows = False
        """Whether the last look found too few."""
        self._calm_since = math.inf

    def look(self, now: float, load: Load) -> int:
        """Take in a look, at a time in seconds. Returns how many are active from now on."""
        cores = self._cores_for_fronts(load)
        needed = min(self._fronts, load.needs(cores))
        if needed > self.count:
            self._calm_since = math.inf
            if self._grows or load.full > self.count * _FULL:
                self.count = needed
                self._grows = False
            else:
                self._grows = True
            return self.count
        self._grows = False
        enough = load.needs(cores, _SPARE)
        if enough >= self.count:
            self._calm_since = math.inf
        else:
            self._calm_since = min(self._calm_since, now)
            if now - self._calm_since >= CALM:
                self.count = enough
                self._calm_since = math.inf
        return self.count

    def _cores_for_fronts(self, load: Load) -> int:
        """How many fronts may be busy: more than now only as parts of cores are idle for them, and one less if they share full cores without a gain."""
        room = _ROOM * self.count
        if load.idle > room:
            return int(min(self._cores, self.count + load.idle // room))
        shares = load.idle < _FULL_CORES * self._cores and load.used < _ALONE * load.cpu
        if shares and load.used < _SHARED * (self.count - 1):
            return min(self._cores, self.count - 1)
        return min(self._cores, self.count)


def moves(
    own: int,
    active: Mapping[int, int],
    *,
    is_active: bool,
    most: int = MOST_MOVES,
    limits: Mapping[int, float] | None = None,
    givers: int = 1,
) -> list[int]:
    """Where connections of a front go: the number of a front for each that moves.

    :param own: how many connections the front has.
    :param active: of each other active front, its number and how many connections it has.
    :param is_active: whether the front itself is active.
    :param limits: how many connections each of them may have; None: any number.
    :param givers: how many fronts may give connections, or accept some, at the same time: each takes its part of the room that is left.
    """
    takes = {number: ((limits[number] if limits else math.inf) - count) / givers for number, count in active.items()}
    fewest = [(count, number) for number, count in active.items() if takes[number] >= 1]
    if not fewest or (is_active and not exceeds(own, min(fewest)[0])):
        return []
    heapq.heapify(fewest)
    found: list[int] = []
    while fewest and len(found) < min(own, most):
        count, number = fewest[0]
        if is_active and own - len(found) - count <= 1:
            break
        found.append(number)
        takes[number] -= 1
        if takes[number] >= 1:
            heapq.heapreplace(fewest, (count + 1, number))
        else:
            heapq.heappop(fewest)
    return found
