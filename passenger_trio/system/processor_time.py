"""How much of the processor this program has wanted: the time in which it ran, and that in which it could have run and had to wait for others.

On a machine that is full a program gets less than it wants, and its processor time alone would not show that it wants more.
"""

from __future__ import annotations

import os
import time

__all__ = ["ProcessorTime"]


class ProcessorTime:
    """Reads the kernel's count of the main thread. Where the kernel does not count (``CONFIG_SCHED_INFO``), the process's processor time is all that is known."""

    def __init__(self, path: str = "/proc/self/schedstat") -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def wanted(self) -> int:
        """Microseconds, since the program began."""
        if self._file >= 0:
            try:
                ran, waited, _ = map(int, os.pread(self._file, 100, 0).split())
            except (OSError, ValueError):
                self.close()
            else:
                return (ran + waited) // 1000
        return time.process_time_ns() // 1000

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
