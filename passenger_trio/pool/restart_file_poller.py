"""The restart-file poller: looks at ``restart.txt`` and ``always_restart.txt`` of every
application, periodically and off the request path.

It also looks at the code of applications that crash or do not start, because repairing the code
must be enough to start them (``core.mending``). It notes the state of the code when a generation
begins.

One round is one hop to a dedicated thread, so a file system that hangs stops the poller and nothing
else. If no thread can be started, the round is left out; the next round notices a file that was
touched meanwhile.

Observations become facts (``core.restart_files``, ``PoolPolicy.always_restart``); nothing is
decided here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import trio

from passenger_trio.core.model import FIRST_GENERATION, GroupKey
from passenger_trio.core.restart_files import RestartFile
from passenger_trio.log_lines import pool as lines
from passenger_trio.pool.pool import Pool
from passenger_trio.spawning.code_files import code_signature
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["RestartFilePoller"]

_Seen = dict[GroupKey, tuple[int | None, bool]]
"""The modification time of ``restart.txt``, and whether ``always_restart.txt`` exists."""


class RestartFilePoller:
    """``run`` is its task."""

    def __init__(
        self, pool: Pool, directories: Mapping[GroupKey, str], roots: Mapping[GroupKey, str], interval: float
    ) -> None:
        """:param directories: the directory of each application's ``restart.txt``.
        :param roots: the directory of each application's code.
        :param interval: seconds between two rounds.
        """
        self._pool = pool
        self._directories: dict[GroupKey, str] = {}
        self._roots: dict[GroupKey, str] = {}
        self._code: dict[GroupKey, tuple[int, int]] = {}
        """The generation that served when the code was looked at, and the code's signature."""
        self._files: dict[GroupKey, RestartFile] = {}
        self._unseen: set[GroupKey] = set()
        self._always: dict[GroupKey, bool] = {}
        self._limiter = trio.CapacityLimiter(1)
        self._changed = trio.Event()
        self.watch(directories, roots, interval)

    def watch(self, directories: Mapping[GroupKey, str], roots: Mapping[GroupKey, str], interval: float) -> None:
        """Look at these applications from now on. What is known of those that stay is kept.

        :param interval: seconds between two rounds; 0: do not look.
        """
        for key in self._directories.keys() | directories.keys():
            if directories.get(key) != self._directories.get(key) or roots.get(key) != self._roots.get(key):
                self._code.pop(key, None)
                self._files.pop(key, None)
                self._always.pop(key, None)
                self._unseen.discard(key)
        for key in directories.keys() - self._files.keys():
            self._files[key] = RestartFile()
            self._always[key] = False
            self._unseen.add(key)
        self._directories = dict(directories)
        self._roots = dict(roots)
        self._interval = interval
        self._changed.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled.

        Reports itself as started after one look at every ``restart.txt``: changes from then on are
        noticed. Looking at the code of thousands of applications may take longer than starting to
        serve, so nothing waits for that.
        """
        if self._interval:
            await self._look()
        task_status.started()
        if self._interval:
            await self._look_at_code()
        while True:
            await self._sleep()
            for key, (mtime, always) in (await self._look()).items():
                if not self._pool.has(key) or key not in self._files:
                    continue  # the group is still being added, or was removed meanwhile
                if always != self._always[key]:
                    self._always[key] = always
                    lines.always_restart_changed(group=key, reason="exists" if always else "is gone")
                    self._pool.always_restart(key, always)
                if self._files[key].seen(mtime):
                    lines.restart_begins(group=key, reason="restart.txt was touched")
                    self._pool.restart(key)
            await self._look_at_code()

    async def _sleep(self) -> None:
        while True:
            self._changed = changed = trio.Event()
            with trio.move_on_after(self._interval or float("inf")):
                await changed.wait()
            if self._interval and not changed.is_set():
                return

    async def _look_at_code(self) -> None:
        """Note the code of a new generation. If a generation is troubled, check whether its code
        has changed.
        """
        serving = {key: self._pool.generation(key) if self._pool.has(key) else FIRST_GENERATION for key in self._roots}
        roots = {
            key: root
            for key, root in self._roots.items()
            if self._code.get(key, (0, 0))[0] != serving[key] or (self._pool.has(key) and self._pool.is_troubled(key))
        }
        if not roots:
            return
        try:
            seen = await in_thread(_signatures, roots, limiter=self._limiter, abandon_on_cancel=True)
        except NoThread as error:
            lines.code_unseen(groups=len(roots), reason=str(error))
            return
        for key, signature in seen.items():
            if key not in self._roots or not self._pool.has(key):
                continue  # it was removed meanwhile
            generation, before = self._code.get(key, (0, 0))
            if generation != serving[key] or (signature != before and self._pool.is_troubled(key)):
                self._code[key] = (serving[key], signature)
                if generation == serving[key]:
                    lines.restart_begins(group=key, reason="it crashes or does not start, and its code has changed")
                    self._pool.code_changed(key)

    async def _look(self) -> _Seen:
        try:
            seen = await in_thread(_stat, self._directories, limiter=self._limiter, abandon_on_cancel=True)
        except NoThread as error:
            lines.restart_files_unseen(groups=len(self._directories), reason=str(error))
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


def _signatures(roots: Mapping[GroupKey, str]) -> dict[GroupKey, int]:
    return {key: code_signature(root) for key, root in roots.items()}


def _mtime(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
