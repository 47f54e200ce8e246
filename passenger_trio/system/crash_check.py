"""Whether a process, or a child of it, crashed before its stream ended (R25).

When a process crashes, the kernel closes its streams normally, as after a clean exit. So the end of
a stream does not show whether a body that ends with it is complete. But before the kernel closes
the streams, it marks the process as ending, and records the signal. /proc shows that without
waiting.

``look`` records the processes when a body begins; ``verdict`` checks again at its end. For the
process itself, any exit other than status 0 is bad. For its children (a start command is often a
shell, and the program its child) only death by a crash signal is bad: a program may start others
that fail, and handles that itself.
"""

from __future__ import annotations

import signal

import attrs

from passenger_trio.late_classes import define
from passenger_trio.system.children import descendants
from passenger_trio.system.pidfd import PidFd

__all__ = ["CrashCheck"]

_MOST = 64
"""Limit on the processes that are examined."""
_REMEMBERED = 600.0
"""Seconds for which an ended process is remembered: longer than the server waits for a byte of a
response.
"""
_PF_EXITING = 0x4
_CRASHES = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGKILL,
        signal.SIGSYS,
        signal.SIGTRAP,
        signal.SIGXCPU,
    )
)


@define(eq=False)
class CrashCheck:
    """The ends of one process and of the processes that it starts. The caller passes monotonic
    times.
    """

    _leader: PidFd
    _alive: set[int] = attrs.field(factory=set)
    _ended: dict[int, tuple[float, bool | None]] = attrs.field(factory=dict)
    """Pid of a started process -> when its end was first seen, and whether it ended badly (None:
    unknown).
    """

    def look(self, now: float) -> None:
        """Record which processes run, and which have ended since the last call."""
        there = _descendants(self._leader.pid)
        for pid in there | self._alive:
            if pid in self._ended:
                continue
            state = _ending(pid)
            if state is None:
                self._end(pid, now, None)
            elif not state[0]:
                self._alive.add(pid)
            else:
                self._end(pid, now, True if state[1] & 0x7F in _CRASHES else None if state[1] else False)
        for pid in self._ended.keys() - there:
            if now - self._ended[pid][0] > _REMEMBERED:
                del self._ended[pid]

    def _end(self, pid: int, now: float, badly: bool | None) -> None:
        self._alive.discard(pid)
        self._ended[pid] = now, badly

    def verdict(self, since: float, now: float) -> bool | None:
        """Whether a process ended badly after ``since``. None: one has ended, but its status is
        unknown. Ask again in a moment: by then the process itself may have ended because of it.
        """
        if self._leader.poll():
            return self._leader.exit_status != 0
        state = _ending(self._leader.pid)
        if state is not None and state[0]:
            return state[1] != 0
        self.look(now)
        ends = [badly for when, badly in self._ended.values() if when >= since]
        return True if True in ends else None if None in ends else False


def _descendants(pid: int) -> set[int]:
    try:
        return set(descendants(pid)[:_MOST])
    except OSError:
        return set()  # no descriptor is left: a process that cannot be seen is not judged


def _ending(pid: int) -> tuple[bool, int] | None:
    """Whether the process is ending, and its exit code as of ``wait``. None: the process no longer
    exists.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(2048)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return False, 0
    fields = stat[stat.rindex(b")") + 2 :].split()  # from the third field of proc(5) on
    ending = fields[0] in (b"Z", b"X") or bool(int(fields[6]) & _PF_EXITING)
    return ending, int(fields[49]) if ending else 0
