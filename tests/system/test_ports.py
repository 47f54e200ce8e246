"""TCP ports of this machine: which are given out, who listens on one (R47: a stranger may have been quicker), and what is believed of a program's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from needs import needs

from passenger_trio.spawning.endpoints import Endpoint, probe
from passenger_trio.system.ports import Ports, listener_uids

STRANGER = 65534
_LISTENS = """
import os, socket, sys
uid = int(sys.argv[1])
if uid >= 0:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
sock = socket.create_server(("127.0.0.1", int(sys.argv[2])))
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""

Listening = Callable[..., tuple[int, int]]


@pytest.fixture
def another() -> Iterator[Listening]:
    """Starts a process that listens on 127.0.0.1, as a user if one is given. Returns its pid and its port."""
    with ExitStack() as stack:

        def start(uid: int = -1, port: int = 0) -> tuple[int, int]:
            command = [sys.executable, "-S", "-c", _LISTENS, str(uid), str(port)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return process.pid, int(process.stdout.readline())

        yield start


def test_our_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert listener_uids(port) == {os.getuid()}
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert listener_uids(client.getsockname()[1]) == set(), "a connection listens to nobody"
    assert listener_uids(port) == set(), "nobody listens any more"


def test_a_listener_on_ipv6_only() -> None:
    needs(socket.has_dualstack_ipv6(), "IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        assert listener_uids(sock.getsockname()[1]) == {os.getuid()}


def test_what_is_bound_and_does_not_listen() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert listener_uids(sock.getsockname()[1]) == set()


def test_a_listener_of_another_user(another: Listening) -> None:
    needs(os.geteuid() == 0, "the superuser, to become another user")
    _, port = another(STRANGER)
    assert listener_uids(port) == {STRANGER}
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.2", port))
        sock.listen()
        assert listener_uids(port) == {STRANGER, os.getuid()}, "each that listens on it, on whatever address"


async def test_a_port_where_our_user_listens_is_believed(another: Listening, tmp_path: Path) -> None:
    """Whoever it is: an application may have its server in a process that cannot be told to be its own."""
    _, port = another()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as program:
        assert probe(str(tmp_path / "s"), port, program.pid, os.getuid()) == Endpoint("127.0.0.1", port)
        program.communicate()


async def test_a_port_where_a_stranger_listens_is_not(another: Listening, tmp_path: Path) -> None:
    needs(os.geteuid() == 0, "the superuser, to become another user")
    pid, port = another(STRANGER)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as program:
        assert probe(str(tmp_path / "s"), port, program.pid, os.getuid()) is None
        assert probe(str(tmp_path / "s"), port, pid, os.getuid()) == Endpoint("127.0.0.1", port), (
            "unless it is the program itself"
        )
        program.communicate()


async def test_a_port_where_a_stranger_listens_beside_us_is_not(another: Listening, tmp_path: Path) -> None:
    needs(os.geteuid() == 0, "the superuser, to become another user")
    _, port = another(STRANGER)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.2", port))
        sock.listen()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as program:
            assert probe(str(tmp_path / "s"), port, program.pid, os.getuid()) is None
            program.communicate()


async def test_a_socket_is_the_programs_or_nobodys(instance_dir: Path) -> None:
    path = instance_dir / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        with PortOfNobody() as port:
            assert probe(str(path), port, os.getpid(), os.getuid()) is None, "it is bound and does not listen yet"
            sock.listen()
            assert probe(str(path), port, os.getpid(), os.getuid()) == Endpoint(str(path))
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as program:
                assert probe(str(path), port, program.pid, os.getuid()) is None, "another has bound it"
                program.communicate()


class PortOfNobody:
    """A port that is bound, so that nobody listens on it meanwhile."""

    def __enter__(self) -> int:
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        port: int = self._sock.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._sock.close()


async def test_a_program_that_became_another_user_is_believed_on_its_own_port_only(
    another: Listening, tmp_path: Path
) -> None:
    needs(os.geteuid() == 0, "the superuser, to become another user")
    program, _ = another(STRANGER)
    _, port = another(STRANGER)
    assert probe(str(tmp_path / "s"), port, program, os.getuid()) is None, "it listens elsewhere"


def test_no_port_is_given_twice() -> None:
    ports = Ports()
    taken = {ports.take() for _ in range(50)}
    assert len(taken) == 50
    assert all(listener_uids(port) == set() for port in taken)
    ports.release(next(iter(taken)))
    ports.release(1)
