"""Limits of another process: resources (prlimit(2)) and its nice value.

Set from outside, before the program runs, so that no code of ours runs in the child between fork and exec (Python's
``preexec_fn`` is not safe in a process with threads). In a container, root often may not do that to a process of another
user (CAP_SYS_RESOURCE, CAP_SYS_NICE are missing): then the shell that waits in the program's place does it itself, which
may lower its limits like anybody.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Mapping

__all__ = ["hard_limit", "has_capability", "most_files", "own_nice", "set_limits", "soft_limit"]

_CAPABILITIES = {"SYS_NICE": 23, "SYS_RESOURCE": 24}
"""capability.h"""


class _RLimit(ctypes.Structure):
    _fields_ = (("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64))


_GRACE = 5
"""Seconds of processor time between its two limits, if the hard one may be so high: at the soft one the kernel sends SIGXCPU, whose name tells what has
ended the process; at the hard one SIGKILL, which tells nothing."""
_ULIMIT = {
    "NOFILE": ("ulimit -n {}", 1),
    "NPROC": ("{{ ulimit -u {0} 2>/dev/null || ulimit -p {0}; }}", 1),  # bash, and dash
    "CORE": ("ulimit -c {}", 512),
    "AS": ("ulimit -v {}", 1024),
    "CPU": (f"{{{{ ulimit -S -t {{0}} && {{{{ ulimit -H -t $(({{0}} + {_GRACE})) 2>/dev/null || :; }}}}; }}}}", 1),
}
"""The command of a shell (POSIX, and what all of them have besides) that sets both limits, and the bytes of its unit."""


def set_limits(pid: int, resources: Mapping[str, int], nice: int | None) -> str:
    """Set the soft and the hard limits of a process (the same, but for the processor time), and its nice value.

    :param resources: name (``NOFILE``) -> limit; -1: none.
    :param nice: None: as it is.
    :returns: commands for a shell in that process, which must do the rest itself. It is of another user, and we may not.
    :raises OSError: the kernel refuses: the limit is above the hard one, the process is gone, ...
    """
    rest: list[str] = []
    # PyPy's ``resource`` has no prlimit.
    libc = ctypes.CDLL(None, use_errno=True)
    prlimit = getattr(libc, "prlimit64", None) or libc.prlimit  # musl has one of 64 bits only
    for name, value in resources.items():
        limit = _RLimit(value % 2**64, value % 2**64)
        number = getattr(resource, f"RLIMIT_{name}")
        if name == "CPU":
            later = _RLimit(value, value + _GRACE)
            if prlimit(pid, number, ctypes.byref(later), None) == 0:
                continue
        if prlimit(pid, number, ctypes.byref(limit), None) != 0:
            error = ctypes.get_errno()
            if error == errno.EPERM and _is_of_another(pid):
                command, unit = _ULIMIT[name]
                rest.append(f"{command.format('unlimited' if value < 0 else value // unit)} || exit 126")
                continue
            raise OSError(error, f"the limit {name} cannot be set to {value}: {os.strerror(error)}")
    if nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, pid, nice)
        except PermissionError:
            if not _is_of_another(pid):
                raise
            rest.append(f'set -- nice -n {nice - own_nice()} "$@"')
    return "; ".join(rest)


def _is_of_another(pid: int) -> bool:
    """Whether the process is another user's."""
    return os.stat(f"/proc/{pid}").st_uid != os.geteuid()


def hard_limit(name: str) -> int:
    """Our own hard limit; -1: none."""
    return resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]


def soft_limit(name: str) -> int:
    """Our own soft limit; -1: none."""
    return resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]


def has_capability(name: str) -> bool:
    """Whether we have one of root's rights: ``SYS_NICE`` or ``SYS_RESOURCE``. (Root in a container often has not all of them.)"""
    try:
        with open("/proc/self/status", "rb") as file:
            masks = [int(line.split()[1], 16) for line in file if line.startswith(b"CapEff:")]
    except OSError:
        masks = []
    return bool(masks[0] >> _CAPABILITIES[name] & 1) if masks else os.geteuid() == 0


def most_files() -> int:
    """The most open files that the kernel lets any process have; -1: unknown."""
    try:
        with open("/proc/sys/fs/nr_open", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return -1


def own_nice() -> int:
    """Our own nice value."""
    return os.getpriority(os.PRIO_PROCESS, 0)
