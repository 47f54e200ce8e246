"""The options that the policy needs: the limits of the pool and of each group, and the only mapping from
options to them.

A limit that is an option has the option's default, so each default stands once, in ``options``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import attrs

from passenger_trio.core.pool_size_option import share_of
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, PoolOptions

__all__ = ["GroupLimits", "PoolLimits", "group_limits", "pool_limits", "session_limit"]

_APP, _POOL = AppOptions(), PoolOptions()
"""The defaults."""

_RETRY_IN_DEVELOPMENT = 1.0
"""Seconds. A developer who has just repaired the file reloads the page."""


def _bounded(least: float, *, zero: bool = False) -> Callable[[object, attrs.Attribute[Any], float], None]:
    """A number that is at least ``least``, or zero if zero has a meaning of its own. Refuses NaN, too."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not (value >= least or (zero and value == 0)):
            raise ValueError(f"{attribute.name} must be at least {least}{' (or 0)' if zero else ''}, not {value!r}")

    return check


_TICK = 0.001
"""The shortest time of a limit. With a shorter one, ``now + time`` might equal ``now``, and the clock would spin."""


@frozen
class GroupLimits:
    """The limits of one group. Times are seconds.

    :raises ValueError: a limit makes no sense.
    """

    min_instances: int = attrs.field(default=_APP.min_instances, validator=_bounded(0))
    """Processes that are kept running, as far as ``max_instances`` and the pool have room."""
    max_instances: int = attrs.field(default=_APP.max_instances, validator=_bounded(0))
    """0: only the pool's own limit."""
    max_request_queue_size: int = attrs.field(default=_APP.max_request_queue_size, validator=_bounded(0))
    """0: no limit."""
    max_preloader_idle_time: float = attrs.field(
        default=_APP.max_preloader_idle_time, validator=_bounded(_TICK, zero=True)
    )
    """0: never retired."""
    max_requests: int = attrs.field(default=_APP.max_requests, validator=_bounded(0))
    """A process that has served this many is replaced. 0: never."""
    max_requests_jitter: int = attrs.field(default=_APP.max_requests_jitter, validator=_bounded(0))
    """Subtracted at most from ``max_requests``; drawn for each process."""
    max_process_lifetime: float = attrs.field(default=_APP.max_process_lifetime, validator=_bounded(_TICK, zero=True))
    max_drain_time: float = attrs.field(default=_APP.max_drain_time, validator=_bounded(_TICK, zero=True))
    """How long a detached process may take for its sessions. 0: no limit."""
    max_request_time: float = attrs.field(default=_APP.max_request_time, validator=_bounded(_TICK, zero=True))
    """The process of a request that takes longer is killed. 0: no limit."""
    max_request_queue_time: float = attrs.field(
        default=_APP.max_request_queue_time, validator=_bounded(_TICK, zero=True)
    )
    """A waiter that waits longer is refused. 0: no limit."""
    memory_limit: int = attrs.field(default=_APP.memory_limit, validator=_bounded(0))
    """A process with more bytes is replaced. 0: no limit."""
    hard_memory_limit: int = attrs.field(default=_APP.hard_memory_limit, validator=_bounded(0))
    """A process with more bytes is killed. 0: no limit."""
    force_concurrency: int = attrs.field(default=_APP.force_max_concurrent_requests_per_process, validator=_bounded(-1))
    """Sessions of each process at a time, whatever the process declares. 0: no limit; -1: what the process declares."""
    preloads: bool = False
    """A preloader forks its processes, unless the application turns out unsafe to fork.

    So the spawns of one generation wait for one program that loads the application."""
    retry_on_demand_after: float = attrs.field(default=float("inf"), validator=_bounded(0))
    """During a back-off: a request that comes this long after the last attempt starts a new one at once.

    Finite in development, where a developer who has just repaired the file reloads the page."""


@frozen
class PoolLimits:
    """The limits of the whole pool. Times are seconds.

    :raises ValueError: a limit makes no sense.
    """

    max_pool_size: int = attrs.field(default=int(_POOL.max_pool_size), validator=_bounded(1))
    """With a ``memory_share``: the number that fits now (``processes_by_memory``)."""
    memory_share: float = attrs.field(default=0.0, validator=_bounded(0.0))
    """The share of the memory that processes may use. 0: ``max_pool_size`` is fixed."""
    memory_most: int = attrs.field(default=1, validator=_bounded(1))
    """The most processes to plan for with a ``memory_share``."""
    pool_idle_time: float = attrs.field(default=_POOL.pool_idle_time, validator=_bounded(_TICK, zero=True))
    """0: no process is retired for being idle."""
    max_concurrent_spawns: int = attrs.field(default=2, validator=_bounded(1))
    """Programs that load an application at the same time, without the slow ones (``scaling``)."""
    backoff_first: float = attrs.field(default=0.1, validator=_bounded(_TICK))
    backoff_factor: float = attrs.field(default=3.0, validator=_bounded(1))
    """By default, an application that never starts costs 8 spawns in its worst minute (R42), and 2 in any later one."""
    backoff_max: float = attrs.field(default=30.0, validator=_bounded(_TICK))
    """The longest wait between spawns. A process that has lived for so long counts as one that starts well."""


def pool_limits(options: PoolOptions, cores: int, most: int = 1) -> PoolLimits:
    """:param cores: processor cores of the server. By default as many programs load at the same time.
    :param most: the most processes to plan for if the memory decides.
    """
    size = options.max_pool_size
    return PoolLimits(
        max_pool_size=size if isinstance(size, int) else most,
        memory_share=share_of(size),
        memory_most=1 if isinstance(size, int) else most,
        pool_idle_time=options.pool_idle_time,
        max_concurrent_spawns=options.max_concurrent_spawns or cores,
    )


def group_limits(options: AppOptions, *, preloads: bool) -> GroupLimits:
    """:param preloads: whether a preloader forks the application's processes."""
    return _limits_of(
        _SAME(options), options.force_max_concurrent_requests_per_process, preloads, options.is_development
    )


_SAME_NAMES = (
    "min_instances",
    "max_instances",
    "max_request_queue_size",
    "max_preloader_idle_time",
    "max_requests",
    "max_requests_jitter",
    "max_process_lifetime",
    "max_drain_time",
    "max_request_time",
    "max_request_queue_time",
    "memory_limit",
    "hard_memory_limit",
)
_SAME: Callable[[AppOptions], tuple[float, ...]] = attrgetter(*_SAME_NAMES)


@functools.lru_cache(maxsize=256, typed=True)
def _limits_of(same: tuple[float, ...], force_concurrency: int, preloads: bool, is_development: bool) -> GroupLimits:
    """Limits, of which equal ones are the same object: thousands of applications have the same few (OP5)."""
    return GroupLimits(
        **dict(zip(_SAME_NAMES, same, strict=True)),  # type: ignore[arg-type]
        force_concurrency=force_concurrency,
        preloads=preloads,
        retry_on_demand_after=_RETRY_IN_DEVELOPMENT if is_development else float("inf"),
    )


def session_limit(concurrencies: Sequence[int], max_pool_size: int) -> int:
    """The most sessions that can be open at the same time; 0: no limit.

    :param concurrencies: sessions that a process of each application serves at a time; 0: no limit.
    """
    return max_pool_size * max(concurrencies, default=1) if all(concurrencies) else 0
