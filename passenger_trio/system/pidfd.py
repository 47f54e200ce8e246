"""A process of the operating system, held by a pidfd: the only identity that cannot be reused under our hands.

It knows pids only while a pidfd pins them. Laws: a signal goes through the pidfd, never to a bare pid that may name somebody else by
now; a signal that the kernel does not allow (a worker's child may run as another user) is one that nobody got; ``close`` is idempotent.

A pidfd becomes readable when the process ends, whoever its parent is, so grandchildren (processes forked by a preloader) are
watched exactly like children.
"""

from __future__ import annotations

import errno
import os
import select
import signal

import attrs
import trio

from passenger_trio.system.syscalls import CLD_EXITED, P_PIDFD, WEXITED, pidfd_open, pidfd_send_signal, waitid

__all__ = ["PidFd", "is_readable", "parent_of", "pin_child", "why_no_processes"]

_PIDFD_SIGNAL_PROCESS_GROUP = 4


def parent_of(pid: int) -> int | None:
    """The parent's pid, or None when there is no such process (any more).

    :raises OSError: it cannot be told now: no descriptor is left (EMFILE, ENFILE), or no memory. Whoever asks whom to trust must not take that for a yes.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(1024)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and parentheses: count from the last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def why_no_processes(proc: str = "/proc") -> str:
    """``""``, or why /proc cannot tell who is whose parent, and so whom to trust, with the way out."""
    try:
        own = os.readlink(f"{proc}/self")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            return ""
        return "it is not mounted here (mount -t proc proc /proc)"
    if own != str(os.getpid()):
        return f"it is that of another pid namespace, where this process is {own} (mount -t proc proc /proc)"
    return ""


@attrs.define(eq=False)
class PidFd:
    """One process. Made by ``open``; must be closed."""

    pid: int
    _fd: int
    _exit_status: int | None = None
    _seen_exit: bool = False

    @classmethod
    def open(cls, pid: int) -> PidFd:
        """:raises ProcessLookupError: there is no such process.
        :raises OSError: no descriptor is left (EMFILE, ENFILE), or no memory.
        """
        return cls(pid, pidfd_open(pid))

    @property
    def exited(self) -> bool:
        """Whether the exit has been noticed (by ``wait_exit`` or ``poll``)."""
        return self._seen_exit

    @property
    def exit_status(self) -> int | None:
        """As of ``subprocess.Popen.returncode``; None while it runs, and for a process that somebody else reaped."""
        return self._exit_status

    def poll(self) -> bool:
        """Whether it has ended; reaps it if it is our child."""
        if not self._seen_exit and self._fd >= 0:
            self._reap(os.WNOHANG)
        return self._seen_exit

    async def wait_exit(self) -> None:
        """Return when the process has ended; reap it if it is our child. A checkpoint, always.

        :raises trio.ClosedResourceError: it was closed before the exit was seen.
        """
        await trio.lowlevel.checkpoint()
        while not self.poll():
            if self._fd < 0:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._fd)

    def send_signal(self, number: int) -> bool:
        """Signal the process. False when it is gone already, or may not be signalled."""
        if self._seen_exit or self._fd < 0:
            return False
        try:
            pidfd_send_signal(self._fd, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Signal every process of the group that this process leads or led. False when nobody is there, or may be signalled.

        Where the kernel can (6.9), the group is named by the pidfd, so it can be signalled even after its leader has ended.
        """
        if self._fd < 0:
            return False
        try:
            pidfd_send_signal(self._fd, number, None, _PIDFD_SIGNAL_PROCESS_GROUP)
            return True
        except ProcessLookupError:
            # No member in a group of that number: either all have ended, or it has not made its group yet.
            return self.send_signal(number)
        except PermissionError:
            return False
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
        # An older kernel. While the leader lives its pid cannot name another group; once its exit was seen, do not guess.
        if self._seen_exit:
            return False
        try:
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
                return True
        except (ProcessLookupError, PermissionError):
            pass  # it is ending; the pidfd knows better
        return self.send_signal(number)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)

    def _reap(self, flags: int) -> None:
        try:
            result = waitid(P_PIDFD, self._fd, WEXITED | flags)
        except ChildProcessError:
            # Not our child: a preloader's, which reaps it. Readability is the only sign there is.
            self._seen_exit = is_readable(self._fd)
            return
        if result is not None:
            self._seen_exit = True
            status = result.si_status
            self._exit_status = status if result.si_code == CLD_EXITED else -status


def is_readable(fd: int) -> bool:
    """Of a pidfd: whether the process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def pin_child(pid: int) -> PidFd:
    """The pidfd of a child of ours that nobody has waited for.

    :raises OSError: no descriptor is left; the child is killed.
    """
    # The child is not reaped by anybody else, so its pid is its own until we wait for it.
    try:
        return PidFd.open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
