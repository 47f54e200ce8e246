"""How much of the processor this program has used and wanted, and how much of the processors nobody uses.

A program wants the time in which it runs, and that in which it could run and has to wait for others. On a machine that is full a program gets less than it
wants, and its processor time alone would not show that it wants more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

__all__ = ["ProcessorTime", "idle_time"]

_IDLE, _WAITS_FOR_DISK = 3, 4
"""Places in a line of ``/proc/stat``, after the processor's name."""


class ProcessorTime:
    """Reads the kernel's count of the main thread. Where the kernel does not count (``CONFIG_SCHED_INFO``), the process's processor time is all that is known."""

    def __init__(self, path: str = "/proc/self/schedstat") -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def used_and_wanted(self) -> tuple[int, int]:
        """Microseconds, since the program began."""
        if self._file >= 0:
            try:
                ran, waited, _ = map(int, os.pread(self._file, 100, 0).split())
            except (OSError, ValueError):
                self.close()
            else:
                return ran // 1000, (ran + waited) // 1000
        used = time.process_time_ns() // 1000
        return used, used

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def idle_time(processors: Collection[int], path: str = "/proc/stat") -> float | None:
    """Seconds for which these processors had nothing to do, added up, since the machine began (proc(5)). None: the kernel does not say."""
    found = {b"cpu%d" % number for number in processors}
    ticks = 0
    try:
        # As bytes: the codec of a text is a module, which the user of ``--user`` may not be able to read.
        with open(path, "rb") as lines:
            for line in lines:
                name, *counts = line.split()
                if name in found:
                    found.remove(name)
                    ticks += int(counts[_IDLE]) + int(counts[_WAITS_FOR_DISK])
                elif not name.startswith(b"cpu"):
                    break
    except (OSError, ValueError, IndexError):
        return None
    return None if found else ticks / os.sysconf("SC_CLK_TCK")
