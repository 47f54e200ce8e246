"""KE1 on real processes: every task raises, one after another, under load. Nobody else's request fails, and the server ends as it should.

Starts the command: faults are injected into its own tasks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, Load, run_command
from faulty_server import ERRORS, HOPS, PLACES, Orders, faulty_python

from passenger_trio.admin.client import fetch, order
from passenger_trio.core.recorder import replay
from passenger_trio.errors import AdminError
from passenger_trio.testing import RawClient, Response, Supervisor, eventually

pytestmark = [pytest.mark.os, pytest.mark.slow]

OPTIONS = (
    *("--min-instances", "2", "--max-pool-size", "2", "--hook", "process_detached=true"),
    *("--stat-throttle-rate", "100ms", "--memory-check-interval", "100ms", "--memory-limit", "8G"),
    # The clients of the load stay: whoever connects anew may be the victim of a fault that is meant for newcomers.
    *("--header-timeout", "1s", "--max-requests-per-connection", "0"),
)


class Faulty:
    """A server whose tasks raise when they are told to."""

    def __init__(self, server: Supervisor, orders: Orders) -> None:
        self.server = orders.server = server
        self.arm = orders.arm

    def detach(self) -> None:
        """Some process; another comes for it."""
        eventually(lambda: len(running(self.server)) == 2)
        order(str(self.server.ready["admin_socket"]), "/v1/detach", {"pid": running(self.server)[0]})

    def end_one(self) -> None:
        """What is started by a program of its own: the preloader, then a process; without one, a process."""
        eventually(lambda: len(running(self.server)) == 2)
        preloader = self.server.preloader_pid
        if preloader is not None:
            os.kill(preloader, signal.SIGKILL)
            eventually(lambda: self.server.preloader_pid is None)
        self.detach()

    def call(self, name: str, data: bytes) -> bytes:
        """A caller on one of our own sockets, and what it is told before it is hung up on."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(15)
            sock.connect(str(self.server.instance_dir / name))
            try:
                sock.sendall(data)
                return sock.recv(4096)
            except ConnectionError:
                return b""

    def ask(self, data: bytes) -> None:
        """A client that is the victim: whatever becomes of it."""
        with self.server.connect() as client:
            try:
                client.send(data)
                client.read_response()
            except (ConnectionError, AssertionError, OSError, ValueError):
                pass

    def send_while_it_waits(self) -> None:
        """A client that waits for its response, and sends the next request meanwhile, in pieces, until it is hung up on."""

        def is_gone() -> bool:
            try:
                client.send(b"x")
            except ConnectionError:
                return True
            return False

        with self.server.connect() as client:
            client.send(get("/nap?2000") + b"GET /")
            eventually(is_gone)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


ADMIN = b"HTTP/1.1\r\nHost: x\r\n\r\n"
# What makes a task come to its place; None: it comes there by itself.
TRIGGERS: dict[str, Callable[[Faulty], object] | None] = {
    "the reaper": lambda it: it.server.send_signal(signal.SIGCHLD),
    "the spawn listener": lambda it: it.call("admin.sock", b"GET /v1/status " + ADMIN),
    "a new caller": lambda it: it.call("spawn.sock", b""),
    "a connection to the spawn socket": lambda it: it.call("spawn.sock", b"{}\n"),
    "a caller on the admin socket": lambda it: it.call("admin.sock", b"GET /v1/status " + ADMIN),
    "an operation": lambda it: it.call("admin.sock", b"POST /v1/resume " + ADMIN),
    "an event stream": lambda it: it.call("admin.sock", b"GET /v1/events " + ADMIN),
    "the watch": None,
    "the watch's loop": None,
    "the gauges": None,
    "the gauges' loop": None,
    "a hook": Faulty.detach,
    "the access log": None,
    "the access log's loop": None,
    "the deadline scanner": None,
    "a deadline": lambda it: it.ask(b"GET / HT"),
    "the poller": None,
    "a listener": lambda it: it.ask(get("/pid")),
    "a new connection": lambda it: it.ask(get("/pid")),
    "a connection": lambda it: it.ask(b"GET / HTTP/1.1\r\n\r\n"),
    "a client that waits": Faulty.send_while_it_waits,
    "a reader of output": lambda it: it.ask(get("/print?x")),
    "a line of output": lambda it: it.ask(get("/print?x")),
    "a preloader": Faulty.detach,
    "a spawn attempt": Faulty.detach,
    "the termination": Faulty.detach,
    "an exit status": Faulty.detach,
    "a signal": lambda it: it.server.send_signal(signal.SIGUSR1),
}


@contextmanager
def faulty(tmp_path: Path, *options: str) -> Iterator[Faulty]:
    python, env, orders = faulty_python(tmp_path)
    arguments = (*OPTIONS, "--python", sys.executable, *options)
    with Supervisor.start(BEHAVIOURS, *arguments, python=python, env=env) as server:
        yield Faulty(server, orders)


def test_the_table_has_a_way_to_every_place() -> None:
    assert TRIGGERS.keys() == PLACES.keys()


