"""The watch: looks at ``restart.txt`` and ``always_restart.txt`` of every application, from time to time and off the request path.

All looks of one turn are one thread hop, on a thread of their own: a file system that hangs stops the watch and nothing else. Where no thread can be had a turn is left
out: a file that is touched meanwhile is noticed by the next. What is seen
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
from passenger_trio.system.threads import NoThread, in_thread

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
        self._unseen = set(directories)
        self._always = dict.fromkeys(directories, False)
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when everything was seen once: what changes from then on is noticed."""
        await self._look()
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
        try:
            seen = await in_thread(_stat, self._directories, limiter=self._limiter, abandon_on_cancel=True)
        except NoThread as error:
            _log.warning("restart.txt is not looked at this time: %s", error)
            return {}
        for key in self._unseen.intersection(seen):
            self._files[key].first_seen(seen[key][0])
        self._unseen.difference_update(seen)
        return seen


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
