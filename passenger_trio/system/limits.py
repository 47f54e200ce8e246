"""Limits of another process: resources (prlimit(2)) and its nice value.

Set from outside, before the program runs, so that no code of ours runs in the child between fork and exec (Python's
``preexec_fn`` is not safe in a process with threads).
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Mapping

__all__ = ["hard_limit", "own_nice", "set_limits", "soft_limit"]


class _RLimit(ctypes.Structure):
    _fields_ = (("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64))


def set_limits(pid: int, resources: Mapping[str, int], nice: int | None) -> None:
    """Set the soft and the hard limits of a process, and its nice value.

    :param resources: name (``NOFILE``) -> limit; -1: none.
    :param nice: None: as it is.
    :raises OSError: the kernel refuses: the limit is above the hard one, the process is gone, ...
    """
    # PyPy's ``resource`` has no prlimit.
    libc = ctypes.CDLL(None, use_errno=True)
    prlimit = getattr(libc, "prlimit64", None) or libc.prlimit  # musl has one of 64 bits only
    for name, value in resources.items():
        limit = _RLimit(value % 2**64, value % 2**64)
        number = getattr(resource, f"RLIMIT_{name}")
        if prlimit(pid, number, ctypes.byref(limit), None) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"the limit {name} cannot be set to {value}: {os.strerror(error)}")
    if nice is not None:
        os.setpriority(os.PRIO_PROCESS, pid, nice)


def hard_limit(name: str) -> int:
    """Our own hard limit; -1: none."""
    return resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]


def soft_limit(name: str) -> int:
    """Our own soft limit; -1: none."""
    return resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]


def own_nice() -> int:
    """Our own nice value."""
    return os.getpriority(os.PRIO_PROCESS, 0)
