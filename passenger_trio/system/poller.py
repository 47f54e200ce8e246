"""The poller: one task that waits for the sockets of all connections and calls back when one is
readable or writable.

A task per socket costs a system call and a scheduler pass for each message. Instead, the sockets of
idle clients, of the fast path and of relays stay registered with one epoll set, which has one
waiting task. Each turn handles the events of all of them. Measured with 50 relays and messages of
100 bytes: the turn costs most, not the message.

Laws:

* A callback does not wait. An exception in it costs that one socket: the socket is unregistered,
  its owner is called (``failed``), and the others go on (KE1).
* A turn handles at most ``_TURN`` events, and none after ``_TURN_TIME``; then other tasks run
  (KE7). The events that are left come first in the next turn. While nobody else is to run and nothing is due, it waits for more (``turn_wait``); what comes
  then is a new turn.
* After ``unregister`` the socket gets no callback, not even in the same turn. A socket is
  unregistered before it is closed (``RawStream.close`` does that for its ``registration``).
"""

from __future__ import annotations

import errno
import math
import os
import select
from collections.abc import Callable

import trio
from trio.lowlevel import wait_readable

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.system.turn_wait import TurnWait

__all__ = ["HUNG_UP", "READABLE", "WRITABLE", "Poller", "Registration"]

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
HUNG_UP = select.EPOLLHUP | select.EPOLLERR
"""Reported even if not asked for."""
_TURN = 128
"""Events per turn. Each usually costs some ten microseconds."""
_TURN_TIME = 0.002
"""Seconds per turn."""

Ready = Callable[[int], None]


class Registration:
    """A registered socket."""

    __slots__ = ("_fd", "_poller", "events", "failed", "on_ready")

    def __init__(self, poller: Poller, fd: int, events: int, ready: Ready, failed: Callable[[], None] | None) -> None:
        self._poller = poller
        self._fd = fd
        self.events: int = events
        """The event mask that is watched."""
        self.on_ready: Ready = ready
        """Level-triggered; receives the event mask."""
        self.failed: Callable[[], None] | None = failed
        """Called after ``on_ready`` has raised; the socket gets no more callbacks."""

    def modify(self, events: int) -> None:
        """Replace the event mask.

        :raises OSError: the socket is no longer watched.
        """
        self._poller.modify(self._fd, events)

    def unregister(self) -> None:
        """Stop watching the socket. Call it once, before the socket is closed."""
        self._poller.unregister(self._fd)


class Poller:
    """The set of registered sockets. ``run`` is its task."""

    __slots__ = (
        "_current_time",
        "_kernel",
        "_poll",
        "_registrations",
        "_served",
        "all_told",
        "answer_expected",
        "time",
    )

    def __init__(self, current_time: Callable[[], float], kernel: ErrorKernel | None = None) -> None:
        self._current_time = current_time
        self._kernel = kernel or ErrorKernel()
        self._poll: select.epoll | None = None
        """Set while ``run`` runs. Kept between a ``run`` that failed and the next one."""
        self._registrations: dict[int, Registration] = {}
        self._served: set[int] = set()
        """Sockets that were handled in a turn that ended before all others were."""
        self.time: float = current_time()
        """When the events that are handled now arrived, in monotonic seconds."""
        self.all_told: float = -math.inf
        """Within a callback: whatever was readable at this time has been told, and what a socket that was idle since then has was not there yet. Outside
        of callbacks, and while other events of the same look are to be told: minus infinity."""
        self.answer_expected: bool = False
        """Set by a callback that has just sent something whose answer comes at a registered socket: for that the turn waits (``turn_wait``)."""

    def register(self, fd: int, events: int, ready: Ready, failed: Callable[[], None] | None = None) -> Registration:
        """Watch a socket. ``ready`` is level-triggered and receives the event mask.

        :param failed: called after ``ready`` has raised; the socket gets no more callbacks.
        :raises OSError: the kernel cannot watch more sockets.
        """
        self._there().register(fd, events)
        registration = self._registrations[fd] = Registration(self, fd, events, ready, failed)
        return registration

    def modify(self, fd: int, events: int) -> None:
        """Replace the event mask of a registered socket.

        :raises OSError: the socket is no longer watched.
        """
        self._there().modify(fd, events)
        self._registrations[fd].events = events

    def unregister(self, fd: int) -> None:
        """Stop watching the socket. Idempotent."""
        if self._registrations.pop(fd, None) is not None and self._poll is not None:
            self._poll.unregister(fd)

    def _there(self) -> select.epoll:
        if self._poll is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._poll

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. When it has started, sockets can be registered. After a failure it
        may be run again: the registrations are kept.
        """
        if self._poll is None:
            self._poll = select.epoll()
        poll = self._poll
        wait = TurnWait(poll)
        trio.lowlevel.add_instrument(wait)
        try:
            task_status.started()
            await wait_readable(poll.fileno())
            wait.find_trio()
            while True:
                self._turn(poll, wait)
                await wait_readable(poll.fileno())
        except Exception:
            self._renew()
            raise
        except BaseException:
            self._poll = None
            poll.close()
            raise
        finally:
            trio.lowlevel.remove_instrument(wait)

    def _turn(self, poll: select.epoll, wait: TurnWait) -> None:
        registrations, current_time, served = self._registrations, self._current_time, self._served
        self.time = current_time()
        end = self.time + _TURN_TIME
        left = _TURN
        events = poll.poll(0, left)
        while events:
            self.answer_expected = False
            self.all_told = self.time if len(events) == 1 < left else -math.inf
            left -= len(events)
            if served:
                # Ask the kernel again: events of the last turn may be gone by now.
                events.sort(key=lambda event: event[0] in served)
                if events[0][0] in served:
                    served.clear()
            for number, (fd, what) in enumerate(events, 1):
                if (registration := registrations.get(fd)) is not None:
                    try:
                        registration.on_ready(what)
                    except Exception as error:  # noqa: BLE001  the error kernel handles it: it costs one socket
                        self._failed(registration, error)
                    if number < len(events) and current_time() >= end:
                        served.update(fd for fd, _ in events[:number])
                        self.all_told = -math.inf
                        return
            if left <= 0:
                break
            if wait.is_crowded(len(events)):
                self.time = current_time()
                if self.time >= end:
                    served.update(fd for fd, _ in events)
                    self.all_told = -math.inf
                    return
                events = poll.poll(0, left)
            elif wait.more(self.answer_expected):
                # Trio has nothing to do, so no pass of its loop has to come in between.
                self.time = current_time()
                end = self.time + _TURN_TIME
                left = _TURN
                events = poll.poll(0, left)
            else:
                events = []
        served.clear()
        self.all_told = -math.inf

    def _failed(self, registration: Registration, error: Exception) -> None:
        self._kernel.report("a step of a connection", error, "nothing more is heard of its socket")
        with self._kernel.contain("a step of a connection"):
            registration.unregister()
        if registration.failed is not None:
            with self._kernel.contain("a step of a connection"):
                registration.failed()

    def _renew(self) -> None:
        """Called when ``run`` has failed: move all sockets to a new epoll set. If none is
        available, the next ``run`` uses the old one.
        """
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
