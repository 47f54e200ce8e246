"""OP16: ``top``, ``status --watch``, ``disable`` and ``enable``, on a real instance and, where they need one, in a pseudo-terminal of 80 columns.

Starts the command: the command `top` is the subject.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pyte
import pytest
from faces_tools import BEHAVIOURS, run_command

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

COLUMNS, LINES = 80, 24


@pytest.fixture(scope="module")
def server() -> Iterator[Supervisor]:
    options = ("--min-instances", "3", "--max-pool-size", "3", "--name", "an-application-with-quite-a-long-name")
    with Supervisor.start(BEHAVIOURS, *options) as running:
        eventually(lambda: len(running.pids) == 3)
        yield running


@attrs.define
class Terminal:
    """A command in a pseudo-terminal, and what its user sees."""

    process: subprocess.Popen[bytes]
    master: int
    screen: pyte.Screen = attrs.field(factory=lambda: pyte.Screen(COLUMNS, LINES))
    raw: bytes = b""

    def read(self, seconds: float = 0.1) -> list[str]:
        """The lines of the screen, after a moment."""
        stream = pyte.ByteStream(self.screen)
        until = time.monotonic() + seconds
        while select.select([self.master], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break
            if not data:
                break
            self.raw += data
            stream.feed(data)
        return [line.rstrip() for line in self.screen.display]

    def wait(self, what: Callable[[list[str]], object]) -> list[str]:
        eventually(lambda: what(self.read()), 30, f"the screen is\n{chr(10).join(self.read())}")
        return self.read()

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)


@contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-m", "passenger_trio", *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": str(LINES)},
        start_new_session=True,
    )
    it = Terminal(process, master)
    try:
        yield it
        process.wait(20)
        assert termios.tcgetattr(slave) == before, "the terminal is not as it was"
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def pids(lines: list[str]) -> list[int]:
    return [int(word) for line in lines if (word := line.strip().partition(" ")[0]).isdigit()]


def test_top_is_live_and_sorts_at_80_columns(server: Supervisor) -> None:
    """OP16."""
    with terminal("top", "--interval", "0.2", "--sort", "pid", str(server.instance_dir)) as shown:
        lines = shown.wait(lambda lines: len(pids(lines)) == 3)
        assert "3 of 3 processes" in lines[0]
        assert pids(lines) == sorted(server.pids)
        heading = next(line for line in lines if "PID" in line)
        assert "PID*" in heading
        assert heading.split()[1:] == ["APPLICATION", "STATE", "REQS", "SERVED", "REQ/S", "CPU%", "MEMORY", "AGE"]
        assert all("…" not in heading for heading in [heading])
        row = next(line for line in lines if str(server.pids[0]) in line)
        assert "an-applicat" in row
        assert "running" in row
        # Requests come: all of them go to the process that came first, which is then the first by what is served.
        for _ in range(5):
            served_by = int(server.get("/pid").body)
        shown.press(b"s")
        lines = shown.wait(lambda lines: any("SERVED*" in line for line in lines) and pids(lines)[0] == served_by)
        # Five, and those that other tests have sent.
        shown.wait(
            lambda lines: any(re.match(rf" *{served_by} .* running +0/1 +([5-9]|[0-9]{{2,}}) ", line) for line in lines)
        )
        shown.press(b"q")
        assert shown.process.wait(20) == 0


def test_top_ends_with_ctrl_c_and_gives_the_terminal_back(server: Supervisor) -> None:
    with terminal("top", str(server.instance_dir)) as shown:
        shown.wait(lambda lines: len(pids(lines)) == 3)
        os.kill(shown.process.pid, signal.SIGINT)
        assert shown.process.wait(20) == 130


def test_top_without_a_terminal(server: Supervisor) -> None:
    done = run_command("top", str(server.instance_dir))
    assert done.returncode == 1
    assert "status --watch" in done.stderr


def test_status_watch_is_live(server: Supervisor) -> None:
    """OP16: each second the screen has the numbers of that second."""
    with terminal("status", "--watch", str(server.instance_dir)) as shown:
        shown.wait(lambda lines: any("General information" in line for line in lines))
        before = server.status()["requests"]["total"]
        server.get("/pid")
        shown.wait(lambda lines: any(f"{before + 1} served" in line for line in lines))
        os.kill(shown.process.pid, signal.SIGINT)
        assert shown.process.wait(20) == 130


def test_a_process_is_disabled_and_enabled(server: Supervisor) -> None:
    """OP16: it gets no requests meanwhile, and the last one that serves cannot be disabled."""

    def ask(word: str, pid: int) -> subprocess.CompletedProcess[str]:
        return run_command(word, str(pid), "--instance", str(server.instance_dir))

    name = "an-application-with-quite-a-long-name"
    first, second, third = server.pids
    done = ask("disable", first)
    assert done.stdout == f"process {first} of {name} (development) is disabled, with 0 requests in hand\n"
    assert {int(server.get("/pid").body) for _ in range(3)} == {second}
    assert "Disabled" in run_command("status", str(server.instance_dir)).stdout
    assert ask("disable", second).returncode == 0
    refused = ask("disable", third)
    assert refused.returncode == 1
    assert f"no other process of {name} (development) serves" in refused.stderr
    assert int(server.get("/pid").body) == third
    assert ask("enable", first).stdout == f"process {first} of {name} (development) is enabled\n"
    assert int(server.get("/pid").body) == first
    assert ask("enable", second).returncode == 0
    assert ask("disable", 1).returncode == 1
    assert sorted(server.pids) == sorted([first, second, third])
