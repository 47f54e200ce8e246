"""Waits until the applications' first processes are ready. ``core.readiness`` decides, again after every change of the
pool.
"""

from __future__ import annotations

from collections.abc import Callable

from passenger_trio.core import readiness
from passenger_trio.errors import StartupAborted, StartupStopped
from passenger_trio.pool.pool import Pool

__all__ = ["wait_until"]


async def wait_until(
    pool: Pool, reached: Callable[..., bool], *, all_or_nothing: bool, stopping: Callable[[], bool]
) -> None:
    """Return when ``reached`` (``may_accept`` or ``is_ready``) is true.

    :param all_or_nothing: whether a failed start ends the server.
    :param stopping: whether the server was told to stop (``Pool.notify_changed`` makes this loop
        check again).
    :raises StartupAborted: an application has failed to start, and that ends the server.
    :raises StartupStopped: the server was told to stop.
    """
    while True:
        changed = pool.changed
        if stopping():
            raise StartupStopped
        statistics = pool.active_statistics()
        failure = readiness.startup_failure(statistics) if all_or_nothing else None
        if failure is not None:
            raise StartupAborted(failure)
        if reached(statistics, all_or_nothing=all_or_nothing):
            return
        await changed.wait()
