"""``passenger-trio`` with faults: a program that is started in place of Python (``faulty_server.py -m passenger_trio start ...``), and whose tasks raise when they are told to.

It reads lines ``TASK ERROR`` from the FIFO that ``FAULTS`` names: the next time that the task comes to the place below, it raises that error, once, and says so on standard
error (``fault: TASK ERROR``). Places are functions that the task calls by their names.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passenger_trio.testing import Supervisor

ERRORS: dict[str, Callable[[], BaseException]] = {
    "OSError": lambda: OSError(24, "Too many open files"),
    "RuntimeError": lambda: RuntimeError("can't start new thread"),
    "ValueError": lambda: ValueError("injected"),
    "Group": lambda: BaseExceptionGroup("injected", [OSError(24, "no"), ExceptionGroup("more", [ValueError("no")])]),
}

# Task -> the place at which it raises: a module, and a name in it. A name of another module (trio) is stood in for, in this module only.
PLACES = {
    "the reaper": ("system.children", "_reap_zombies"),
    "the spawn listener": ("system.callers", "trio.lowlevel.wait_readable"),
    "a new caller": ("system.callers", "peer_credentials"),
    "a connection to the spawn socket": ("spawning.spawn_listener", "LineReader"),
    "a caller on the admin socket": ("admin.server", "_Desk._serve"),
    "an operation": ("admin.server", "_Desk._perform"),
    "an event stream": ("admin.server", "_Desk._stream_events"),
    "the watch": ("pool.restart_file_poller", "_stat"),
    "the watch's loop": ("pool.restart_file_poller", "trio.move_on_after"),
    "the gauges": ("pool.gauges", "_measure"),
    "the gauges' loop": ("pool.gauges", "trio.move_on_after"),
    "a hook": ("pool.hooks", "Hooks._call"),
    "the access log": ("server.logs.access_log", "_File.write"),
    "the access log's loop": ("server.logs.access_log", "AccessLog._flush"),
    "the deadline scanner": ("server.http.deadline_scanner", "trio.current_time"),
    "a deadline": ("server.http.connection", "Connection.on_deadline"),
    "the poller": ("system.poller", "wait_readable"),
    "a listener": ("server.listening.listener", "trio.lowlevel.wait_readable"),
    "a new connection": ("server.listening.listener", "Listener._connection"),
    "a connection": ("server.http.end_connection", "refusal"),
    "a client that waits": ("server.http.client_watch", "ClientWatch.on_readable"),
    "a reader of output": ("spawning.output", "OutputPipe._read"),
    "a line of output": ("spawning.output", "OutputPipe._pass_on"),
    "a preloader": ("spawning.preloader", "Preloader._forked"),
    "a spawn attempt": ("spawning.smart_forking", "SmartSpawner._spawn_through"),
    "the termination": ("pool.process_keeper", "Keeper._act"),
    "an exit status": ("spawning.spawner", "SpawnedProcess.wait_exit_status"),
    "a signal": ("running", "RunningServer.reopen_logs"),
}

# The same for tasks that only some configurations have.
LATER_PLACES = {
    "the metrics listener": ("admin.metrics_listener", "trio.lowlevel.wait_readable"),
    "a caller of the metrics listener": ("admin.metrics_listener", "_Desk._answer"),
    "the watch of slow requests": ("admin.slow_requests", "trio.sleep"),
    "a reload": ("reload.reloading", "Reloading._reload"),
    "the end of a removed application": ("reload.served_apps", "ServedApps._is_asked_for"),
    "the lifeline": ("program_tasks", "lines.lifeline_ended"),
}

# Where a thread or a process is asked for, and the kernel gives none: each of them does without, waits, or fails alone (KE3).
HOPS = {
    "a thread for the gauges": ("pool.gauges", "in_thread"),
    "a thread for the watch": ("pool.restart_file_poller", "in_thread"),
    "a thread for the access log": ("server.logs.access_log", "in_thread"),
    "a thread for a status": ("admin.status", "in_thread"),
    "a thread for what is asked of memory": ("admin.resources", "in_thread"),
    "a hook's process": ("pool.hooks", "start_program"),
    "a loader's process": ("spawning.direct", "start_program"),
    "a fork": ("spawning.preloader", "Preloader.ask_to_fork"),
}


def no_thread() -> BaseException:
    from passenger_trio.system.threads import NoThread

    return NoThread("can't start new thread")


ERRORS_OF_HOPS: dict[str, Callable[[], BaseException]] = {
    "NoThread": no_thread,
    "EAGAIN": lambda: BlockingIOError(11, "Resource temporarily unavailable"),
}

HITS: dict[str, Callable[..., bool]] = {"a deadline": lambda client, now: client.stage.name == "HEAD"}
"""Whom a fault is for, where others come to that place, too: on a busy machine a request of the load may take longer than the fast path has."""
armed: dict[str, str] = {}


class Orders:
    """What a test tells a server with faults; ``server`` is that."""

    server: Supervisor

    def __init__(self, path: Path) -> None:
        self._path = path

    def arm(self, task: str, error: str) -> int:
        """Lines of the log before."""
        before = len(self.server.log)
        with open(self._path, "w") as fifo:
            fifo.write(f"{task} {error}\n")
        self.server.wait_log(f"armed: {task} {error}", start=before)
        return before


def faulty_python(directory: Path) -> tuple[str, dict[str, str], Orders]:
    """The program to start a server with faults by, and its environment."""
    program, orders = directory / "python", directory / "orders"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__)} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    os.mkfifo(orders)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return str(program), {"FAULTS": str(orders), "PYTHONPATH": root}, Orders(orders)


class StandIn:
    """A module, or a part of one, of which one function may raise."""

    def __init__(self, real: Any, name: str, function: Any) -> None:
        self._real, self._name, self._function = real, name, function

    def __getattr__(self, name: str) -> Any:
        return self._function if name == self._name else getattr(self._real, name)


def raising(task: str, original: Any) -> Any:
    def call(*arguments: Any, **more: Any) -> Any:
        error = armed.pop(task, "") if task not in HITS or HITS[task](*arguments) else ""
        if error:
            os.write(2, f"fault: {task} {error}\n".encode())
            raise {**ERRORS, **ERRORS_OF_HOPS}[error]()
        return original(*arguments, **more)

    return call


def plant(task: str, module_name: str, name: str) -> None:
    module: Any = importlib.import_module(f"passenger_trio.{module_name}")
    *owners, last = name.split(".")
    if owners[:1] == ["trio"]:
        path = [module.trio]
        for owner in owners[1:]:
            path.append(getattr(path[-1], owner))
        stand_in: Any = raising(task, getattr(path[-1], last))
        for real, part in zip(reversed(path), [last, *reversed(owners[1:])], strict=True):
            stand_in = StandIn(real, part, stand_in)
        module.trio = stand_in
        return
    owner: Any = module
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, last, raising(task, getattr(owner, last)))


def listen() -> None:
    while True:
        with open(os.environ["FAULTS"]) as orders:
            for line in orders:
                task, _, error = line.strip().rpartition(" ")
                armed[task] = error
                os.write(2, f"armed: {task} {error}\n".encode())


def main() -> None:
    from passenger_trio.cli.main import entry

    for task, (module, name) in {**PLACES, **LATER_PLACES, **HOPS}.items():
        plant(task, module, name)
    threading.Thread(target=listen, daemon=True).start()
    del sys.argv[1:3]
    sys.argv[0] = "passenger-trio"
    entry()


if __name__ == "__main__":
    main()
