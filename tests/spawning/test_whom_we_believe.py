"""Each predicate of trust at a start says yes to whom it is for, and no to everybody else (R47; "a test for yes and one for no")."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from needs import needs

from passenger_trio.admin.server import may_steer
from passenger_trio.core.fronts.messages import ProcessCame
from passenger_trio.core.model import GroupKey, ProcessId
from passenger_trio.errors import SpawnServerError
from passenger_trio.fronts.remote_process import RemoteProcess
from passenger_trio.spawning.direct import is_program
from passenger_trio.spawning.endpoints import belongs
from passenger_trio.spawning.generic import ListeningProcess
from passenger_trio.spawning.launch import check_socket_file
from passenger_trio.spawning.smart_forking import is_fork
from passenger_trio.spawning.spawner import SpawnedProcess
from passenger_trio.system.pidfd import PidFd, parent_of
from passenger_trio.system.unix_peers import PeerCredentials

WE = PeerCredentials(os.getpid(), os.getuid(), os.getgid())
STRANGER = os.getuid() + 1


def test_a_program_that_was_started() -> None:
    assert is_program(WE, WE.pid, WE.uid)
    assert not is_program(WE, WE.pid + 1, WE.uid)
    assert not is_program(WE, 0, WE.uid)
    assert not is_program(attrs.evolve(WE, uid=STRANGER), WE.pid, WE.uid)
    assert is_program(attrs.evolve(WE, uid=STRANGER), WE.pid, STRANGER), "OP8: the application has a user of its own"
    assert not is_program(WE, WE.pid, STRANGER)


def test_a_process_that_was_forked() -> None:
    preloader = os.getppid()
    assert is_fork(WE, None, preloader, WE.uid)
    assert is_fork(WE, WE.pid, 1, WE.uid), "its pid is known, and says more"
    assert not is_fork(WE, WE.pid + 1, preloader, WE.uid), "another child than the one that was ordered"
    assert not is_fork(WE, None, preloader + 1, WE.uid)
    assert not is_fork(attrs.evolve(WE, uid=STRANGER), None, preloader, WE.uid)
    assert not is_fork(attrs.evolve(WE, uid=STRANGER), WE.pid, preloader, WE.uid)
    assert is_fork(attrs.evolve(WE, uid=STRANGER), WE.pid, preloader, STRANGER), "OP8"
    assert not is_fork(WE, WE.pid, preloader, STRANGER)


def test_who_may_steer() -> None:
    """R49: our user and the superuser."""
    assert may_steer(WE)
    assert may_steer(attrs.evolve(WE, uid=0))
    assert not may_steer(attrs.evolve(WE, uid=STRANGER))
    assert not may_steer(attrs.evolve(WE, uid=65534 if os.getuid() != 65534 else 65533))


@pytest.fixture
def path(instance_dir: Path) -> Iterator[Path]:
    path = instance_dir / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        yield path


def test_a_socket_of_ours(path: Path) -> None:
    check_socket_file(str(path), WE.uid)


def test_a_socket_of_another_user(path: Path) -> None:
    needs(os.geteuid() == 0, "the superuser, to give a socket away")
    os.chown(path, 65534, -1)
    with pytest.raises(SpawnServerError, match="is not a Unix socket of the application's user"):
        check_socket_file(str(path), WE.uid)


def test_what_is_no_socket(path: Path) -> None:
    link, file = path.with_name("link"), path.with_name("file")
    link.symlink_to(path)
    file.write_text("")
    for other in (link, file, path.parent):
        with pytest.raises(SpawnServerError, match="is not a Unix socket of the application's user"):
            check_socket_file(str(other), WE.uid)
    with pytest.raises(SpawnServerError, match="cannot be found"):
        check_socket_file(str(path.with_name("missing")), WE.uid)


def test_who_listens_for_a_program() -> None:
    """KE5: the program, its process group, what descends from it; nobody else, and nobody who has ended."""
    ours = os.getpgid(0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0) as other:
        assert belongs(other.pid, attrs.evolve(WE, pid=other.pid))
        assert belongs(ours, WE), "a member of its process group"
        assert belongs(os.getpid(), attrs.evolve(WE, pid=other.pid)), "a child with a group of its own"
        assert not belongs(other.pid, WE)
        assert not belongs(other.pid, attrs.evolve(WE, pid=1))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=other.pid) as member:
            assert belongs(other.pid, attrs.evolve(WE, pid=member.pid)), "of its group, though another has started it"
            assert not belongs(member.pid, attrs.evolve(WE, pid=other.pid)), "the group's leader is not its member's"
            member.communicate()
        other.communicate(b"\n")
    assert not belongs(os.getpid(), attrs.evolve(WE, pid=other.pid)), "it has ended"
    assert not belongs(os.getpgid(0), attrs.evolve(WE, pid=0)), "of a pid namespace that we do not see"


async def test_who_listens_where_a_process_is_to(caplog: pytest.LogCaptureFixture) -> None:
    """KE5, fault 13: the worker itself, as our user; of a program whoever belongs to it. Whoever runs as our user can bind another socket to a path."""
    nothing: Any = None
    pidfd = PidFd.open(WE.pid)
    try:
        worker = SpawnedProcess(pidfd, "", 1, nothing, nothing, nothing, 0.0, False)
        assert worker._is_listener(WE)
        assert not caplog.records
        assert not worker._is_listener(attrs.evolve(WE, pid=os.getppid()))
        assert not worker._is_listener(attrs.evolve(WE, uid=STRANGER))
        assert len(caplog.records) == 2, "it is told of"
        program = ListeningProcess(pidfd, nothing, 1, nothing, nothing, 0.0, "", 0, nothing, nothing)
        assert program._is_listener(WE)
        assert program._is_listener(attrs.evolve(WE, uid=STRANGER)), "it may become another user"
        assert not program._is_listener(attrs.evolve(WE, pid=1))
        assert len(caplog.records) == 3
    finally:
        pidfd.close()


def test_who_listens_where_a_front_connects(instance_dir: Path) -> None:
    """KE5, OP8: for a front, too, the worker itself, as the user to whom the directory of its socket belongs."""
    came = ProcessCame(ProcessId(1), GroupKey("a", "b"), WE.pid, 1, "session", False, f"unix:{instance_dir}/s", b"")
    worker = RemoteProcess.of(came)
    assert worker._is_listener(WE)
    assert not worker._is_listener(attrs.evolve(WE, pid=os.getppid()))
    assert not worker._is_listener(attrs.evolve(WE, uid=STRANGER))
    if os.geteuid() == 0:
        os.chown(instance_dir, STRANGER, -1)
        assert worker._is_listener(attrs.evolve(WE, uid=STRANGER))
        assert not worker._is_listener(WE)


async def test_a_pid_that_is_somebody_elses_by_now() -> None:
    """What was pinned stays what it was: once its end was seen, its number means nothing (no signal, no group)."""
    child = subprocess.Popen([sys.executable, "-c", "pass"], process_group=0)
    pidfd = PidFd.open(child.pid)
    child.wait()
    assert parent_of(child.pid) is None
    with pytest.raises(ProcessLookupError):
        PidFd.open(child.pid)
    assert pidfd.poll()
    assert not pidfd.send_signal(0)
    assert not pidfd.signal_group(0)
    pidfd.close()
    assert not pidfd.signal_group(signal.SIGKILL)
