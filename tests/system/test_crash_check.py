"""Fault 28 (R25): how a process, or what it has started, has ended is known without waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from passenger_trio.system.crash_check import CrashCheck
from passenger_trio.system.pidfd import PidFd
from passenger_trio.testing import eventually


@contextmanager
def shell(script: str) -> Iterator[tuple[CrashCheck, subprocess.Popen[bytes]]]:
    """A process that waits for a line, then runs ``script``."""
    with subprocess.Popen(["sh", "-c", f"read line; {script}"], stdin=subprocess.PIPE) as process:
        pidfd = PidFd.open(process.pid)
        try:
            yield CrashCheck(pidfd), process
        finally:
            process.kill()
            if pidfd.poll():
                process.returncode = 0  # it is reaped
            pidfd.close()


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


@pytest.mark.parametrize(
    ("script", "badly"), [("exit 0", False), ("exit 3", True), ("kill -SEGV $$", True), ("kill -TERM $$", True)]
)
async def test_fault_28_of_the_process_itself_every_end_but_0_is_bad(script: str, badly: bool) -> None:
    with shell(script) as (crash_check, process):
        crash_check.look(1.0)
        assert crash_check.verdict(1.0, 2.0) is False
        go(process)
        eventually(lambda: os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
        assert crash_check.verdict(1.0, 3.0) is badly


@pytest.mark.parametrize(
    ("end", "verdict"), [(signal.SIGSEGV, True), (signal.SIGKILL, True), (signal.SIGTERM, None), (signal.SIGPIPE, None)]
)
async def test_fault_28_of_what_it_started_a_crash_is(end: int, verdict: bool | None) -> None:
    """It is a zombie, because its parent does not look after it: seen once, and of no meaning for what began later."""
    script = "sleep 100 & echo $! >&2; exec sleep 100"
    with subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        child = int(process.stderr.readline())
        pidfd = PidFd.open(process.pid)
        crash_check = CrashCheck(pidfd)
        try:
            # A shell that still is one would reap it.
            eventually(lambda: all(name_of(pid) == "sleep" for pid in (process.pid, child)))
            crash_check.look(1.0)
            assert crash_check.verdict(1.0, 1.0) is False
            os.kill(child, end)
            eventually(lambda: Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z")
            assert crash_check.verdict(1.0, 2.0) is verdict
            assert crash_check.verdict(2.5, 3.0) is False, "another response, which began later"
            assert crash_check.verdict(1.5, 3.0) is verdict, "one that was there, too"
        finally:
            process.kill()
            process.wait()
            pidfd.close()
