"""A wait within a turn of the poller, in Trio's place.

A process answers a small request within a fraction of a millisecond, and the next request of a busy client comes as soon. To wait for that in Trio costs
a pass of its scheduler and two system calls, about as much as the request itself takes on its way. A piece of a stream comes after a pause, in which the
processor's caches forget Trio's code: then the pass is a quarter of the time that the piece needs. So the turn waits itself: for the poller's sockets, and
for all that Trio waits for. Nobody else waits for longer for it:

* There is no wait while another task is to run.
* Trio's own epoll set is watched, too: a socket of another task, a thread that has ended, a signal end the wait.
* It ends by Trio's next deadline, as exactly as Trio keeps one (a millisecond). That is read again for each wait: a step of the poller may have moved one.

* There is no wait while events come several at a time, or did so a moment ago: more of them come together while Trio has its pass, and that costs less
  for each than to handle every one as soon as it comes.

What usually is not what comes next is waited for more and more rarely.

Where Trio's epoll set cannot be found (no ``/proc``), Trio does not tell its deadlines, or it is the guest of another loop, whose tasks are not known here, there is no such wait, and
nothing else differs.
"""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable

import trio

__all__ = ["TurnWait", "deadlines_of_trio", "epoll_set_that_watches"]

_MOST = 0.1
"""Seconds. What takes longer is waited for in Trio."""
_MOST_SKIPPED = 64
"""Turns without a wait, at most, after waits in which nothing came."""
_CROWDED = 8
"""Single events after which a crowd is over."""
_WATCHED = re.compile(rb"^tfd:\s+(\d+)", re.MULTILINE)


class TurnWait(trio.abc.Instrument):
    """Made for one epoll set of the poller, and an instrument of Trio while that is polled by the current task."""

    def __init__(self, poll: select.epoll) -> None:
        self._fd = poll.fileno()
        self._current_time = trio.lowlevel.current_clock().current_time
        self._both: select.poll | None = None
        self._next_deadline: Callable[[], float] = float
        self._task = trio.lowlevel.current_task()
        self._others_run = True
        self._timeout = 0.0
        """Seconds that Trio meant to wait in the pass of its loop that goes on."""
        self._crowded = 0
        self._skipped = [0, 0]
        self._to_skip = [0, 0]

    def find_trio(self) -> None:
        """Call it when Trio has just said that the poller's set is ready: it has been in Trio's set since then."""
        trios = epoll_set_that_watches(self._fd) if _is_host() else None
        next_deadline = deadlines_of_trio()
        if trios is not None and next_deadline is not None:
            self._next_deadline = next_deadline
            self._both = select.poll()
            self._both.register(self._fd, select.POLLIN)
            self._both.register(trios, select.POLLIN)

    def before_io_wait(self, timeout: float) -> None:
        self._timeout = timeout
        self._others_run = timeout <= 0  # 0: other tasks are to run, or a deadline has passed

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is not self._task:
            self._others_run = True

    def is_crowded(self, events: int) -> bool:
        """Whether events come several at a time. :param events: how many have come now."""
        if events > 1:
            self._crowded = _CROWDED
        elif self._crowded:
            self._crowded -= 1
        return self._crowded > 0

    @trio.lowlevel.enable_ki_protection  # Ctrl-C interrupts the main task, as while Trio waits
    def more(self, expected: bool) -> bool:
        """Wait for an event of the poller's. False: none came, or another task is to run.

        :param expected: something was asked for whose answer comes as an event.
        """
        both = self._both
        if self._others_run or both is None:
            return False
        if self._to_skip[expected]:
            self._to_skip[expected] -= 1
            return False
        seconds = self._next_deadline() - self._current_time()
        if seconds <= 0:
            return False
        # Trio's timeout may be the shorter one: a test's clock jumps after a moment in which nothing happens.
        seconds = min(seconds, self._timeout, _MOST)
        ready = both.poll(int(1000 * seconds) or 1)
        if len(ready) == 1 and ready[0][0] == self._fd:
            self._skipped[expected] = 0
            return True
        if ready or seconds == _MOST:
            self._skipped[expected] = self._to_skip[expected] = min(2 * self._skipped[expected] + 1, _MOST_SKIPPED)
        return False


def _is_host() -> bool:
    """Whether the current task is run by ``trio.run``, and not by the loop of a host."""
    frame = sys._getframe()
    while frame.f_code is not trio.run.__code__:
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return True


def deadlines_of_trio() -> Callable[[], float] | None:
    """What returns the next deadline of Trio's tasks, as its loop asks for it; None: this Trio does not tell.

    ``trio.lowlevel.current_statistics`` says it, too, but counts all sockets on the way.
    """
    try:
        found: Callable[[], float] = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline
    except AttributeError:
        return None
    return found


def epoll_set_that_watches(fd: int) -> int | None:
    """The descriptor of this process's epoll set in which ``fd`` is; None: it cannot be found (proc(5), ``/proc/pid/fdinfo``)."""
    try:
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:[eventpoll]":
                    continue
                # As bytes: the codec of a text is a module, which the user of ``--user`` may not be able to read.
                with open(f"/proc/self/fdinfo/{name}", "rb") as info:
                    watched = map(int, _WATCHED.findall(info.read()))
            except OSError:
                continue  # it was closed meanwhile
            if fd in watched:
                return int(name)
    except OSError:
        pass
    return None
