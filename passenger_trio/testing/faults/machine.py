"""Faults of the machine, without root: a full or slow disk, no descriptors, a clock that jumps, a
server that does not run for a while.

* ``no_descriptors`` lowers the server's own limit (``prlimit``), and ``pause_supervisor`` is SIGSTOP:
  both are the kernel's doing, and need nothing.
* The disk and the clock are changed at the boundary of the system calls, by a library of 100 lines
  (``machine_calls.c``) that the server is started with. It is compiled when it is first needed, so it
  needs a C compiler. ``Machine.environment`` is for the start of the server.
"""

from __future__ import annotations

import itertools
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil

from passenger_trio.testing.faults.fault import Fault, FaultNotPossible
from passenger_trio.testing.harness import Supervisor, eventually
from passenger_trio.testing.run_directory import temporary_directory

__all__ = ["ClockJump", "DiskFull", "Machine", "NoDescriptors", "PausedSupervisor", "SlowDisk"]

_FIELDS = struct.Struct("=7q")
_PID, _JUMP, _JUMPS_SEEN, _DISK_LEFT, _DISK_REFUSED, _DELAY, _DELAYED = range(7)


class Machine:
    """The plan of one server's machine."""

    def __init__(self, directory: Path | None = None) -> None:
        """:param directory: where to make its files (default: that of the run).

        :raises FaultNotPossible: there is no C compiler.
        """
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise FaultNotPossible(
                "a full or slow disk and a jumping clock need a C compiler (cc): install one, or start the server without"
                " the machine faults"
            )
        self._home = temporary_directory("machine-", directory)
        self._library, self._path = self._home / "machine_calls.so", self._home / "plan"
        source = Path(__file__).with_name("machine_calls.c")
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
        self._path.write_bytes(_FIELDS.pack(-1, 0, 0, -1, 0, 0, 0))
        with self._path.open("r+b") as file:
            self.plan = memoryview(mmap.mmap(file.fileno(), _FIELDS.size)).cast("q")

    @property
    def environment(self) -> dict[str, str]:
        """For the start of the server."""
        return {"LD_PRELOAD": str(self._library), "HARNESS_MACHINE": str(self._path)}

    def close(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)


class _OfMachine(Fault):
    counter = 0

    def __init__(self, server: Supervisor, machine: Machine, seed: int, **values: Any) -> None:
        super().__init__(seed, **values)
        self._server = server
        self._plan = machine.plan

    def begin(self) -> None:
        self._plan[_PID] = self._server.pid
        self._plan[self.counter] = 0
        self.set()

    def set(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self._plan[_PID], self._plan[_JUMP], self._plan[_DISK_LEFT], self._plan[_DELAY] = -1, 0, -1, 0
        self.fired = self._plan[self.counter]


class DiskFull(_OfMachine):
    """The disk for buffers takes ``after`` bytes more, and then answers ENOSPC."""

    name = "disk_full"
    hint = "nothing was buffered on disk: a body must be longer than 128 KiB, or its reader slow"
    counter = _DISK_REFUSED

    def set(self) -> None:
        self._plan[_DISK_LEFT] = self.values["after"]


class SlowDisk(_OfMachine):
    """Each write to a buffer on disk takes ``seconds`` longer."""

    name = "slow_disk"
    hint = DiskFull.hint
    counter = _DELAYED

    def set(self) -> None:
        self._plan[_DELAY] = int(self.values["seconds"] * 1e6)


class ClockJump(_OfMachine):
    """The wall clock of the server and of its applications is ``seconds`` ahead (or behind). The
    monotonic clock is not.
    """

    name = "clock_jump"
    hint = "no process has looked at the clock"
    counter = _JUMPS_SEEN

    def set(self) -> None:
        self._plan[_JUMP] = int(self.values["seconds"])


class NoDescriptors(Fault):
    """The server can open ``spare`` descriptors more, and then none (EMFILE)."""

    name = "no_descriptors"
    hint = "the server has not run out of descriptors: make more connections"

    def __init__(self, server: Supervisor, seed: int, spare: int) -> None:
        if spare < 1:
            raise ValueError("spare must be at least 1: that it is used up shows that the server ran out")
        super().__init__(seed, spare=spare)
        self._server = server
        self._spare = spare
        self._ended = threading.Event()

    def begin(self) -> None:
        self._before = resource.prlimit(self._server.pid, resource.RLIMIT_NOFILE)
        self._logged = len(self._server.log)
        in_use = self._numbers()
        # The limit is one on numbers, so gaps below it count, too.
        free = (number for number in range(self._before[0]) if number not in in_use)
        self._limit = next(itertools.islice(free, self._spare, None), self._before[0])
        resource.prlimit(self._server.pid, resource.RLIMIT_NOFILE, (self._limit, self._before[1]))
        self._watch = threading.Thread(target=self._look, name="fault no_descriptors", daemon=True)
        self._watch.start()

    def _numbers(self) -> set[int]:
        """The descriptors in use."""
        return {int(name) for name in os.listdir(f"/proc/{self._server.pid}/fd")}

    def _look(self) -> None:
        while not self._ended.wait(0.002):
            if self._numbers().issuperset(range(self._limit)):
                self.fired += 1
                return

    def end(self) -> None:
        self._ended.set()
        self._watch.join(10)
        resource.prlimit(self._server.pid, resource.RLIMIT_NOFILE, self._before)
        # A machine that is busy may not let us look in time; the server itself saw it.
        if not self.fired and any("Too many open files" in line for line in self._server.log[self._logged :]):
            self.fired += 1


class PausedSupervisor(Fault):
    """The server does not run: for the length of the block, or for ``seconds``."""

    name = "pause_supervisor"

    def __init__(self, server: Supervisor, seed: int, seconds: float | None) -> None:
        super().__init__(seed, seconds=seconds)
        self._server = server
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        os.kill(self._server.pid, signal.SIGSTOP)
        process = psutil.Process(self._server.pid)
        eventually(lambda: process.status() == psutil.STATUS_STOPPED, what="the server is stopped")
        self.fired += 1
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._go_on)
            self._timer.daemon = True
            self._timer.start()

    def _go_on(self) -> None:
        os.kill(self._server.pid, signal.SIGCONT)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join(10)
        self._go_on()
