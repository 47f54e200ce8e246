"""Copies of the test's process that serve an application object: any object, also one that a fixture made, with
everything that the test has prepared or patched.

The copies are made by fork. One becomes a process of our Python loader, which takes the object instead of loading one, and
the server takes it into use (``--preloader-socket`` with ``--spawn-method direct``). So everything between it and the client is the real thing.
A second copy waits for the case that the server wants another process; it is made while the server starts the first. When it is taken into use, it
leaves one more behind, which is as the test's process was when the test began, too.

A copy leaves behind what belongs to the test run: exit hooks, event loops, signal handlers, captured streams, connections of
clients. It ends when the test ends it, and also when the test's process is killed.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from passenger_trio.system.pidfd import is_readable
from passenger_trio.system.spawn_servers import find_loader
from passenger_trio.system.syscalls import pidfd_open
from passenger_trio.testing.worker import wrap

__all__ = ["ForkedProcesses", "interface_of"]

_PR_SET_PDEATHSIG = 1
_END_TIME = 5.0
_NEXT_TIME = 60.0
"""Seconds in which the next copy must listen."""
_MOST = 1 << 20
_NEEDED = ("PASSENGER_TRIO_SPAWN_SOCKET", "PASSENGER_TRIO_SPAWN_TOKEN", "IN_PASSENGER")
_PARTS_OF_LOADER = (
    "process",
    "preloading.after_fork",
    "preloading.before_fork",
    "wsgi.interface",
    "wsgi.worker",
    "asgi.interface",
    "asgi.worker",
)
_OURS = ("s", "admin.sock", "link")
"""Names of sockets to which clients of the harness connect: a server's, its admin socket, a link in between."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def interface_of(application: object) -> str:
    """``asgi`` if calling the object returns a coroutine, else ``wsgi``."""
    candidates = (
        application,
        getattr(application, "func", None),
        next((vars(kind)["__call__"] for kind in type(application).__mro__ if "__call__" in vars(kind)), None),
    )
    flags = [getattr(getattr(candidate, "__code__", None), "co_flags", 0) for candidate in candidates]
    return "asgi" if any(flag & 0x80 for flag in flags) else "wsgi"  # inspect.CO_COROUTINE


