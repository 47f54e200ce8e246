"""The stack of an application's process as text, for a person who asks why it hangs (OP17).

Three ways. Each is for what the one before cannot reach:

1. The loader is asked on its control connection. A thread of its own answers, whatever the application does, as far as
   the language lets that thread run (CONTRACT.md 2.34).
2. An application that holds the interpreter's lock in C code keeps that thread from answering. If the loader named a
   signal (2.35) and the process catches it, C code writes the stacks to the application's output, where they are copied.
3. The kernel shows the state and the system call of each thread.

This module knows control connections and /proc. It never knows a pool. Law: a process gets no signal that it does not catch, because
that would end it."""

from __future__ import annotations

import os
from typing import Protocol

import trio

from passenger_trio.spawning.output import OutputPipe
from passenger_trio.spawning.spawn_listener import ControlConnection
from passenger_trio.system.children import descendants
from passenger_trio.system.pidfd import PidFd

__all__ = ["Program", "kernel_view", "take_backtrace"]

_ANSWER_TIME = 2.5
"""Seconds for the loader's answer; the contract allows 2."""
_OUTPUT_TIME = 1.5
_QUIET = 0.15
"""Seconds without a line after which the stacks on the output are complete."""
_MAX_THREADS = 100
_MAX_PROGRAMS = 20


class Program(Protocol):
    """A program of an application, from its start on: it may still start, serve, or be a preloader."""

    @property
    def pidfd(self) -> PidFd | None: ...
    @property
    def control(self) -> ControlConnection | None: ...
    @property
    def output(self) -> OutputPipe: ...
    @property
    def role(self) -> str:
        """``process`` or ``preloader``."""


async def take_backtrace(control: ControlConnection | None, pidfd: PidFd, output: OutputPipe) -> str:
    """The stacks of a process. Takes 4 seconds at most. Somebody must read ``control`` and ``output`` meanwhile.

    :param control: None: the program has no control connection.
    """
    pid = pidfd.pid
    if control is None:
        await trio.lowlevel.checkpoint()
        try:
            family = [pid, *descendants(pid)][:_MAX_PROGRAMS]
        except OSError:
            family = [pid]
        return "\n\n".join(map(kernel_view, family))
    text = await control.ask_backtrace(_ANSWER_TIME)
    if text is not None:
        return text
    if pidfd.exited:
        return "the process has ended"
    parts = ["the loader does not answer: the application holds the interpreter in a call, or the process is stopped"]
    number = control.hello.backtrace_signal
    if number and catches(pid, number):
        stacks = await _from_output(pidfd, output, number)
        if stacks:
            parts.append(stacks)
    parts.append(kernel_view(pid))
    return "\n\n".join(parts)


async def _from_output(pidfd: PidFd, output: OutputPipe, number: int) -> str:
    with output.copied() as lines:
        if not pidfd.send_signal(number):
            return ""
        with trio.move_on_after(_OUTPUT_TIME):
            seen = -1
            while seen != len(lines) or not lines:
                seen = len(lines)
                await trio.sleep(_QUIET)
        return "\n".join(lines)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, by the kernel's list. Without one, most signals would end it."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            status = file.read(8192)
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line[7:], 16) >> (number - 1) & 1)
    return False


def kernel_view(pid: int) -> str:
    """The kernel's state of each thread of a process, as text."""
    try:
        threads = sorted(os.listdir(f"/proc/{pid}/task"), key=int)
    except OSError:
        return "the process has ended"
    lines = [f"threads, as the kernel sees them (pid {pid})"]
    for thread in threads[:_MAX_THREADS]:
        folder = f"/proc/{pid}/task/{thread}"
        fields = _read(f"{folder}/stat").rpartition(")")[2].split()
        state = _STATES.get(fields[0], fields[0]) if fields else "gone"
        waits = _read(f"{folder}/wchan").strip("\0\n 0")
        lines.append(
            f"  {thread} {_read(f'{folder}/comm').strip() or '?'}: {state}{f', waits in {waits}' if waits else ''}"
        )
    if len(threads) > _MAX_THREADS:
        lines.append(f"  {len(threads) - _MAX_THREADS} threads more")
    return "\n".join(lines)


_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device, cannot be interrupted",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "ended",
    "X": "ended",
    "I": "idle",
}


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
