"""Clocks that jump, pauses of the machine and of the event loop, a configuration that broke meanwhile, an application that forks without end.

Starts the command: it is paused itself, and its clock is changed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from faces_tools import BEHAVIOURS, HELLO, clients, gate, run_command, write_app

from passenger_trio import AppOptions, Config, PoolOptions, ServerOptions, open_server
from passenger_trio.testing import RawClient, Response, Supervisor, eventually
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os

CLOCK = """
import os, time
_real, _file = time.time, os.environ["CLOCK_OFFSET"]

def _wall_clock():
    with open(_file) as file:
        return _real() + float(file.read() or 0)

time.time = _wall_clock
"""
"""A wall clock that a test sets. The monotonic one is left alone, as the kernel does."""


async def in_a_thread(probe: Callable[[], bool]) -> None:
    await trio.to_thread.run_sync(eventually, probe)


def date(response: Response) -> float:
    return parsedate_to_datetime(response.header("Date") or "").timestamp()


def test_F51_the_wall_clock_jumps(tmp_path: Path) -> None:
    """R50: deadlines are monotonic. One day on, one hour back: no request, no process and no connection dies of it, and ``Date`` is right."""
    write_app(tmp_path / "site", CLOCK, "sitecustomize.py")
    offset = tmp_path / "offset"
    offset.write_text("0")
    env = {"PYTHONPATH": str(tmp_path / "site"), "CLOCK_OFFSET": str(offset)}
    times = (
        "--max-request-time",
        "30s",
        "--max-process-lifetime",
        "10m",
        "--pool-idle-time",
        "1m",
        "--min-instances",
        "2",
    )
    with gate() as at_gate, clients(1) as send:
        with Supervisor.start(BEHAVIOURS, *at_gate.arguments, *times, env=env) as server, server.connect() as idle:
            eventually(lambda: len(server.pids) == 2)
            assert idle.get("/pid").status == 200
            before, under_way = sorted(server.pids), send(server, "/gate")
            at_gate.wait_arrival()
            for jump in (86_400, -3_600):
                offset.write_text(str(jump))
                assert abs(date(server.get("/pid")) - time.time() - jump) < 60
                time.sleep(0.2)  # for whatever would be due
            assert idle.get("/pid").status == 200
            at_gate.open()
            assert under_way.result(30).status == 200
            assert sorted(server.pids) == before


def test_F64_the_machine_sleeps_and_wakes(tmp_path: Path) -> None:
    """All are stopped at once, for longer than the keep-alive time: nothing is taken for dead, and clients connect anew."""
    root = write_app(tmp_path / "app")
    with Supervisor.start(root, "--min-instances", "2", "--keep-alive-timeout", "500ms") as server:
        eventually(lambda: len(server.pids) == 2)
        before = sorted(server.pids)
        with server.connect() as idle:
            assert idle.get("/").status == 200
            everybody = [int(line.split()[0]) for line in server.marked_processes()]
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for pid in everybody:
                    os.kill(pid, number)
                if number == signal.SIGSTOP:
                    time.sleep(1.2)  # the sleep of the machine
            assert server.get("/").status == 200
            assert idle.receive_all() == b"", "ended in good order"
        assert sorted(server.pids) == before


async def test_F53_whoever_embeds_the_server_blocks_its_event_loop(tmp_path: Path) -> None:
    """A request that was answered meanwhile is not held for too long, and its process is not killed for our own pause."""
    source = HELLO.replace("    start_response", "    __import__('time').sleep(0.3)\n    start_response", 1)
    config = Config(
        server=ServerOptions(port=0, access_log="off"),
        pool=PoolOptions(),
        apps=(AppOptions(root=str(write_app(tmp_path / "app", source)), max_request_time=1.0),),
    )
    async with open_server(config) as server:
        address = urlsplit(server.addresses[0])
        got: list[int] = []

        def ask() -> None:
            with RawClient((str(address.hostname), int(address.port or 0))) as client:
                got.append(client.get("/").status)

        await in_a_thread(lambda: bool(server.pool.processes))
        [process] = server.pool.processes.values()
        client = threading.Thread(target=ask)
        client.start()
        await in_a_thread(lambda: bool(server.front.active))
        time.sleep(2.5)
        await trio.to_thread.run_sync(client.join)
        assert got == [200]
        assert [p.live.pid for p in server.pool.processes.values()] == [process.live.pid]


def test_F63_a_configuration_that_broke_meanwhile(tmp_path: Path) -> None:
    """SIGHUP reads it anew, the log names what is wrong, and all is restarted with the configuration of before (OP2)."""
    write_app(tmp_path)
    file = tmp_path / "passenger-trio.toml"
    file.write_text('[[app]]\nroot = "."\nmin_instances = 2\n')
    with Supervisor.start(tmp_path) as server:
        eventually(lambda: len(server.pids) == 2)
        before = set(server.pids)
        file.write_text('[[app]]\nroot = "."\nmin_instanzes = \n')
        checked = run_command("config", "check", str(tmp_path))
        assert checked.returncode == 2, checked
        server.send_signal(signal.SIGHUP)
        eventually(lambda: len(server.pids) == 2 and before.isdisjoint(server.pids))
        assert server.get("/").body == b"hello"
        assert server.group()["rejected"] is None
        server.wait_log("passenger-trio.toml: it is not valid TOML")


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_F36_an_application_that_forks_without_end(method: str, tmp_path: Path) -> None:
    """The other application is served, and what was forked is gone with its process, within 2 seconds. (A cap is the operator's to set: ``ARCHITECTURE.md``.)"""
    bomb = """
import os, time
def application(environ, start_response):
    for _ in range(64):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    start_response("200 OK", [])
    return [b"%d" % os.getpid()]
"""
    write_app(tmp_path / "bomb", bomb)
    write_app(tmp_path / "well")
    (tmp_path / "passenger-trio.toml").write_text(
        '[[app]]\nroot = "well"\n[[app]]\nroot = "bomb"\nbase_uri = "/bomb"\n'
    )
    with Supervisor.start(tmp_path, "--spawn-method", method) as server:
        pid = int(server.get("/bomb").text)
        bombs = [int(line.split()[0]) for line in server.marked_processes() if os.getpgid(int(line.split()[0])) == pid]
        assert len(bombs) == 65
        assert server.get("/").body == b"hello"
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_running, bombs)), what="what it forked is gone")
        assert server.get("/").body == b"hello"