class ForkedProcesses:
    """The copies of the test's process, from the fork of the first until ``close``."""

    def __init__(
        self,
        application: object,
        interface: str,
        path: Path,
        environment: Mapping[str, str],
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """Fork. The first copy listens on ``path`` when ``wait_listening`` returns.

        :param environment: variables of the application, in addition to those of the test's process.
        :param begun: called when the first copy is made. It listens a moment later.
        """
        _, parts, _ = _loader()
        parts["before_fork"].import_first_uses()  # else each copy would do it anew
        path.unlink(missing_ok=True)
        self._path = path
        self._run = functools.partial(_serve, application, interface, environment)
        self._copies: list[tuple[int, int]] = []
        """Pid and pidfd of each that was forked from this process."""
        self._lifeline, self._alive = os.pipe()
        self._taken, taken = os.pipe()
        self._first = self._next = -1

        def wait(ready: int) -> socket.socket:
            listener = _listen(path, ready)
            _let_go_of_the_test()  # the server may ask for it meanwhile
            _leave_the_test_behind()
            server = _wait_taken(listener, path, self._lifeline)
            os.close(taken)  # the next one listens now
            os.close(self._lifeline)
            return server

        try:
            self._first = self._fork(wait)
        finally:
            os.close(taken)
        try:
            begun()
        except BaseException:
            self.close()
            raise

    def wait_listening(self) -> None:
        """Return when the first copy listens. A second call does nothing.

        :raises AssertionError: it cannot.
        """
        if self._first >= 0:
            ready, self._first = self._first, -1
            self._wait_ready(ready)

    @property
    def pid(self) -> int:
        """Of the first copy."""
        return self._copies[0][0]

    def fork_next(self) -> None:
        """Fork the copy that listens when the first one is taken into use. A second call does nothing."""
        if self._taken < 0:
            return

        def wait(ready: int) -> socket.socket:
            if self._first >= 0:
                os.close(self._first)
            _let_go_of_the_test()
            _wait_readable(self._taken, self._lifeline)
            os.close(self._taken)
            server = _wait_with_a_next_one(self._path, ready, self._lifeline)
            _leave_the_test_behind()  # only now: few tests need this copy, and while it is made the first one is in a hurry
            os.close(self._lifeline)
            return server

        self._next = self._fork(wait)
        os.close(self._taken)
        self._taken = -1

    def wait_next(self) -> None:
        """Return when that copy listens."""
        if self._next >= 0:
            ready, self._next = self._next, -1
            self._wait_ready(ready)

    def _fork(self, wait: Callable[[int], socket.socket]) -> int:
        """:param wait: called in the copy with a descriptor: writes ``+`` to it when the copy listens, and returns the server's connection.
        :returns: the other end of that descriptor.
        """
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = _quiet_fork()
        if pid == 0:
            status = 70
            try:
                os.close(reading)
                os.close(self._alive)
                status = _begin(parent) or self._run(wait(writing))
            except BaseException:  # noqa: BLE001  this process ends here
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        os.close(writing)
        self._copies.append((pid, pidfd_open(pid)))
        return reading

    def _wait_ready(self, ready: int) -> None:
        with os.fdopen(ready, "rb") as file:
            said = file.read(1)
            if said != b"+":
                said += file.read()
                self.close()
                raise AssertionError(f"the test's process cannot be copied to serve the application: {said.decode()}")

    def close(self) -> None:
        """End the copies, and reap those that are children."""
        copies, self._copies = self._copies, []
        if not copies:
            return
        for number in (self._alive, self._lifeline, self._taken, self._first, self._next):
            if number >= 0:
                os.close(number)
        self._taken = self._first = self._next = -1
        for pid, _ in copies:
            _kill(pid, signal.SIGTERM)
        for pid, pidfd in copies:
            try:
                if not is_readable(pidfd, _END_TIME):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass  # the test, or its framework, waits for any child
            finally:
                os.close(pidfd)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _quiet_fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's about threads: the copy has one
        return os.fork()


def _begin(parent: int) -> int:
    """First in each copy of the test's process. Not 0: that is gone."""
    if threading.current_thread() is threading.main_thread():  # the signal comes at the end of the thread that forks
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    os.setsid()
    gc.disable()
    # Nothing of the test run is finalized here a second time, and no collection writes to all its pages.
    gc.freeze()
    return 0


def _listen(path: Path, ready: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except OSError as error:
        os.write(ready, f"{path}: {error}".encode())
        os._exit(1)
    os.write(ready, b"+")
    os.close(ready)
    return listener


def _wait_readable(number: int, lifeline: int) -> None:
    """Return when there is something to read. The process ends if the test does."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    if lifeline in [found for found, _ in poll.poll()]:
        os._exit(0)


def _wait_taken(listener: socket.socket, path: Path, lifeline: int) -> socket.socket:
    _wait_readable(listener.fileno(), lifeline)
    server, _ = listener.accept()
    path.unlink(missing_ok=True)
    listener.close()
    return server


def _wait_with_a_next_one(path: Path, ready: int, lifeline: int) -> socket.socket:
    """Listen, and be taken into use; before that is told to anybody, another copy listens."""
    while True:
        server = _wait_taken(_listen(path, ready), path, lifeline)
        reading, writing = os.pipe()
        if child := _quiet_fork():
            os.close(writing)
            os.waitpid(child, 0)
            if select.select([reading], [], [], _NEXT_TIME)[0]:
                os.read(reading, 1)
            os.close(reading)
            return server
        # A process of the application is nobody's parent: it may end long before the test does. The lifeline ends the next one.
        if _quiet_fork():
            os._exit(0)
        os.setsid()
        os.close(reading)
        server.close()
        ready = writing


def _serve(application: object, interface: str, environment: Mapping[str, str], server: socket.socket) -> int:
    """The life of a copy that was taken into use."""
    with server:
        given, output = _receive(server)
    os.environ.update({name: given[name] for name in _NEEDED})
    os.environ.update({name: value for name, value in given.items() if name.endswith("_ENV")} | dict(environment))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(null, null + 1)
    os.close(output)
    gc.enable()
    os.chdir(given.get("PWD", "."))
    return _run_loader(application, interface)


def _receive(server: socket.socket) -> tuple[dict[str, str], int]:
    """The environment, and the descriptor for the output (CONTRACT.md 1.6)."""
    text, output = b"", -1
    while not text.endswith(b"\n"):
        data, messages, _, _ = server.recvmsg(_MOST, socket.CMSG_SPACE(4))
        if not data:
            raise ConnectionError("the server hung up")
        text += data
        for level, kind, payload in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                output = array.array("i", payload[:4])[0]
    environment: dict[str, str] = json.loads(text)["environment"]
    return environment, output


def _let_go_of_the_test() -> None:
    """Leave behind what the test would notice of a copy that waits: its signal handlers, and its connections."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # A connection that stays open here would not end for the server when its client closes it.
    for name in os.listdir("/proc/self/fd"):
        _close_if_connected(int(name))


def _leave_the_test_behind() -> None:
    """Leave behind what is nothing for a process that serves."""
    atexit._clear()
    assert sys.__stdout__ is not None
    assert sys.__stderr__ is not None
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), sys.__stdout__, sys.__stderr__  # noqa: SIM115
    asyncio, runs = sys.modules.get("asyncio"), sys.modules.get("trio._core._run")
    if asyncio is not None:
        asyncio._set_running_loop(None)
    if runs is not None:
        runs.GLOBAL_RUN_CONTEXT.__dict__.clear()
    _, parts, _ = _loader()
    for close in (parts["before_fork"].close_django_connections, parts["before_fork"].close_logging_sockets):
        close(None)
    parts["after_fork"].renew_in_worker()


def _close_if_connected(number: int) -> None:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return
        with socket.socket(fileno=os.dup(number)) as sock:
            if sock.family != socket.AF_UNIX:
                return
            ends = (sock.getpeername(), sock.getsockname())
        if any(isinstance(end, str) and os.path.basename(end) in _OURS for end in ends):
            os.close(number)
    except OSError:
        pass  # not connected, or closed by now


@functools.cache
def _loader() -> tuple[Any, Any, dict[str, Any]]:
    """Our Python loader, and what it wraps an application with, imported once, so that the copies have it."""
    place = str(find_loader("python", "wsgi_loader.py").parent)
    sys.path.insert(0, place)
    try:
        found = {name: importlib.import_module(f"passenger_trio_loader.{name}") for name in _PARTS_OF_LOADER}
    finally:
        sys.path.remove(place)
    for part in wrap.PARTS:
        wrap.load(part)
    interfaces = {"wsgi": found["wsgi.interface"].Wsgi, "asgi": found["asgi.interface"].Asgi}
    parts = {name: found[f"preloading.{name}"] for name in ("before_fork", "after_fork")}
    return found["process"], parts, interfaces


def _run_loader(application: object, interface: str) -> int:
    name = f"{type(application).__module__}.{type(application).__qualname__}"
    process, _, interfaces = _loader()
    process.load_application = lambda options, interface: (application, f"an object ({name})")
    sys.argv = ["worker"]
    status: int = 0
    try:
        status = process.main(interfaces[interface]())
    except process.Leave:
        pass
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 1
    # Without the interpreter's own end, which would finalize objects of the test run.
    run_exit_hooks: Any = atexit._run_exitfuncs
    run_exit_hooks()
    sys.stdout.flush()
    sys.stderr.flush()
    return status
