"""Starts the servers of a test run: the first as a program, each later one by a fork of a process that has loaded the program already
(``warm_process``), which takes a tenth of the time.

It is the same program with the same arguments, environment, directory and output. What an interpreter or the loader of programs reads at its start
only (``PYTHON...``, ``LD_...``, the locale) cannot be changed by then: a server that differs in these is started as a program.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from passenger_trio.testing.warm_process import LONGEST

__all__ = ["start_server"]

_SERVED = (sys.executable, "-m", "passenger_trio.testing.served")
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "TZ")
"""How names of variables begin that have their effect at the start of a process."""
_TIMEOUT = 60.0


def start_server(
    arguments: list[str],
    environment: Mapping[str, str],
    *,
    directory: str | Path | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start ``passenger-trio`` so that it ends with this process, in a session of its own.

    :param directory: its working directory; None: the present one.
    :param stdout, stderr: as for ``Popen``, but not ``STDOUT``.
    """
    process = _begin(arguments, environment, directory, stdout, stderr)
    if process is not None:
        return process
    return subprocess.Popen(
        [*_SERVED, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=dict(environment),
        start_new_session=True,
        cwd=directory,
    )


class _WarmProcess(subprocess.Popen[bytes]):
    """A server that was forked from the warm process, whose child it is: that one tells how it ended."""

    def __init__(self, starter: _Starter, pid: int, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self._child_created = False  # by ``Popen``, which would wait for it
        self._starter = starter
        self._pidfd = os.pidfd_open(pid)
        self.args = _SERVED
        self.pid = pid
        self.returncode = None
        self.stdin = None
        self.stdout = stdout
        self.stderr = stderr

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._starter.ended(self.pid, 0.0)
            if self.returncode is not None:
                os.close(self._pidfd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._starter.ended(self.pid, _TIMEOUT)
            assert self.returncode is not None, "the process that started the server is gone"
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            # By the descriptor: its parent may have waited for it already.
            try:
                signal.pidfd_send_signal(self._pidfd, sig)
            except ProcessLookupError:
                pass


class _Starter:
    """The warm process of this one."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.environment = dict(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "passenger_trio.testing.warm_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        atexit.register(self.close)

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Whether nothing that takes effect at the start of a process differs."""
        return all(
            environment.get(name) == self.environment.get(name)
            for name in environment.keys() | self.environment.keys()
            if name.startswith(_READ_AT_START)
        )

    def start(self, request: Mapping[str, Any], stdout: int, stderr: int) -> int | None:
        """The pid of the new process; None if it cannot be made here."""
        data = json.dumps(request).encode()
        if len(data) > LONGEST:
            return None
        with self._lock:
            try:
                socket.send_fds(self._control, [data], [stdout, stderr])
            except OSError:
                return None
            while (message := self._receive(_TIMEOUT)) is not None:
                if "pid" in message:
                    return int(message["pid"])
        return None

    def ended(self, pid: int, timeout: float) -> int | None:
        """The return code of a server that has ended, as of ``Popen``.

        :param timeout: seconds to wait for it.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while pid not in self._codes:
                if self._receive(max(0.0, deadline - time.monotonic())) is None:
                    return None
            return self._codes.pop(pid)

    def close(self) -> None:
        if os.getpid() == self.owner:
            self._control.close()
            self._process.wait()

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        if not select.select([self._control], [], [], timeout)[0]:
            return None
        data = self._control.recv(4096)
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
        return message


_starters: list[_Starter] = []
_pids_with_a_server: set[int] = set()
"""Processes, this one or those that it was forked from, that have started a server."""


def _begin(
    arguments: list[str],
    environment: Mapping[str, str],
    directory: str | Path | None,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
) -> subprocess.Popen[bytes] | None:
    """None: the server has to be started as a program."""
    if os.getpid() not in _pids_with_a_server:
        _pids_with_a_server.add(os.getpid())
        return None  # many runs have one server only
    if not _starters or _starters[-1].owner != os.getpid() or not _starters[-1].lives:
        _starters[:] = [_Starter()]
    starter = _starters[-1]
    if not starter.can_start(environment):
        return None
    mask = os.umask(0o077)
    os.umask(mask)
    request = {
        "arguments": arguments,
        "environment": dict(environment),
        "directory": os.path.abspath(directory or os.getcwd()),
        "mask": mask,
    }
    ends: list[int] = []
    readers: list[IO[bytes] | None] = []
    try:
        for given in (stdout, stderr):
            if given == subprocess.PIPE:
                reading, writing = os.pipe()
                readers.append(open(reading, "rb"))  # noqa: SIM115  the caller closes it, as with Popen
                ends.append(writing)
            else:
                readers.append(None)
                if given == subprocess.DEVNULL:
                    ends.append(os.open(os.devnull, os.O_RDWR))
                else:
                    ends.append(os.dup(given if isinstance(given, int) else given.fileno()))
        pid = starter.start(request, *ends)
    finally:
        for end in ends:
            os.close(end)
    if pid is None:
        for reader in readers:
            if reader is not None:
                reader.close()
        return None
    return _WarmProcess(starter, pid, *readers)
