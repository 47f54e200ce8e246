"""System calls of a running supervisor that fail when a test wants it: the Nth from now, or all of some kinds (``failing_calls.c``, compiled here)."""

from __future__ import annotations

import atexit
import errno
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from needs import needs

from passenger_trio.testing import Supervisor

__all__ = ["DESCRIPTORS", "KINDS", "FailingCalls", "failing_calls"]

KINDS = {
    "open": 1,
    "opendir": 2,
    "socket": 4,
    "accept4": 8,
    "pipe2": 16,
    "pidfd_open": 32,
    "memfd_create": 64,
    "dup": 128,
    "fork": 256,
    "thread": 512,
}
DESCRIPTORS = tuple(name for name in KINDS if name not in ("fork", "thread"))
"""What gives a new descriptor."""

_FIELDS = struct.Struct("=7q")
_PID, _KINDS, _SKIP, _FAIL, _ERROR, _SEEN, _FAILED = range(7)
_ALL = 1 << 40


@functools.cache
def _library() -> str:
    needs(shutil.which("gcc") is not None, "gcc, which compiles what makes system calls fail")
    source = Path(__file__).with_suffix(".c")
    directory = tempfile.mkdtemp(prefix="pt-failing-calls-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    target = Path(directory) / "failing_calls.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", target, source, "-ldl"], check=True, timeout=120)
    return str(target)


class FailingCalls:
    """The plan of one server. ``environment`` is for its start; ``aim`` says who fails."""

    def __init__(self, path: str) -> None:
        self.environment = {"LD_PRELOAD": _library(), "FAILING_CALLS": path}
        with open(path, "r+b") as file:
            self._plan = memoryview(mmap.mmap(file.fileno(), _FIELDS.size)).cast("q")

    def aim(self, server: Supervisor) -> None:
        self.aim_at(server.pid)

    def aim_at(self, pid: int) -> None:
        """A process of the server's, which has its environment."""
        self._plan[_PID] = pid

    def aim_at_first(self) -> None:
        """The first process that is started with ``environment`` fails, from its first moment on."""
        self._plan[_PID] = -1

    def fail(self, *kinds: str, skip: int = 0, times: int = _ALL, error: int = errno.EMFILE) -> None:
        """From now on: let ``skip`` calls of these kinds pass, then let so many fail."""
        self._plan[_KINDS] = 0
        self._plan[_SKIP], self._plan[_FAIL], self._plan[_ERROR] = skip, times, error
        self._plan[_SEEN] = self._plan[_FAILED] = 0
        self._plan[_KINDS] = sum(KINDS[kind] for kind in kinds)

    def stop(self) -> int:
        """Nothing fails any more; how many calls did."""
        self._plan[_KINDS] = 0
        return self.failed

    @property
    def failed(self) -> int:
        return self._plan[_FAILED]

    @property
    def seen(self) -> int:
        """Calls of the kinds that are meant, since ``fail``."""
        return self._plan[_SEEN]


@contextmanager
def failing_calls() -> Iterator[FailingCalls]:
    descriptor, path = tempfile.mkstemp(prefix="pt-failing-calls.")
    os.write(descriptor, bytes(_FIELDS.size))
    os.close(descriptor)
    try:
        yield FailingCalls(path)
    finally:
        os.unlink(path)
