"""The watch: looks at ``restart.txt`` and ``always_restart.txt`` of every application, from time to time and off the request path.

All looks of one turn are one thread hop, on a thread of their own: a file system that hangs stops the watch and nothing else. What is seen
becomes facts (``core.restart_files``, ``PoolPolicy.always_restart``); nothing is decided here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import trio

from passenger_trio.core.model import GroupKey
from passenger_trio.core.restart_files import RestartFile
from passenger_trio.pool.pool import Pool

__all__ = ["Watch"]

_log = logging.getLogger("passenger_trio.pool")

_Seen = dict[GroupKey, tuple[int | None, bool]]
"""The time of modification of ``restart.txt``, and whether ``always_restart.txt`` is there."""


class Watch:
    """``run`` is its task."""

    def __init__(self, pool: Pool, directories: Mapping[GroupKey, str], interval: float) -> None:
        """:param directories: where each application's files are. :param interval: seconds between two looks."""
        self._pool = pool
        self._directories = dict(directories)
        self._interval = interval
        self._files = {key: RestartFile() for key in directories}
        self._always = dict.fromkeys(directories, False)
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when everything was seen once: what changes from then on is noticed."""
        for key, (mtime, _) in (await self._look()).items():
            self._files[key].first_seen(mtime)
        task_status.started()
        while True:
            await trio.sleep(self._interval)
            for key, (mtime, always) in (await self._look()).items():
                if key not in self._pool.homes:
                    continue  # it is only being added
                if always != self._always[key]:
                    self._always[key] = always
                    _log.info("%s: always_restart.txt is %s", key, "there" if always else "gone")
                    self._pool.always_restart(key, always)
                if self._files[key].seen(mtime):
                    _log.info("%s is restarted: restart.txt was touched", key)
                    self._pool.restart(key)

    async def _look(self) -> _Seen:
        return await trio.to_thread.run_sync(_stat, self._directories, limiter=self._limiter, abandon_on_cancel=True)


def _stat(directories: Mapping[GroupKey, str]) -> _Seen:
    return {
        key: (_mtime(f"{directory}/restart.txt"), _mtime(f"{directory}/always_restart.txt") is not None)
        for key, directory in directories.items()
    }


def _mtime(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
