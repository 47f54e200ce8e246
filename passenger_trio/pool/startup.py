"""Waiting for the first processes of the applications: what ``core.readiness`` decides, asked again whenever the pool has changed."""

from __future__ import annotations

from collections.abc import Callable

from passenger_trio.core import readiness
from passenger_trio.errors import StartupAborted, StartupStopped
from passenger_trio.pool.pool import Pool

__all__ = ["wait_until"]


async def wait_until(
    pool: Pool, reached: Callable[..., bool], *, all_or_nothing: bool, stopping: Callable[[], bool]
) -> None:
    """Return when ``reached`` (``may_accept`` or ``is_ready``) is so.

    :param all_or_nothing: whether a failed start is to end the server.
    :param stopping: whether the server was told to stop (``Pool.notify_changed`` has this looked at).
    :raises StartupAborted: an application has failed to start, and that is to end the server.
    :raises StartupStopped: it was told to stop.
    """
    while True:
        changed = pool.changed
        if stopping():
            raise StartupStopped
        statistics = pool.statistics()
        failure = readiness.startup_failure(statistics) if all_or_nothing else None
        if failure is not None:
            raise StartupAborted(failure)
        if reached(statistics, all_or_nothing=all_or_nothing):
            return
        await changed.wait()
