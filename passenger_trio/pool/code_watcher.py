"""The code watcher: ``--reload``. It restarts an application in development when its files change.

The kernel reports changes (watchfiles, an extra); ``core.reload_filter`` knows which of them matter. A restart is
hard: the old version must not answer any more, so a version that does not start shows its error page, and the next
save repairs it.

Each application has a watch of its own, each supervised: if a directory cannot be watched, only that application is
not reloaded. If the kernel has no watches left, the watcher looks at the files periodically.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from passenger_trio.core.model import GroupKey
from passenger_trio.core.reload_filter import ReloadFilter
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.log_lines import processes as lines
from passenger_trio.options import AppOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.system.extras import import_extra

__all__ = ["CodeWatcher", "Watched", "watched"]

_QUIET = 50
"""Milliseconds without a change after which a save counts as complete: editors write several files."""
_MOST = 400
"""Milliseconds after which changes are reported even if more are coming."""
_LOOK = 1000
"""Milliseconds between two looks, where the kernel reports nothing."""


@frozen
class Watched:
    """One application: which directories are watched, and which files in them count."""

    key: GroupKey
    directories: tuple[str, ...]
    filter: ReloadFilter


def watched(key: GroupKey, root: str, app: AppOptions) -> Watched:
    """What ``--reload`` watches of an application.

    :raises OptionError: a directory does not exist.
    """
    directories = tuple(os.path.realpath(os.path.join(root, directory)) for directory in app.reload_dir or (".",))
    for directory in directories:
        if not os.path.isdir(directory):
            raise OptionError("--reload-dir", directory, "a directory, relative to the application's own")
    return Watched(key, directories, ReloadFilter(app.reload_include, app.reload_exclude))


class CodeWatcher:
    """``run`` is its task.

    :raises MissingExtra: there is something to watch, and watchfiles is not installed.
    """

    def __init__(self, pool: Pool, watched: list[Watched], kernel: ErrorKernel) -> None:
        self._pool = pool
        self._watched = watched
        self._kernel = kernel
        self._awatch: Callable[..., AsyncIterator[Any]] | None = None
        self._scope = trio.CancelScope()
        self.prepare(watched)

    def prepare(self, watched: list[Watched]) -> None:
        """Import watchfiles.

        :raises MissingExtra: watchfiles is not installed.
        """
        if watched and self._awatch is None:
            self._awatch = import_extra("watchfiles", "reload", "--reload").awatch

    def change(self, watched: list[Watched]) -> None:
        """Watch these from now on. Call ``prepare`` with them first."""
        if watched != self._watched:
            self._watched = watched
            self._scope.cancel()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as watches:
                    for one in self._watched:
                        watches.start_soon(self._kernel.supervise, "a watch of code", lambda one=one: self._watch(one))
                    await trio.sleep_forever()

    async def _watch(self, watched: Watched, *, polling: bool = False) -> None:
        lines.code_watched(group=watched.key, directories=", ".join(watched.directories))
        assert self._awatch is not None
        changes = self._awatch(
            *watched.directories,
            watch_filter=lambda change, path: _concerns(watched, path),
            debounce=_MOST,
            step=_QUIET,
            poll_delay_ms=_LOOK,
            force_polling=polling or None,
            raise_interrupt=False,
        )
        try:
            async for change in changes:
                paths = sorted({path for _, path in change})
                more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                lines.restart_begins(group=watched.key, reason=f"{paths[0]}{more} changed")
                self._pool.restart(watched.key, hard=True)
        except OSError as error:
            if polling:
                raise
            lines.code_polled(group=watched.key, reason=str(error))
            await self._watch(watched, polling=True)


def _concerns(watched: Watched, path: str) -> bool:
    for directory in watched.directories:
        if path.startswith(directory.rstrip("/") + "/"):
            relative = os.path.relpath(path, directory)
            return watched.filter.concerns(relative) and not _is_installed(directory, relative)
    return False


def _is_installed(directory: str, relative: str) -> bool:
    """Whether the file is in a virtual environment."""
    parts = relative.split("/")[:-1]
    return any(
        os.path.exists(os.path.join(directory, *parts[:depth], "pyvenv.cfg")) for depth in range(1, len(parts) + 1)
    )
