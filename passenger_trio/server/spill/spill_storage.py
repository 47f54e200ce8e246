"""Spill storage: the disk space that all buffers of one server share. This module has the directory, the quota, the threads, and
the log lines about failures.

``core/spill_quota.py`` decides whether the disk may be tried. This module passes it the time, and counts files.

Law: a failure of the disk raises nothing here. ``lost`` makes the exception that a buffer raises."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from passenger_trio.core.spill_ledger import SpillLedger
from passenger_trio.core.spill_quota import SpillQuota
from passenger_trio.errors import SpillLost
from passenger_trio.log_lines import server as lines
from passenger_trio.system import tempfiles
from passenger_trio.system.tempfiles import Received, Take

__all__ = ["Buffer", "Files", "SpillStorage"]

_THREADS = 4
"""The most writes at the same time. They have a limiter of their own, so that a slow disk delays only buffers."""


class Buffer(Protocol):
    """A buffer, as the storage sees it."""

    ledger: SpillLedger


class Files(Protocol):
    """The system calls that can fail because of the disk. ``system.tempfiles`` implements them; tests inject errors here."""

    def open_unlinked(self, directory: str) -> int: ...
    def write_at(self, descriptor: int, data: bytes | bytearray, offset: int) -> tuple[int, int | None]: ...
    def receive_at(
        self, sock: socket.socket, descriptor: int, offset: int, most: int, take: Take | None = None
    ) -> Received: ...
    def send_file(self, sock: int, descriptor: int, offset: int, count: int) -> int: ...
    def truncate(self, descriptor: int) -> None: ...


class SpillStorage:
    """The disk space of all buffers of one server: the directory, the quota, the threads."""

    def __init__(
        self,
        directory: str,
        limit: int,
        current_time: Callable[[], float],
        files: Files = tempfiles,
        *,
        takes_file: Callable[[], bool] = lambda: True,
        make_room: Callable[[], object] = lambda: None,
    ) -> None:
        """:param directory: where the files are (``""``: where temporary files are). :param limit: bytes of all of them (0: most of what is free now).
        :param takes_file: whether there is a descriptor for one more file (``core.descriptors``). :param make_room: gives some back that are not needed.
        """
        self.directory: str = directory or tempfiles.default_directory()
        self.quota: SpillQuota = SpillQuota(limit, 0 if limit else tempfiles.free_space(self.directory))
        self.buffers: set[Buffer] = set()
        """The buffers that hold bytes, or a file."""
        self.open_files = 0
        """Open files, and files that a thread is about to open."""
        self.current_time = current_time
        self.files = files
        self._takes_file = takes_file
        self._make_room = make_room
        self.limiter: trio.CapacityLimiter = trio.CapacityLimiter(_THREADS)

    @property
    def memory(self) -> int:
        """Bytes that buffers hold in memory."""
        return sum(buffer.ledger.memory for buffer in self.buffers)

    def usable(self, *, new_file: bool) -> bool:
        """Whether a write may be tried now. ``new_file``: the file must still be opened."""
        return self.quota.usable(self.current_time(), new_file=new_file) and (not new_file or self._takes_file())

    def paused(self) -> None:
        """Count that a producer must wait."""
        now = self.current_time()
        quota = self.quota
        quota.paused += 1
        if quota.exhausted(now):
            quota.errors["quota"] += 1
            if quota.worth_a_line(now):
                lines.spill_full(limit=quota.limit)
        elif not self._takes_file():
            self._make_room()
            quota.errors["no_descriptor"] += 1
            if quota.worth_a_line(now):
                lines.spill_no_descriptor(open_files=self.open_files)

    def failed(self, error: int) -> None:
        """A file could not be opened or written."""
        now = self.current_time()
        word = self.quota.failed(error, now)
        if self.quota.worth_a_line(now):
            lines.spill_failed(directory=self.directory, code=word, reason=os.strerror(error))

    def lost(self, reason: str) -> SpillLost:
        """Bytes on disk cannot be read back: count and log that, and make the exception."""
        self.quota.errors["read"] += 1
        if self.quota.worth_a_line(self.current_time()):
            lines.spill_lost(directory=self.directory, reason=reason)
        return SpillLost(f"its buffer cannot be read back: {reason}")
