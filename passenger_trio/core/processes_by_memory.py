"""How many processes fit into memory (``--max-pool-size auto``, or a share: OP6).

This module knows how much memory there is, what the server itself uses, and the last measured size (PSS) of each
process. It never knows who measures, or where a limit of memory comes from.

How the number of processes is computed::

    budget    share x memory, minus what the server, its fronts and its preloaders use (preloaders by their average)
    used      the last measured size of each process; without a measurement, the average of its application
    reserved  processes that are missing to the minimums, and one for each application with waiters and no process
    next      the largest average of the applications that may grow, because any of them may be the next to grow
    number    processes + reserved + (budget - used - reserved) / next, rounded down

The average of an application comes from the first of these that exists:

* the measured sizes of its processes;
* what its first process occupied when it became ready (``estimated``). A measurement takes a moment, and a process may make
  room for another application before it was ever measured;
* the average of the other applications, together with ``FIRST_GUESS``, which weighs as much as ``_PRIOR`` applications.
  (With ``FIRST_GUESS`` alone, a host of two hundred small applications would plan for two processes.)

Laws:

* The number is never below 1, and never below the sum of the applications' minimums. Otherwise no process starts that
  does not fit by the last measurements. At or above the number, only a replacement of another process starts.
* A process that started because it fitted may grow beyond the budget by a part of a process (``_SLACK``) before another must
  go. A process grows when it begins to serve, and its share of common pages changes as others come and go. Without the slack
  a full pool would be above its number after one measurement, and below it after the next. A process that has not started yet
  (``reserved``) gets no slack.
* When memory is short, the preloaders of sleeping applications are retired first, those that forked least recently
  first; then idle processes above the minimums, idle the longest first. No request is ended for memory: a pool of busy
  processes stays above its number, and shrinks as they become idle.
* ``limits.max_pool_size`` is the current number, so every other module knows one limit only.
"""

from __future__ import annotations

import math
from itertools import chain

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
"""The slack is this fraction of a process: 1 / ``_SLACK``. The memory outside the budget has room for it."""
_FILES_OF_SERVER, _FILES_EACH = 40, 4
_MOST = 4096


def most_by_files(limit: int) -> int:
    """The most processes to plan for, so that they take a quarter of the server's descriptors (``descriptors``).

    :param limit: descriptors that the server may have; negative: no limit.
    """
    return _MOST if limit < 0 else min(_MOST, max(1, (limit // 4 - _FILES_OF_SERVER) // _FILES_EACH))


@frozen
class Calculation:
    """How the number of processes was found. Sizes are bytes."""

    share: float
    total: int
    """All memory: the limit of a cgroup, or RAM."""
    own: int
    """What the server uses itself, with its fronts and preloaders."""
    used: int
    """What the processes use: each as last measured, or as estimated."""
    reserved: int
    """Bytes kept for processes that are missing to the minimums, and for applications with waiters and no process."""
    next_size: int
    """The size that one more process is assumed to have."""
    next_group: str
    """The application whose average ``next_size`` is; empty: no application is awake."""
    is_guess: bool
    """Whether none of that application's processes was ever measured."""
    minimum: int
    """The minimums of all applications together."""
    most: int
    """The bound that the server's descriptors set on the number."""
    fits: int
    """The number of processes that fit into the budget."""
    free: int
    """What is left of the budget; negative: more is used."""
    slack: int
    """Bytes by which the use may exceed the budget before a process must go."""

    @property
    def is_short(self) -> bool:
        """Whether something has to go."""
        return self.free < -self.slack

    @property
    def number(self) -> int:
        """The most processes."""
        return max(1, self.minimum, min(self.fits, self.most))


def measured(process: ProcessState) -> None:
    """A process was measured: compute its group's average over the processes that serve.

    If none serves any more, the process that is leaving counts.
    """
    group = process.group
    sizes = [one.size for one in group.enabled.values() if one.size] or [process.size]
    if any(sizes):
        group.process_size, group.is_measured = sum(sizes) // len(sizes), True


def estimated(group: GroupState, size: int) -> None:
    """A process of the group became ready, and occupies ``size`` bytes, shared pages included; 0: unknown."""
    if size and not group.process_size:
        group.process_size = size


def guess_anew(pool: PoolState) -> None:
    """A round of measurements is complete: compute what a process of an application may use that never had one."""
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
    for group in chain(pool.active.values(), pool.waiting.values()):
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
    """Set ``max_pool_size`` to what fits, and retire the preloaders of sleeping applications and the idle processes that do
    not fit. Until memory is measured for the first time, nothing changes and nothing grows.
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
    """The number of preloaders that were not told to go."""
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
    """Whether the process keeps its memory for now: it serves, or drains."""
    return process.status is not EnabledStatus.DETACHED or (process.leaving is not None and not process.killed)
