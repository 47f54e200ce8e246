"""The restart-file poller looks periodically at ``restart.txt`` and ``always_restart.txt`` of the applications
(``core.restart_files``), off the request path.

It looks only at *awake* applications: those with processes, starts, waiters or failures. There may be thousands of
others (OP5), whose next processes load the current code anyway. When an application wakes, the poller notes its files once
without a restart, and compares them in each round from then on.

It also looks at the code of applications that crash or do not start, because repairing the code must be enough to
start them (``core.automatic_restart``). It notes the state of the code when a generation begins.

One round is one hop to a dedicated thread, so a file system that hangs stops the poller and nothing else. If no
thread can be started, the round is left out; the next round notices a file that was touched meanwhile.

It decides nothing: observations become facts for the policy."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import trio

from passenger_trio.core.model import GroupKey
from passenger_trio.core.restart_files import ALWAYS_RESTART, RESTART, RestartFile
from passenger_trio.log_lines import processes as lines
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
        """The files of the awake applications."""
        self._always: set[GroupKey] = set()
        self._limiter = trio.CapacityLimiter(1)
        self._changed = trio.Event()
        self.watch(directories, roots, interval)

    def watch(self, directories: Mapping[GroupKey, str], roots: Mapping[GroupKey, str], interval: float) -> None:
        """Look at these applications from now on. The poller keeps what it has noted about applications that stay.

        :param interval: seconds between two rounds; 0: do not look.
        """
        for key in self._code.keys() | self._files.keys() | self._always:
            if directories.get(key) != self._directories.get(key) or roots.get(key) != self._roots.get(key):
                self._code.pop(key, None)
                self._files.pop(key, None)
                self._always.discard(key)
        self._directories = dict(directories)
        self._roots = dict(roots)
        self._interval = interval
        self._changed.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled.

        The poller looks at once when an application wakes: its processes load the current code, and a file that is
        touched after that means a restart.
        """
        self._pool.on_spawn = self._wake
        task_status.started()
        due = trio.current_time() + self._interval
        while True:
            if self._interval:
                now = trio.current_time()
                awake = self._awake()
                for key in self._files.keys() - awake:
                    del self._files[key]
                    self._code.pop(key, None)
                if now < due:
                    awake -= self._files.keys()
                else:
                    due = now + self._interval
                if awake:
                    if not await self._look(awake):
                        await trio.sleep(self._interval)
                    await self._look_at_code(awake)
            await self._sleep(min(due, trio.current_time() + self._interval))

    def _wake(self) -> None:
        self._changed.set()

    def _awake(self) -> set[GroupKey]:
        return self._directories.keys() & self._pool.active

    async def _sleep(self, due: float) -> None:
        """Sleep until ``due``, until an application wakes, or until ``watch`` is called."""
        self._changed = trio.Event()
        if self._interval and not self._awake() <= self._files.keys():
            await trio.lowlevel.checkpoint()
            return
        seconds = (
            max(0.0, due - trio.current_time()) if self._interval else float("inf")
        )  # a look may have taken longer
        with trio.move_on_after(seconds):
            await self._changed.wait()

    async def _look(self, keys: Collection[GroupKey]) -> bool:
        """Look at the files of these applications; False: no thread can be started."""
        directories = {key: self._directories[key] for key in keys}
        try:
            seen = await in_thread(_stat, directories, limiter=self._limiter, abandon_on_cancel=True)
        except NoThread as error:
            lines.restart_files_unseen(groups=len(directories), reason=str(error))
            return False
        for key, (mtime, always) in seen.items():
            if not self._pool.has(key) or self._directories.get(key) != directories[key]:
                continue  # it was removed meanwhile
            if always != (key in self._always):
                (self._always.add if always else self._always.discard)(key)
                lines.always_restart_changed(group=key, reason="exists" if always else "is gone")
                self._pool.always_restart(key, always)
            file = self._files.get(key)
            if file is None:
                self._files[key] = file = RestartFile()
                file.first_seen(mtime)
            elif file.seen(mtime):
                lines.restart_begins(group=key, reason="restart.txt was touched")
                self._pool.restart(key)
        return True

    async def _look_at_code(self, keys: Collection[GroupKey]) -> None:
        """Note the code of a new generation. If a generation is troubled, check whether its code
        has changed.
        """
        serving = {key: self._pool.generation(key) for key in keys if self._pool.has(key) and key in self._roots}
        roots = {
            key: self._roots[key]
            for key, generation in serving.items()
            if self._code.get(key, (0, 0))[0] != generation or self._pool.is_troubled(key)
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


def _stat(directories: Mapping[GroupKey, str]) -> _Seen:
    return {
        key: (_mtime(f"{directory}/{RESTART}"), _mtime(f"{directory}/{ALWAYS_RESTART}") is not None)
        for key, directory in directories.items()
    }


def _signatures(roots: Mapping[GroupKey, str]) -> dict[GroupKey, int]:
    return {key: code_signature(root) for key, root in roots.items()}


def _mtime(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
