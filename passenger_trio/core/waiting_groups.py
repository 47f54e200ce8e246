"""Groups that wait and have nothing else: the next one to be served is looked at, and not each of thousands (OP5).

A pool of six may have a thousand applications that wait for a place. Such a *waiting group* has waiters that take any
process, and no process, attempt, preloader, back-off, minimum or order. So it wants a process, whatever happens; and of two
of them the one whose last spawn began longer ago grows first (``scaling``). Each knows by its number when it began to wait.

This module knows the order in which they grow, and what becomes due for each. It never knows what there is room for.

Laws

* A group is active, or waits, or is inactive (``active_groups``): it is in at most one of the two collections.
* The heaps hold every number that waits, and maybe some that waits no more, or is due later: such an entry is dropped, or put
  back, when it is the first. So each step costs the logarithm of their number, on average.
* A group that becomes anything else leaves in that step: ``active_groups.set_active`` does it, and so does its last waiter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TypeVar

from passenger_trio.core.state import GroupState, PoolState

__all__ = ["FAIR_WAIT", "enter", "first_changed", "leave", "next_due", "next_ones", "next_to_refuse", "note_unfair"]

FAIR_WAIT = 1.0
"""Seconds for which a starved group waits for an idle process of another group before it takes a busy one's place."""
_Entry = TypeVar("_Entry", tuple[int, int], tuple[float, int])
_FEW = 64
"""Entries of a heap that are not worth tidying."""


def enter(pool: PoolState, group: GroupState) -> None:
    """From now on the group waits, and has nothing else."""
    pool.last_waiting += 1
    group.waits_as = number = pool.last_waiting
    pool.waiting[number] = group
    heappush(pool.waiting_by_turn, (group.turn, number))
    _note_first(pool, group)
    pool.waiting_by_turn = _tidy(pool, pool.waiting_by_turn)
    pool.waiting_unfairly = _tidy(pool, pool.waiting_unfairly)
    pool.waiting_by_wait = _tidy(pool, pool.waiting_by_wait)
    pool.waiting_by_limit = _tidy(pool, pool.waiting_by_limit)


def _tidy(pool: PoolState, heap: list[_Entry]) -> list[_Entry]:
    """The heap without the entries of groups that wait no more, once they are most of it."""
    if len(heap) <= 2 * len(pool.waiting) + _FEW:
        return heap
    return sorted({entry for entry in heap if entry[1] in pool.waiting})


def leave(pool: PoolState, group: GroupState) -> None:
    """It has something else, or nobody waits any more. Nothing happens if it did not wait."""
    if group.waits_as:
        del pool.waiting[group.waits_as]
        group.waits_as = 0


def first_changed(pool: PoolState, group: GroupState) -> None:
    """Its first waiter may be another one. Nothing happens if the group does not wait."""
    if group.waits_as:
        if group.waiters:
            _note_first(pool, group)
        else:
            leave(pool, group)


def _note_first(pool: PoolState, group: GroupState) -> None:
    heappush(pool.waiting_by_wait, (_since(group), group.waits_as))
    if group.limits.max_request_queue_time:
        heappush(pool.waiting_by_limit, (_limit(group), group.waits_as))


def next_ones(pool: PoolState, now: float) -> list[GroupState]:
    """Those that may grow before all others that wait: the one with the first turn, and the first of those that have waited for
    ``FAIR_WAIT``.
    """
    note_unfair(pool, now)
    found = []
    for heap in (pool.waiting_by_turn, pool.waiting_unfairly):
        while heap and heap[0][1] not in pool.waiting:
            heappop(heap)
        if heap:
            found.append(pool.waiting[heap[0][1]])
    return found


def note_unfair(pool: PoolState, now: float) -> None:
    """Note which have waited for ``FAIR_WAIT`` by now."""
    while _first(pool, pool.waiting_by_wait, _since) + FAIR_WAIT <= now:
        _, number = heappop(pool.waiting_by_wait)
        heappush(pool.waiting_unfairly, (pool.waiting[number].turn, number))
    heap = pool.waiting_unfairly
    while heap:
        group = pool.waiting.get(heap[0][1])
        if group is not None and _since(group) + FAIR_WAIT <= now:
            return
        heappop(heap)  # it waits no more, or only those who came later do (``first_changed`` has noted them)


def next_due(pool: PoolState) -> float:
    """When something is next due in one of them: to be noted as unfair, or to be refused."""
    return min(_first(pool, pool.waiting_by_wait, _since) + FAIR_WAIT, _first(pool, pool.waiting_by_limit, _limit))


def next_to_refuse(pool: PoolState, now: float) -> GroupState | None:
    """A group whose first waiter has waited for too long."""
    if _first(pool, pool.waiting_by_limit, _limit) > now:
        return None
    return pool.waiting[pool.waiting_by_limit[0][1]]


def _since(group: GroupState) -> float:
    """When its first waiter came."""
    return next(iter(group.waiters.values()))


def _limit(group: GroupState) -> float:
    """When its first waiter has waited for too long."""
    return _since(group) + (group.limits.max_request_queue_time or math.inf)


def _first(pool: PoolState, heap: list[tuple[float, int]], is_due: Callable[[GroupState], float]) -> float:
    """When the first entry is due; infinity: there is none. Drops entries of groups that wait no more, and corrects others."""
    while heap:
        due, number = heap[0]
        group = pool.waiting.get(number)
        if group is None:
            heappop(heap)
            continue
        true = is_due(group)
        if true <= due:
            return due
        heappop(heap)  # the waiter has left that it was noted for
        heappush(heap, (true, number))
    return math.inf
