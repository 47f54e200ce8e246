"""How much memory this process and those that it starts may have together (OP6): the smallest limit of its cgroups, of
version 2 or 1, or the RAM.

A limit of a cgroup further up holds, too, so each directory up to the mount is read. A limit that is as large as the
RAM or larger (version 1 writes "no limit" as a huge number) is none. Quick: a few small files.
"""

from __future__ import annotations

from collections.abc import Iterator

from passenger_trio.late_classes import frozen
from passenger_trio.system.cgroup_dirs import directories_up

__all__ = ["MemoryLimit", "memory_limit"]


@frozen
class MemoryLimit:
    """:ivar total: bytes; 0: unknown. :ivar source: what sets the limit: ``RAM``, or a file of a cgroup."""

    total: int
    source: str


def memory_limit(proc: str = "/proc") -> MemoryLimit:
    """What holds now: the limits of a cgroup may change while it is used."""
    found = MemoryLimit(_ram(proc), "RAM")
    for path in _limit_files(proc):
        limit = _number(path)
        if limit is not None and (limit < found.total or not found.total):
            found = MemoryLimit(limit, path)
    return found


def _limit_files(proc: str) -> Iterator[str]:
    for controller, names in (("", ("memory.max", "memory.high")), ("memory", ("memory.limit_in_bytes",))):
        for directory in directories_up(proc, controller):
            yield from (f"{directory}/{name}" for name in names)


def _number(path: str) -> int | None:
    """The number in a file; None: it has none (``max``), or cannot be read."""
    try:
        with open(path) as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdecimal() else None


def _ram(proc: str) -> int:
    """Bytes of the machine; 0: unknown."""
    try:
        with open(f"{proc}/meminfo") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
