"""Runs work in a thread, and reports when the system refuses one: the only module that asks for a
thread.

Work that may block (a disk, ``/proc``, a pipe without a reader) runs in a thread. At a limit on
processes (``RLIMIT_NPROC``, ``pids.max``), or when memory is short, the kernel refuses a new
thread, and Trio raises the interpreter's error for that. This module raises ``NoThread`` instead,
so that each caller decides what happens to its work: it goes without (gauges), waits (the access
log), uses an alternative (a buffer stays in memory), or fails alone (one answer on the admin
socket) (KE3).

Law: ``NoThread`` means that the work was not begun. An error of the work itself is raised
unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

__all__ = ["NoThread", "in_thread"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NoThread(Exception):
    """The kernel refuses a thread now. The work was not begun."""


async def in_thread(
    work: Callable[[*Ts], T], *arguments: *Ts, limiter: trio.CapacityLimiter, abandon_on_cancel: bool = False
) -> T:
    """As ``trio.to_thread.run_sync``, but raises ``NoThread``.

    :raises NoThread: no thread is available. A refusal comes at once; a caller that retries must
        wait by itself.
    """
    begun = False

    def begin() -> T:
        nonlocal begun
        begun = True
        return work(*arguments)

    try:
        return await trio.to_thread.run_sync(begin, limiter=limiter, abandon_on_cancel=abandon_on_cancel)
    except (RuntimeError, MemoryError, OSError) as error:
        if begun:
            raise
        raise NoThread(str(error)) from error
