"""Memory and processor time of a process, from /proc. Slow (``smaps_rollup`` walks page tables):
call it in a thread.
"""

from __future__ import annotations

import os

from passenger_trio.late_classes import frozen

__all__ = ["ProcessGauge", "measure", "resident"]

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@frozen
class ProcessGauge:
    """Bytes, and seconds of processor time. ``pss`` and ``uss`` are None where the kernel does not
    report them.
    """

    pid: int
    rss: int
    pss: int | None
    uss: int | None
    cpu_time: float


def measure(pid: int) -> ProcessGauge | None:
    """None: the process does not exist, or cannot be measured now because no descriptor or memory
    is left.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
        rss = resident(pid)
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    cpu_time = (int(fields[11]) + int(fields[12])) / _TICK
    pss: int | None = None
    uss: int | None = None
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    pss = int(line.split()[1]) * 1024
                elif line.startswith((b"Private_Clean:", b"Private_Dirty:")):
                    uss = (uss or 0) + int(line.split()[1]) * 1024
    except OSError:
        pass
    return ProcessGauge(pid, rss, pss, uss, cpu_time)


def resident(pid: int) -> int:
    """The resident memory of a process in bytes. Quick.

    :raises OSError: the process does not exist, or no descriptor is left.
    """
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
