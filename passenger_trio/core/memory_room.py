"""How many processes fit into memory (``--max-pool-size auto``, or a share: OP6).

This module knows how much memory there is, what the server itself uses, and the last measured size (PSS) of each
process. It never knows who measures, or where a limit of memory comes from.

How the number is computed::

    budget    share x memory, without what the server, its fronts and its preloaders use (each as they do on average)
    used      each process as last measured; one without a measurement, or just starting, by its application's average
    reserved  processes missing to the minimums, and one for each application that has waiters and no process
    next      the largest average of the applications that may grow, because any of them may be the next to do so
    number    processes + reserved + (budget - used - reserved) / next, rounded down

An application counts what its first process occupied when it was ready (``estimated``) until one of its processes is measured: that
takes a moment, and a process that makes room for another application may be gone by then. One that never had a process counts what
the others use on average. As long as they are few, that is near ``FIRST_GUESS``, which counts like ``_PRIOR`` applications. (A host of two hundred small ones, visited now
and then, would else plan for two processes.)

Laws:

* The number is never below the minimums of the applications together, nor below 1. Else, by the last measures, no
  process starts that does not fit: at or above the number nothing begins but what takes the place of another.
* What started because it fitted may grow beyond the budget by a part of a process (``_SLACK``) before anything has to go. A process
  grows when it begins to serve, and its share of common pages changes as others come and go, so a full pool would else be above
  its number after one measurement and below it after the next. For a process that is still to come (``reserved``), there is no slack.
* When memory is short, the preloaders of applications that are asleep are retired, those that forked least recently
  first; then idle processes above the minimums, idle the longest first. No request ends for it: a pool of busy
  processes stays above its number, and shrinks as they become idle.
* ``limits.max_pool_size`` is the number of now, so every other module knows one limit only.
"""

from __future__ import annotations

import math

import attrs

from passenger_trio.core import capacity, group_restarts, making_room, retiring
from passenger_trio.core.commands import Command, Reason
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.state import EnabledStatus, GroupState, PoolState, ProcessState
from passenger_trio.late_classes import frozen

__all__ = ["FIRST_GUESS", "Calculation", "calculate", "estimated", "fit", "guess_anew", "measured", "most_by_files"]

FIRST_GUESS = 150 * 1024**2
"""Bytes. Passenger's server optimization guide computes its examples with 150 MB for each process of a Ruby application."""

_PRIOR = 3
_SLACK = 4
"""The part of a process, 1 of so many. The budget is a share of the memory: the rest has room for it."""
_FILES_OF_SERVER, _FILES_EACH = 40, 4
_MOST = 4096