@pytest.mark.parametrize("error", ERRORS)
def test_every_task_raises_under_load(error: str, tmp_path: Path) -> None:
    with faulty(tmp_path) as it:
        server = it.server
        with Load(server, "/pid", connections=3) as load:
            eventually(lambda: len(load.results) > 20)
            for task, trigger in TRIGGERS.items():
                before = it.arm(task, error)
                if trigger is not None:
                    try:
                        trigger(it)
                    except AdminError:
                        pass  # it was the victim
                server.wait_log(f"fault: {task} {error}", start=before, timeout=30)
            seen = len(load.results)
            eventually(lambda: len(load.results) > seen + 20)
        bad = [result for result in load.results if not isinstance(result, Response) or result.status != 200]
        assert not bad, (bad[:3], server.log_tail)
        assert len(load.results) > 100
        faults = eventually(lambda: told(server))
        assert sum(fault["count"] for fault in faults.values()) >= len(PLACES) - 3
        eventually(lambda: len(running(server)) >= 2)
        assert server.stop() == 0


def no_memory(it: Faulty) -> None:
    """Who asks is told, and nobody else notices."""
    with pytest.raises(AdminError, match="refused a thread"):
        fetch(str(it.server.ready["admin_socket"]), "/v1/memory")


# What makes a hop come to its place (None: it comes by itself), and what the log says then.
HOP_TRIGGERS: dict[str, tuple[Callable[[Faulty], object] | None, str]] = {
    "a thread for the gauges": (None, "cannot measure the memory"),
    "a thread for the watch": (None, "cannot look at restart.txt"),
    "a thread for the access log": (lambda it: it.ask(get("/pid?logged")), ""),
    "a thread for a status": (lambda it: it.server.status(), ""),
    "a thread for what is asked of memory": (no_memory, ""),
    "a hook's process": (Faulty.detach, "cannot run the hook for process_detached"),
    "a loader's process": (Faulty.end_one, "cannot be started"),
    "a fork": (Faulty.detach, "does not start"),
}


@pytest.mark.parametrize("method", ["smart", "direct"])
def test_KE3_each_thread_and_each_process_that_cannot_be_had(method: str, tmp_path: Path) -> None:
    """One hop after another, alone, on one server: each does without, waits, or fails alone, and nobody's request fails."""
    assert HOP_TRIGGERS.keys() == HOPS.keys()
    with faulty(tmp_path, "--spawn-method", method) as it:
        server = it.server
        with Load(server, "/pid", connections=2) as load:
            for task, (trigger, says) in HOP_TRIGGERS.items():
                if task == "a fork" and method == "direct":
                    continue
                error = "NoThread" if "thread" in task else "EAGAIN"
                before = it.arm(task, error)
                if trigger is not None:
                    trigger(it)
                server.wait_log(f"fault: {task} {error}", start=before, timeout=30)
                if says:
                    server.wait_log(says, start=before)
            eventually(lambda: len(running(server)) >= 2, 30.0)
        bad = [result for result in load.results if not isinstance(result, Response) or result.status != 200]
        assert not bad, (bad[:3], server.log_tail)
        server.wait_access_log("/pid?logged")
        assert server.status()["groups"][0]["processes"][0]["memory"]
        assert fetch(str(server.ready["admin_socket"]), "/v1/memory")["supervisor"]["rss"] > 0
        assert told(server).keys() <= {"a spawn attempt"}, "what is expected is no fault"
        assert server.stop() == 0


def told(server: Supervisor) -> dict[str, Any]:
    try:
        return dict(server.status()["faults"]["tasks"])
    except AdminError:
        return {}


def running(server: Supervisor) -> list[int]:
    return [process["pid"] for process in server.status()["groups"][0]["processes"] if process["state"] == "running"]


def test_a_fault_is_logged_with_its_traceback_once_and_counted(tmp_path: Path) -> None:
    """KE1: it is in the flight recorder, too, as often as in the log."""
    with faulty(tmp_path) as it:
        for _ in range(3):
            before = it.arm("a signal", "ValueError")
            it.server.send_signal(signal.SIGUSR1)
            it.server.wait_log("fault: a signal ValueError", start=before)
        eventually(lambda: told(it.server).get("a signal", {}).get("count") == 3)
        assert told(it.server)["a signal"]["last"] == "ValueError: injected"
        lines = [json.loads(line) for line in it.server.log if line.startswith("{")]
        of_it = [line for line in lines if line["event"].startswith("a signal failed")]
        assert [bool(line.get("traceback")) for line in of_it] == [True, False]
        with RawClient(it.server.address) as client:
            assert client.get("/pid").status == 200
        dump = json.loads(run_command("trace", "--instance", str(it.server.instance_dir)).stdout)
        replayed = list(replay(dump))
        assert all(entry.answer == answer for entry, answer in replayed), "KE10"
        faults = [entry.arguments[:3] for entry, _ in replayed if entry.fact == "fault_contained"]
        assert [fault for fault in faults if fault[0] == "a signal"] == [
            ("a signal", "ValueError: injected", times) for times in (1, 2)
        ]
        assert it.server.stop() == 0
