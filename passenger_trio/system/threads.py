"""Runs work in a thread, and handles a system that refuses a thread: the only place that asks for one.

What may block (a disk, ``/proc``, a pipe that nobody reads) is done in a thread. At a limit on processes (``RLIMIT_NPROC``, ``pids.max``), or when memory is short, the
kernel refuses a new one, and Trio raises whatever the interpreter makes of that. Here it is ``NoThread``, so that each caller says what becomes of its work: it does without
(gauges), waits (the access log), takes another way (a buffer stays in memory), or fails alone (one answer on the admin socket) (KE3).

Law: ``NoThread`` means that the work was not begun; an error of the work itself comes out as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

__all__ = ["NoThread", "in_thread"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NoThread(Exception):
    """The kernel gives no thread now. Nothing was done."""


async def in_thread(
    work: Callable[[*Ts], T], *arguments: *Ts, limiter: trio.CapacityLimiter, abandon_on_cancel: bool = False
) -> T:
    """``trio.to_thread.run_sync``, with ``NoThread``.

    :raises NoThread: no thread can be had. That takes no longer than asking; who tries again must wait by itself.
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
