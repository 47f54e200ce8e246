"""A process of the operating system, identified by a pidfd: the only identity that the kernel
cannot reuse.

A pid is valid only while a pidfd pins it. Laws:

* A signal goes through the pidfd, never to a bare pid, which may name another process by now.
* If the kernel forbids a signal (a worker's child may run as another user), the result is the same
  as for a process that is gone.
* ``close`` is idempotent.

A pidfd becomes readable when the process ends, whichever process its parent is. So grandchildren
(processes that a preloader forked) are watched exactly like children.

Trio is imported where it is used: the first program is pinned before Trio is there (``early_start``, DE10).
"""

from __future__ import annotations

import errno
import os
import select
import signal

from passenger_trio.late_classes import define
from passenger_trio.system.syscalls import CLD_EXITED, P_PIDFD, WEXITED, pidfd_open, pidfd_send_signal, waitid

__all__ = ["PidFd", "is_readable", "parent_of", "pin_child", "why_no_processes"]

_PIDFD_SIGNAL_PROCESS_GROUP = 4
_EXIT_CODE = 52 - 3
"""proc(5), stat, field 52, behind the command name."""


def parent_of(pid: int) -> int | None:
    """The parent's pid, or None when the process does not exist any more.

    :raises OSError: unknown for now: no descriptor (EMFILE, ENFILE) or memory is left. A caller
        that decides about trust must not take that for a yes.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(1024)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may contain spaces and parentheses: count from the last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def why_no_processes(proc: str = "/proc") -> str:
    """``""``, or why /proc cannot show parents (and so which peers to trust), with the remedy."""
    try:
        own = os.readlink(f"{proc}/self")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            return ""
        return "it is not mounted here (mount -t proc proc /proc)"
    if own != str(os.getpid()):
        return f"it is that of another pid namespace, where this process is {own} (mount -t proc proc /proc)"
    return ""


@define(eq=False)
class PidFd:
    """One process. Made by ``open``; must be closed."""

    pid: int
    _fd: int
    _exit_status: int | None = None
    _seen_exit: bool = False

    @classmethod
    def open(cls, pid: int) -> PidFd:
        """:raises ProcessLookupError: the process does not exist.
        :raises OSError: no descriptor (EMFILE, ENFILE) or memory is left.
        """
        return cls(pid, pidfd_open(pid))

    @property
    def exited(self) -> bool:
        """Whether the exit has been noticed (by ``wait_exit`` or ``poll``)."""
        return self._seen_exit

    @property
    def exit_status(self) -> int | None:
        """As of ``subprocess.Popen.returncode``; None while the process runs, and if another
        process reaped it.
        """
        return self._exit_status

    def status_of_zombie(self) -> int | None:
        """As ``exit_status``, for a process that is another's child. None: it runs, its parent has waited for it already, or the kernel does not show us."""
        if self._fd < 0:
            return None
        try:
            with open(f"/proc/{self.pid}/stat", "rb", buffering=0) as file:
                stat = file.read(4096)
            pidfd_send_signal(self._fd, 0)  # it is there, so what we have read is its own
        except OSError:
            return None
        fields = stat[stat.rindex(b")") + 2 :].split()
        return os.waitstatus_to_exitcode(int(fields[_EXIT_CODE])) if fields[0] == b"Z" else None

    def poll(self) -> bool:
        """Whether the process has ended. Reaps it if it is our child."""
        if not self._seen_exit and self._fd >= 0:
            self._reap(os.WNOHANG)
        return self._seen_exit

    async def wait_exit(self) -> None:
        """Return when the process has ended. Reaps it if it is our child. Always a checkpoint.

        :raises trio.ClosedResourceError: the pidfd was closed before the exit was seen.
        """
        import trio

        await trio.lowlevel.checkpoint()
        while not self.poll():
            if self._fd < 0:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self._fd)

    def send_signal(self, number: int) -> bool:
        """Signal the process. False: it is gone, or the kernel forbids the signal."""
        if self._seen_exit or self._fd < 0:
            return False
        try:
            pidfd_send_signal(self._fd, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Signal every process of the group that this process leads or led. False: the group has no
        process that may be signalled.

        Where the kernel can (6.9), the pidfd names the group, so the group can be signalled even
        after its leader has ended.
        """
        if self._fd < 0:
            return False
        try:
            pidfd_send_signal(self._fd, number, None, _PIDFD_SIGNAL_PROCESS_GROUP)
            return True
        except ProcessLookupError:
            # The group of that number has no member: all have ended, or the process has not made
            # its group yet.
            return self.send_signal(number)
        except PermissionError:
            return False
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
        # An older kernel. While the leader lives, its pid cannot name another group. After its exit
        # was seen, do not guess.
        if self._seen_exit:
            return False
        try:
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
                return True
        except (ProcessLookupError, PermissionError):
            pass  # the process is ending; the pidfd knows its state
        return self.send_signal(number)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            import trio

            trio.lowlevel.notify_closing(fd)
            os.close(fd)

    def reap_and_discard(self) -> None:
        """Wait for a child that was killed, reap it and close. For a pidfd that no task waits for: needs no event loop."""
        self._reap(0)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _reap(self, flags: int) -> None:
        try:
            result = waitid(P_PIDFD, self._fd, WEXITED | flags)
        except ChildProcessError:
            # Not our child: a preloader reaps it. Readability is the only sign of its end.
            self._seen_exit = is_readable(self._fd)
            return
        if result is not None:
            self._seen_exit = True
            status = result.si_status
            self._exit_status = status if result.si_code == CLD_EXITED else -status


def is_readable(fd: int, wait: float = 0.0) -> bool:
    """Whether the process of a pidfd has ended.

    :param wait: seconds to wait for that, at most. Only for callers without an event loop.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(wait * 1000))


def pin_child(pid: int) -> PidFd:
    """The pidfd of a child of ours that has not been waited for.

    :raises OSError: no descriptor is left; the child is killed.
    """
    # No other process reaps the child, so its pid stays its own until we wait for it.
    try:
        return PidFd.open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
