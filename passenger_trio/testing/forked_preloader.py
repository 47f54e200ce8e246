"""A copy of the test's process that serves an application object: any object, also one that a fixture made, with
everything that the test has prepared or patched.

The copy is made by fork. It becomes a preloader of our Python loader, which takes the object instead of loading one, and
the server takes it into use (``--preloader-socket``). So the processes that serve are forks of the test's process, and
everything between them and the client is the real thing.

The copy leaves behind what belongs to the test run: exit hooks, event loops, signal handlers, captured streams, connections of
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
import signal
import socket
import stat
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passenger_trio.system.pidfd import is_readable
from passenger_trio.system.spawn_servers import find_loader
from passenger_trio.system.syscalls import pidfd_open
from passenger_trio.testing.worker import wrap

__all__ = ["ForkedPreloader", "interface_of"]

_PR_SET_PDEATHSIG = 1
_END_TIME = 5.0
_TAKEN_TIME = 60.0
"""Seconds in which the server must take the copy into use."""
_MOST = 1 << 20
_NEEDED = ("PASSENGER_TRIO_SPAWN_SOCKET", "PASSENGER_TRIO_SPAWN_TOKEN", "IN_PASSENGER")
_PARTS_OF_LOADER = (
    "process",
    "preloading.before_fork",
    "preloading.hazards",
    "preloading.preloader",
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


class ForkedPreloader:
    """The copy of the test's process, from the fork until ``close``."""

    def __init__(self, application: object, interface: str, path: Path, environment: Mapping[str, str]) -> None:
        """Fork. When this returns, the copy listens on ``path``.

        :param environment: variables of the application, in addition to those of the test's process.
        """
        _loader()
        path.unlink(missing_ok=True)
        reading, writing = os.pipe()
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's about threads: the copy has one
            pid = os.fork()
        if pid == 0:
            status = 70
            try:
                os.close(reading)
                status = _serve(application, interface, path, environment, writing, parent)
            except BaseException:  # noqa: BLE001  this process ends here
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        os.close(writing)
        self.pid = pid
        self._pidfd = pidfd_open(pid)
        with os.fdopen(reading, "rb") as ready:
            said = ready.read()
        if said != b"+":
            self.close()
            raise AssertionError(f"the test's process cannot be copied to serve the application: {said.decode()}")

    def close(self) -> None:
        """End the copy, and reap it."""
        if self._pidfd < 0:
            return
        pidfd, self._pidfd = self._pidfd, -1
        try:
            os.kill(self.pid, signal.SIGTERM)
            if not is_readable(pidfd, _END_TIME):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # the test, or its framework, waits for any child
        finally:
            os.close(pidfd)


def _serve(
    application: object, interface: str, path: Path, environment: Mapping[str, str], ready: int, parent: int
) -> int:
    """The life of the copy, and of the processes that it forks."""
    if threading.current_thread() is threading.main_thread():  # the signal comes at the end of the thread that forks
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    os.setsid()
    gc.disable()  # nothing of the test run is finalized here a second time
    _leave_the_test_behind()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.settimeout(_TAKEN_TIME)
            listener.bind(str(path))
            listener.listen(1)
        except OSError as error:
            os.write(ready, f"{path}: {error}".encode())
            return 1
        os.write(ready, b"+")
        os.close(ready)
        server, _ = listener.accept()
    path.unlink(missing_ok=True)
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


def _leave_the_test_behind() -> None:
    atexit._clear()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    assert sys.__stdout__ is not None
    assert sys.__stderr__ is not None
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), sys.__stdout__, sys.__stderr__  # noqa: SIM115
    asyncio, runs = sys.modules.get("asyncio"), sys.modules.get("trio._core._run")
    if asyncio is not None:
        asyncio._set_running_loop(None)
    if runs is not None:
        runs.GLOBAL_RUN_CONTEXT.__dict__.clear()
    # A connection that stays open here would not end for the server when its client closes it.
    for name in os.listdir("/proc/self/fd"):
        _close_if_connected(int(name))


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
    return found["process"], found["preloading.before_fork"], interfaces


def _run_loader(application: object, interface: str) -> int:
    name = f"{type(application).__module__}.{type(application).__qualname__}"
    process, before_fork, interfaces = _loader()
    process.load_application = lambda options, interface: (application, f"an object ({name})")
    # Collecting the garbage of the test's process takes long, and its memory is shared for one test only.
    before_fork.share_memory = gc.freeze
    sys.argv = ["preloader", "--preload"]
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
