"""``python -m passenger_trio.testing.warm_process NUMBER``: a process that has loaded the server's program, and is forked for each server.

Loading is most of what a start costs; the second server of a test run and all later ones do without. Nothing has run here but imports: a server
that is forked finds what a fresh interpreter would give it (``warm_start`` says for which servers that is so).

Requests come in at the socket NUMBER, one datagram each: the arguments, the environment, the working directory, the mask of file modes, and the two
descriptors of the output. The answers: the pid of a server, and later how it ended. This process ends with the process of the tests.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from passenger_trio.late_patterns import Late

__all__ = ["LONGEST", "serve_requests"]

LONGEST = 128 * 1024
"""Bytes of a request. The kernel's default for a socket's buffer holds it."""


def serve_requests(number: int) -> dict[str, Any] | None:
    """Fork for each request, and tell of each end.

    :returns: in a process that was forked, when all is set for its server: the request. None: the tests are over.
    """
    _load()
    control = socket.socket(fileno=number)
    tests = os.pidfd_open(os.getppid())
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy's collector is of another kind
        gc.freeze()
    while True:
        ready, _, _ = select.select([control.fileno(), tests, woken], [], [])
        if tests in ready:
            return None
        if woken in ready:
            os.read(woken, 4096)
            _tell_of_ends(control)
        if control.fileno() not in ready:
            continue
        data, descriptors, _, _ = socket.recv_fds(control, LONGEST, 2)
        if not data:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            for descriptor in (tests, woken, wakes):
                os.close(descriptor)
            return _become(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps({"pid": pid}).encode())


def _load() -> None:
    """Import what a server imports, before it serves and after that, and do what it does at the first use of a class or a pattern."""
    import difflib  # noqa: F401
    import importlib.util
    import runpy  # noqa: F401

    import passenger_trio.cli.apps_dir
    import passenger_trio.cli.banner
    import passenger_trio.cli.main
    import passenger_trio.cli.source
    import passenger_trio.cli.start_cmd
    import passenger_trio.early_start
    import passenger_trio.program
    import passenger_trio.program_tasks
    import passenger_trio.testing.run_directory
    import passenger_trio.tree  # noqa: F401
    from passenger_trio.late_classes import build_rest
    from passenger_trio.later import LATER

    for name in LATER:
        importlib.import_module(name)
    for name, module in list(sys.modules.items()):
        if name.startswith("passenger_trio."):
            for value in list(vars(module).values()):
                _finish(value)
    build_rest()


def _finish(value: object) -> None:
    """What a server does at the first use (``late_classes``, ``late_patterns``): each of hundreds of servers would do it anew."""
    if isinstance(value, Late):
        for name in ("match", "fullmatch", "search", "sub"):
            getattr(value, name)


def _tell_of_ends(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def _become(request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """Make this process as a fresh one would be."""
    os.setsid()
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
    os.closerange(3, max(descriptors) + 1)
    os.chdir(request["directory"])
    os.umask(request["mask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["passenger-trio", *request["arguments"]]
    sys.path[0] = os.getcwd()
    return request


if __name__ == "__main__" and serve_requests(int(sys.argv[1])) is not None:
    from passenger_trio.testing.served import serve

    serve()
