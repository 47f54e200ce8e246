"""What a test must not leave behind: descriptors, threads and processes of the application, sockets of clients, lines of
level error (TH7).

The application's process ends with the test, so a descriptor that it leaks does no harm here. But in production it would:
so the open descriptors and threads are counted when the process is ready and when the test has ended. Some are opened once and
kept, by design, such as a connection to a database. Hence the threshold.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from passenger_trio.late_classes import frozen

__all__ = ["KINDS", "Held", "error_lines", "family", "grown", "is_ending", "look", "outlived"]

KINDS = ("descriptors", "threads", "processes", "sockets")
_SHOWN = 8
_EVIDENCE = re.compile(r"\[error ([0-9a-f]+)\]")
_NUMBERED = re.compile(r"\[error ([0-9a-f]+)\]$")
"""A line of a failure's evidence, and the line that tells of the failure."""
_INODE = re.compile(r":\[\d+\]$")
_PF_EXITING = 0x4
"""Of a task's flags (linux/sched.h; proc(5), ``stat``, field 9)."""


@frozen
class Held:
    """What a process holds at one moment.

    :ivar descriptors: target of each open descriptor -> how many have it.
    """

    descriptors: Counter[str] = attrs.field(factory=Counter)
    threads: int = 0


def look(pid: int) -> Held:
    """What the process holds now; nothing if it has ended."""
    return Held(_descriptors(pid), _count(f"/proc/{pid}/task"))


def family(pid: int) -> dict[int, str]:
    """Pid and command of each descendant of a process."""
    found: dict[int, str] = {}
    queue = [pid]
    while queue:
        for task in _list(f"/proc/{queue[0]}/task"):
            for child in _read(f"/proc/{queue[0]}/task/{task}/children").split():
                queue.append(int(child))
                found[int(child)] = _read(f"/proc/{child}/cmdline").replace("\0", " ").strip()
        del queue[0]
    return found


def grown(before: Held, now: Held, threshold: int) -> dict[str, str]:
    """Kind of a leak -> what to say of it.

    :param threshold: new descriptors or threads of a process that are no leak.
    """
    found = {}
    new = now.descriptors - before.descriptors
    if new.total() > threshold:
        listed = ", ".join(f"{target} ({count})" if count > 1 else target for target, count in new.most_common(_SHOWN))
        found["descriptors"] = f"the application has {new.total()} more open descriptors than before the test: {listed}"
    if now.threads - before.threads > threshold:
        found["threads"] = f"the application has {now.threads - before.threads} more threads than before the test"
    return found


def outlived(children: Mapping[int, str]) -> dict[int, str]:
    """Those of the processes that still run."""
    return {pid: command for pid, command in children.items() if _state(pid) not in ("", "Z", "X")}


def is_ending(pid: int) -> bool:
    """Whether the process has ended, or is about to: what it had open may be closed before the kernel tells anybody of its end."""
    after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return not after_name or after_name[0] in "ZX" or bool(int(after_name[6]) & _PF_EXITING)


def error_lines(log: Iterable[Mapping[str, Any]], allowed: Iterable[str]) -> list[str]:
    """The events of level error or critical that no pattern matches.

    The evidence of a failure has a line for each line of a traceback, with the number of the failure in front. Who expects the failure expects these.
    """
    patterns = [re.compile(pattern) for pattern in allowed]
    events = [str(line["event"]) for line in log if line.get("level") in ("error", "critical")]
    unexpected = [event for event in events if not any(one.search(event) for one in patterns)]
    expected = {
        found[1]
        for event in set(events).difference(unexpected)
        if not _EVIDENCE.match(event) and (found := _NUMBERED.search(event))
    }
    return [event for event in unexpected if not ((found := _EVIDENCE.match(event)) and found[1] in expected)]


def _descriptors(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue  # closed meanwhile
            found[_INODE.sub("", target)] += 1
    except OSError:
        pass  # it has ended
    # Streams to the server come and go with requests. A socket that leaks shows in its number all the same, for the
    # server keeps few.
    return found


def _count(directory: str) -> int:
    try:
        return len(os.listdir(directory))
    except OSError:
        return 0


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].strip()[:1]


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
