"""Linux system calls that an interpreter may lack: CPython's library has all of them, PyPy 3.11
does not.

Where the standard library has the function, that function is used. Otherwise the system call is
made with ``ctypes``, with the same arguments, result and errors. The constants are the kernel's.
They, and the numbers of new calls, are the same on every architecture that we know.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

__all__ = [
    "CLD_EXITED",
    "F_DUPFD_CLOEXEC",
    "O_TMPFILE",
    "P_PID",
    "P_PIDFD",
    "SO_PEERCRED",
    "SO_PEERPIDFD",
    "WEXITED",
    "WNOWAIT",
    "WSTOPPED",
    "Ended",
    "processors",
]
__all__ += ["pidfd_open", "pidfd_send_signal", "waitid"]

P_PID, P_PIDFD = 1, 3
WSTOPPED, WEXITED, WNOWAIT = 2, 4, 0x01000000
CLD_EXITED = 1
F_DUPFD_CLOEXEC: int = getattr(fcntl, "F_DUPFD_CLOEXEC", 1030)
SO_PEERCRED: int = getattr(socket, "SO_PEERCRED", 17)
SO_PEERPIDFD = 77  # Linux 6.5; on every architecture but parisc and sparc
O_TMPFILE: int = getattr(os, "O_TMPFILE", 0o20000000 | os.O_DIRECTORY)

_NR_PIDFD_SEND_SIGNAL, _NR_PIDFD_OPEN = 424, 434


class Ended(NamedTuple):
    """The used members of the result of ``waitid``."""

    si_pid: int
    si_status: int
    si_code: int


class _SigInfo(ctypes.Structure):
    # siginfo_t of SIGCHLD on 64-bit Linux; the kernel writes 128 bytes.
    _fields_ = (
        ("si_signo", ctypes.c_int),
        ("si_errno", ctypes.c_int),
        ("si_code", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("si_pid", ctypes.c_int),
        ("si_uid", ctypes.c_uint),
        ("si_status", ctypes.c_int),
        ("rest", ctypes.c_char * 100),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    """:raises OSError: the subclass for the error number, as the standard library does."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call_pidfd_open(pid: int, flags: int = 0) -> int:
    """``os.pidfd_open``. The descriptor is not inherited."""
    return _checked(_libc.syscall(ctypes.c_long(_NR_PIDFD_OPEN), ctypes.c_int(pid), ctypes.c_uint(flags)))


def call_pidfd_send_signal(fd: int, number: int, info: None = None, flags: int = 0) -> None:
    """``signal.pidfd_send_signal``."""
    arguments = ctypes.c_int(fd), ctypes.c_int(number), ctypes.c_void_p(info), ctypes.c_uint(flags)
    _checked(_libc.syscall(ctypes.c_long(_NR_PIDFD_SEND_SIGNAL), *arguments))


def call_waitid(kind: int, number: int, options: int) -> Ended | None:
    """``os.waitid``: None if the options include ``WNOHANG`` and no child has ended."""
    info = _SigInfo()
    _checked(_libc.waitid(ctypes.c_int(kind), ctypes.c_uint(number), ctypes.byref(info), ctypes.c_int(options)))
    return Ended(info.si_pid, info.si_status, info.si_code) if info.si_pid else None


pidfd_open: Callable[..., int] = getattr(os, "pidfd_open", call_pidfd_open)
pidfd_send_signal: Callable[..., None] = getattr(signal, "pidfd_send_signal", call_pidfd_send_signal)
waitid: Callable[[int, int, int], os.waitid_result | Ended | None] = getattr(os, "waitid", call_waitid)


def processors() -> frozenset[int]:
    """The numbers of the processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return frozenset(affinity(0) if affinity else range(os.cpu_count() or 1))
