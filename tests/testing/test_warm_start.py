"""TH3: servers after the first are forked from a process that has loaded the program. They are what a program started anew would be.

Starts the command: its start is the subject.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from passenger_trio.testing.harness import Supervisor, eventually, is_running
from passenger_trio.testing.warm_start import start_server

pytestmark = pytest.mark.os

APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
RUN = """
import json, os, sys
from passenger_trio.testing.harness import Supervisor
root, count = sys.argv[1], int(sys.argv[2])
servers = [Supervisor.start(root) for _ in range(count)]
print(json.dumps([[s.pid, os.path.basename(str(s.home)), s.pids] for s in servers]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "passenger_wsgi.py").write_text(APPLICATION)
    return tmp_path


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def warmed(root: Path) -> None:
    """A server has run: the next one is a fork."""
    start_server(["config", "check", str(root)], os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(
        60
    )


def test_TH3_a_later_server_is_forked_and_as_the_first(root: Path, warmed: None) -> None:
    with Supervisor.start(root, env={"SHOP": "open"}, cwd=root) as server:
        assert b"warm_process" in command_of(server.pid)
        assert os.getpgid(server.pid) == os.getsid(server.pid) == server.pid
        assert os.readlink(f"/proc/{server.pid}/cwd") == str(root)
        assert server.get().text == "hello"
        [worker] = server.pids
        assert b"SHOP=open" in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        foreign = [
            name
            for name in server.descriptors()
            if name.startswith("/") and not name.startswith(("/dev/", "/proc/", "/sys/", str(server.home)))
        ]
        assert not foreign
    assert server.exit_code == 0


def test_what_an_interpreter_reads_at_its_start_needs_a_new_one(root: Path, warmed: None) -> None:
    with Supervisor.start(root, env={"PYTHONDEVMODE": "1"}) as server:
        assert b"warm_process" not in command_of(server.pid)


LOADED = """
import sys
from passenger_trio.testing import warm_process
warm_process._load()
from passenger_trio import late_classes
from passenger_trio.later import LATER
late = [name for name in LATER if name not in sys.modules]
ours = [vars(module) for name, module in sys.modules.items() if name.startswith("passenger_trio.")]
drafts = [value for names in ours for value in names.values() if isinstance(value, type) and any(isinstance(one, late_classes._Fact) for one in vars(value).values())]
print(late, drafts, sum(isinstance(value, type) and "__attrs_attrs__" in vars(value) for names in ours for value in names.values()) > 100)
"""


def test_DE10_what_a_server_does_late_is_done_before_it_is_forked() -> None:
    """Else each of hundreds of servers would import the same modules and build the same classes: half of what its start costs."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[] [] True\n"


def test_its_end_is_told_as_that_of_a_child(root: Path, warmed: None) -> None:
    for arguments, code in ((["start", "--no-such-option"], 2), (["start", str(root / "nothing")], 4)):
        process = start_server(arguments, os.environ, stdout=subprocess.DEVNULL)
        assert process.wait(60) == process.poll() == code
        assert process.stderr is not None
        assert process.stderr.read()
        process.stderr.close()
    with Supervisor.start(root) as server:
        assert server.process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.01)
        server.kill()
        assert server.process.returncode == -signal.SIGKILL
        server.process.send_signal(signal.SIGTERM)  # to nobody, as with any process that has ended
        eventually(lambda: not server.marked_processes())


def test_TH8_it_ends_with_the_run_and_removes_what_is_left(root: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdin is not None
    assert run.stdout is not None
    servers = json.loads(run.stdout.readline())
    [warm] = {parent for pid, _, _ in servers if (parent := parent_of(pid)) != run.pid}
    directories = [path for _, home, _ in servers for path in Path(tempfile.gettempdir()).glob(f"pt-run-*/{home}")]
    run.kill()
    run.communicate()
    gone = [pid for pid, _, workers in servers for pid in [pid, *workers]] + [warm]
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in gone) or any(path.exists() for path in directories):
        assert time.monotonic() < deadline, (gone, directories)
        time.sleep(0.02)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