def most_by_files(limit: int) -> int:
    """The most processes that are planned for: they take a quarter of the server's descriptors (``descriptors``).

    :param limit: descriptors that the server may have; negative: no limit.
    """
    return _MOST if limit < 0 else min(_MOST, max(1, (limit // 4 - _FILES_OF_SERVER) // _FILES_EACH))


@frozen
class Calculation:
    """How the number of processes was found. Sizes are bytes."""

    share: float
    total: int
    """The memory that there is: the limit of a cgroup, or RAM."""
    own: int
    """What the server uses itself, with its fronts and preloaders."""
    used: int
    """What the processes use, as last measured; others as estimated."""
    reserved: int
    """For the minimums, and for applications that are waited for."""
    next_size: int
    """What one process more is counted with."""
    next_group: str
    """Whose average that is; empty: no application is awake."""
    is_guess: bool
    """Whether none of that application's processes was ever measured."""
    minimum: int
    """The minimums of all applications together."""
    most: int
    """More are never planned for, for want of descriptors."""
    fits: int
    """The number of processes that fit."""
    free: int
    """What is left of the budget; negative: more is used."""
    slack: int
    """By how much more may be used than the budget before something has to go."""

    @property
    def is_short(self) -> bool:
        """Whether something has to go."""
        return self.free < -self.slack

    @property
    def number(self) -> int:
        """The most processes."""
        return max(1, self.minimum, min(self.fits, self.most))


def measured(process: ProcessState) -> None:
    """It was measured: compute the average of its group, of the processes that serve. The last one may be on its way out already."""
    group = process.group
    sizes = [one.size for one in group.enabled.values() if one.size] or [process.size]
    if any(sizes):
        group.process_size, group.is_measured = sum(sizes) // len(sizes), True


def estimated(group: GroupState, size: int) -> None:
    """A process of the group that has just come occupies so many bytes, of which it may share some. 0: unknown."""
    if size and not group.process_size:
        group.process_size = size


def guess_anew(pool: PoolState) -> None:
    """Every process was measured as far as it can be: compute what one of an application that never had one may use."""
    sizes = [group.process_size for group in pool.groups.values() if group.process_size]
    pool.first_guess = (_PRIOR * FIRST_GUESS + sum(sizes)) // (_PRIOR + len(sizes))


def calculate(pool: PoolState) -> Calculation:
    """How many processes fit now."""
    limits = pool.limits
    own = pool.memory_own + pool.memory_preloader * _preloaders(pool)
    guess = pool.first_guess or FIRST_GUESS
    used = sum(
        process.size or process.group.process_size or guess for process in pool.processes.values() if _stays(process)
    )
    used += sum(attempt.group.process_size or guess for attempt in pool.attempts.values() if attempt.counts)
    reserved = minimum = coming = next_size = 0
    next_group: GroupState | None = None
    for group in pool.groups.values():
        least = capacity.minimum(group)
        if not (least or group.enabled or group.attempts or group.waiters):
            continue  # asleep
        minimum += least
        size = group.process_size or guess
        have = len(group.enabled) + capacity.under_way(group)
        missing = max(least - have, 1 if group.waiters and not have else 0)
        if missing > 0:
            coming += missing
            reserved += missing * size
        most = group.limits.max_instances
        if size > next_size and not group.leaving and not (most and have + max(0, missing) >= most):
            next_size, next_group = size, group
    next_size = next_size or guess
    free = int(limits.memory_share * pool.memory_total) - own - used - reserved
    slack = 0 if reserved else next_size // _SLACK
    serving = pool.capacity_used + coming
    if not pool.memory_total:
        free, fits = 0, serving
    elif free >= -slack:
        fits = serving + max(0, free) // next_size
    else:
        fits = serving - math.ceil(-free * max(1, serving) / max(1, used + reserved))
    return Calculation(
        share=limits.memory_share,
        total=pool.memory_total,
        own=own,
        used=used,
        reserved=reserved,
        next_size=next_size,
        next_group=str(next_group.key) if next_group is not None else "",
        is_guess=next_group is None or not next_group.is_measured,
        minimum=minimum,
        most=limits.memory_most,
        fits=max(0, fits),
        free=free,
        slack=slack,
    )


def fit(pool: PoolState, limits: PoolLimits, now: float) -> list[Command]:
    """Set ``max_pool_size`` to what fits, and retire the preloaders of sleepers and the idle processes that do not.
    Before the memory is measured, nothing changes and nothing grows.
    """
    pool.limits = limits
    commands: list[Command] = []
    found = calculate(pool)
    while found.is_short or pool.capacity_used > found.number:
        sleeper = _sleeper(pool) if found.is_short and pool.memory_preloader else None
        if sleeper is not None:
            serving = sleeper.generations[sleeper.generation]
            commands.append(group_restarts.retire_preloader(sleeper, serving, Reason.SHRINK))
        else:
            idle = making_room.longest_idle(pool)
            if idle is None:
                break
            commands += retiring.retire(pool, idle, Reason.SHRINK, now)
        found = calculate(pool)
    pool.limits = attrs.evolve(limits, max_pool_size=found.number)
    pool.allowed_used = pool.capacity_used
    pool.allowed_total = pool.total
    return commands


def _preloaders(pool: PoolState) -> int:
    """The number of those that were not told to go."""
    return sum(of.has_preloader for group in pool.active.values() for of in group.generations.values())


def _sleeper(pool: PoolState) -> GroupState | None:
    """The group without a process, an attempt or a waiter whose preloader forked least recently."""
    return min(
        (
            group
            for group in pool.active.values()
            if group.generations[group.generation].has_preloader
            if not (group.enabled or group.attempts or group.waiters or group.holds_on)
        ),
        key=lambda group: group.generations[group.generation].preloader_used,
        default=None,
    )


def _stays(process: ProcessState) -> bool:
    """Whether its memory is not about to be free: it serves, or drains."""
    return process.status is not EnabledStatus.DETACHED or (process.leaving is not None and not process.killed)
