"""How many processors this process and those that it starts may use together at most: the smallest quota of its cgroups, of version 2 or 1.

A container with ``--cpus=2`` sees all processors of its machine, and may use two of them at a time. A quota of a cgroup further up holds, too, so each
directory up to the mount is read. Quick: a few small files.
"""

from __future__ import annotations

import math
import os

from passenger_trio.late_classes import frozen
from passenger_trio.system.cgroup_dirs import directories_up
from passenger_trio.system.syscalls import processors

__all__ = ["ProcessorQuota", "cpus", "processor_quota", "usable"]

_NS, _US = 1e9, 1e6


@frozen
class ProcessorQuota:
    """:ivar cores: processors at a time, as 1.5; infinite: no quota. :ivar usage: the file that says what all in that cgroup have used; empty: none."""

    cores: float = math.inf
    usage: str = ""

    def used(self) -> float | None:
        """Seconds of processor time of all processes that share the quota, since their cgroup was made. None: unknown."""
        try:
            with open(self.usage, "rb") as file:
                words = file.read(4096).split()
            if self.usage.endswith("cpu.stat"):
                return int(words[words.index(b"usage_usec") + 1]) / _US
            return int(words[0]) / _NS
        except (OSError, ValueError, IndexError):
            return None


def processor_quota(proc: str = "/proc") -> ProcessorQuota:
    """What holds now: the quota of a cgroup may change while it is used."""
    found = ProcessorQuota()
    for directory in directories_up(proc, ""):
        cores = _quota(_words(f"{directory}/cpu.max"))
        if cores < found.cores:
            found = ProcessorQuota(cores, f"{directory}/cpu.stat")
    accounts = list(directories_up(proc, "cpuacct"))
    for directory in directories_up(proc, "cpu"):
        cores = _quota(_words(f"{directory}/cpu.cfs_quota_us") + _words(f"{directory}/cpu.cfs_period_us"))
        if cores < found.cores:
            # The two controllers are often mounted together; else the directory has the same name in the other one, if it has one there.
            name = os.path.basename(directory)
            same = next((other for other in accounts if other == directory or os.path.basename(other) == name), "")
            found = ProcessorQuota(cores, same and f"{same}/cpuacct.usage")
    return found


def cpus() -> int:
    """How many processors this process and those that it starts can use together: no more than its quota, rounded up."""
    return usable(len(processors()), processor_quota().cores)


def usable(most: int, quota: float) -> int:
    """Of so many processors, with a quota: a part of one counts as one."""
    return most if quota >= most else max(1, math.ceil(quota))


def _words(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read(100).split()
    except OSError:
        return []


def _quota(words: list[bytes]) -> float:
    """Of ``200000 100000`` (quota and period, microseconds): 2.0. ``max`` and -1 are none."""
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[0]) or not int(words[1]):
        return math.inf
    return int(words[0]) / int(words[1])
