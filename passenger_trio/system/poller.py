"""The poller: one task that waits for the sockets of all connections and calls back when one is readable or writable.

A task per socket costs a system call and a turn of the scheduler for each message. Instead, the sockets of idle clients, of the fast path and of relays stay
registered with one epoll set that has one waiting task; each turn handles the events of all of them. With 50 relays and messages of 100 bytes, the turn and not
the message was measured to cost most.

Laws:

* A callback does not wait. If it raises by mistake, that costs the one socket: it is unregistered, its owner is called (``failed``), and the others go on (KE1).
* A turn handles at most ``_TURN`` events, and none after ``_TURN_TIME``; then other tasks run (KE7). The events that are left come first in the next turn.
* After ``unregister`` no callback comes for the socket, also not in the same turn. A socket is unregistered before it is closed (``RawStream.close`` does it for
  its ``registration``).
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable

import trio
from trio.lowlevel import wait_readable

from passenger_trio.kernel import ErrorKernel

__all__ = ["HUNG_UP", "READABLE", "WRITABLE", "Poller", "Registration"]

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
HUNG_UP = select.EPOLLHUP | select.EPOLLERR
"""Told of whether it is asked for or not."""
_TURN = 128
"""Events; each costs some ten microseconds, as a rule."""
_TURN_TIME = 0.002
"""Seconds."""

Ready = Callable[[int], None]


class Registration:
    """A socket that is connected."""

    __slots__ = ("_fd", "_poller", "events", "failed", "on_ready")

    def __init__(self, poller: Poller, fd: int, events: int, ready: Ready, failed: Callable[[], None] | None) -> None:
        self._poller = poller
        self._fd = fd
        self.events = events
        """What is told of."""
        self.on_ready = ready
        """Called with what is so, as long as it is so."""
        self.failed = failed
        """Called when ``on_ready`` has raised, and nothing more is told."""

    def modify(self, events: int) -> None:
        """From now on, be told of these.

        :raises OSError: nothing is told any more.
        """
        self._poller.modify(self._fd, events)

    def unregister(self) -> None:
        """Nothing more is told. Once, and before the socket is closed."""
        self._poller.unregister(self._fd)


class Poller:
    """``run`` is its task."""

    __slots__ = ("_kernel", "_now", "_poll", "_registrations", "_served", "time")

    def __init__(self, now: Callable[[], float], kernel: ErrorKernel | None = None) -> None:
        self._now = now
        self._kernel = kernel or ErrorKernel()
        self._poll: select.epoll | None = None
        """Is there while ``run`` runs, and from one that failed to the next."""
        self._registrations: dict[int, Registration] = {}
        self._served: set[int] = set()
        """Sockets whose turn was over before all others had theirs."""
        self.time = now()
        """When the events came that are told now, in monotonic seconds."""

    def register(self, fd: int, events: int, ready: Ready, failed: Callable[[], None] | None = None) -> Registration:
        """``ready(events)`` is called as long as it is so.

        :param failed: called when that has raised, and nothing more is told of the socket.
        :raises OSError: the kernel can watch no more sockets.
        """
        self._there().register(fd, events)
        registration = self._registrations[fd] = Registration(self, fd, events, ready, failed)
        return registration

    def modify(self, fd: int, events: int) -> None:
        """Of a connected socket: what is to be told.

        :raises OSError: nothing is told any more.
        """
        self._there().modify(fd, events)
        self._registrations[fd].events = events

    def unregister(self, fd: int) -> None:
        """Nothing more is told. Idempotent."""
        if self._registrations.pop(fd, None) is not None and self._poll is not None:
            self._poll.unregister(fd)

    def _there(self) -> select.epoll:
        if self._poll is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._poll

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. It has started when sockets can be connected. If it fails it may be run again: who is connected stays so."""
        if self._poll is None:
            self._poll = select.epoll()
        poll = self._poll
        try:
            task_status.started()
            while True:
                await wait_readable(poll.fileno())
                self._turn(poll)
        except Exception:
            self._renew()
            raise
        except BaseException:
            self._poll = None
            poll.close()
            raise

    def _turn(self, poll: select.epoll) -> None:
        registrations, now, served = self._registrations, self._now, self._served
        self.time = now()
        end = self.time + _TURN_TIME
        left = _TURN
        while left > 0 and (events := poll.poll(0, left)):
            left -= len(events)
            if served:
                # The kernel is asked anew: what was so in the last turn may not be so any more.
                events.sort(key=lambda event: event[0] in served)
                if events[0][0] in served:
                    served.clear()
            for number, (fd, what) in enumerate(events, 1):
                if (registration := registrations.get(fd)) is not None:
                    try:
                        registration.on_ready(what)
                    except Exception as error:  # noqa: BLE001  the error kernel's: it costs one socket
                        self._failed(registration, error)
                    if now() >= end:
                        served.update(fd for fd, _ in events[:number])
                        return
        served.clear()

    def _failed(self, registration: Registration, error: Exception) -> None:
        self._kernel.report("a step of a connection", error, "nothing more is heard of its socket")
        with self._kernel.contain("a step of a connection"):
            registration.unregister()
        if registration.failed is not None:
            with self._kernel.contain("a step of a connection"):
                registration.failed()

    def _renew(self) -> None:
        """``run`` has failed: a new poll set with the same sockets in it, if one can be had; else the next ``run`` goes on with the old one."""
        try:
            new = select.epoll()
        except OSError:
            return
        old, self._poll = self._poll, new
        if old is not None:
            old.close()
        for fd, registration in list(self._registrations.items()):
            try:
                new.register(fd, registration.events)
            except OSError as error:
                self._registrations.pop(fd)
                self._failed(registration, error)
