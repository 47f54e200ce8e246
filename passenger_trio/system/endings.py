"""Whether a process, or a child of it, crashed before its stream ended (R25).

When a process crashes, the kernel closes its streams normally, as after a clean exit. So the end of a stream does not show whether a body
that ends with it is whole. But before it closes the streams, the kernel marks the process as ending, and by which signal. /proc shows that
without waiting.

``look`` notes the processes when a body begins; ``verdict`` looks again at its end. For the process itself, any exit other than status 0 is
bad. For its children (a start command is often a shell, and the program its child) only death by a crash signal is bad: a program may start
others that fail, and handles that itself.
"""

from __future__ import annotations

import signal

import attrs

from passenger_trio.system.children import descendants
from passenger_trio.system.pidfd import PidFd

__all__ = ["Endings"]

_MOST = 64
"""Processes that are looked at."""
_REMEMBERED = 600.0
"""Seconds for which one that is gone is remembered: longer than a response is waited for without a byte."""
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


@attrs.define(eq=False)
class Endings:
    """Of one process and those that it starts. Times are the caller's, monotonic."""

    _leader: PidFd
    _alive: set[int] = attrs.field(factory=set)
    _ended: dict[int, tuple[float, bool | None]] = attrs.field(factory=dict)
    """What it had started -> when that was first seen to have ended, and whether badly (None: nobody knows)."""

    def look(self, now: float) -> None:
        """See who is there, and who has ended since the last time."""
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
        """Whether there was a bad end after ``since``. None: one has ended, but it cannot be told how; ask again in a moment, when the process itself may end by it."""
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
        return set()  # no descriptor is left: what is not seen is not judged


def _ending(pid: int) -> tuple[bool, int] | None:
    """Whether it is ending, and its exit code as of ``wait``; None: there is no such process any more."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(2048)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return False, 0
    fields = stat[stat.rindex(b")") + 2 :].split()  # from the third of proc(5) on
    ending = fields[0] in (b"Z", b"X") or bool(int(fields[6]) & _PF_EXITING)
    return ending, int(fields[49]) if ending else 0
