"""KE1 on a real server, for tasks that only some configurations have: what scrapes, what watches slow requests, a reload, an application that
is removed, the lifeline. Each raises, and costs what it was for.

Starts the command: faults are injected into its own tasks.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty_server import ERRORS, LATER_PLACES, Orders, faulty_python

from passenger_trio.admin.client import order
from passenger_trio.errors import AdminError
from passenger_trio.testing import Supervisor, eventually

pytestmark = [pytest.mark.os, pytest.mark.slow]

APP = """
import time
def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class Site:
    """Two applications, one of which goes and comes back; all parts that a configuration can add."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server: Supervisor
        self.scraped = root / "metrics.sock"
        for name in ("stays", "goes"):
            (root / name).mkdir()
            (root / name / "passenger_wsgi.py").write_text(APP)
        self.write("stays", "goes")

    def write(self, *names: str) -> None:
        server = f'[server]\nmetrics_listen = "unix:{self.scraped}"\nslow_request_time = "200ms"\n'
        apps = [f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\n' for name in names]
        (self.root / "passenger-trio.toml").write_text("\n".join([server, *apps]))

    def reload(self) -> None:
        try:
            order(str(self.server.ready["admin_socket"]), "/v1/reload", {}, for_long=True)
        except AdminError:
            pass  # it was the victim

    def remove(self) -> None:
        """An application goes; it is gone in the end, whatever happens on the way, and comes back."""
        self.write("stays")
        self.reload()
        eventually(lambda: self.groups() == ["stays"], 30)
        self.write("stays", "goes")
        self.reload()
        assert self.server.get("/goes/").status == 200

    def groups(self) -> list[str]:
        return [group["name"] for group in self.server.status()["groups"]]

    def scrape(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(15)
            sock.connect(str(self.scraped))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                return sock.recv(64)
            except ConnectionError:
                return b""


TRIGGERS: dict[str, Callable[[Site], object] | None] = {
    "the metrics listener": Site.scrape,
    "a caller of the metrics listener": Site.scrape,
    "the watch of slow requests": None,
    "a reload": Site.reload,
    "the end of a removed application": Site.remove,
}


@contextmanager
def site(root: Path, *options: str) -> Iterator[tuple[Site, Orders]]:
    it = Site(root)
    python, environment, orders = faulty_python(root)
    with Supervisor.start(root, *options, python=python, env=environment) as it.server:
        orders.server = it.server
        yield it, orders


def is_told(server: Supervisor) -> bool:
    return any("GET /goes/" in line for line in server.log)


def test_KE1_tasks_of_some_configurations_raise(tmp_path: Path) -> None:
    assert TRIGGERS.keys() | {"the lifeline"} == LATER_PLACES.keys()
    with site(tmp_path) as (it, orders):
        server = it.server
        for error in ERRORS:
            for task, trigger in TRIGGERS.items():
                before = orders.arm(task, error)
                if trigger is not None:
                    trigger(it)
                server.wait_log(f"fault: {task} {error}", start=before, timeout=30)
                assert server.get("/stays/").status == 200
        assert it.scrape().startswith(b"HTTP/1.1 200")
        assert server.status()["faults"]["total"] >= len(ERRORS) * len(TRIGGERS) - 2
        # Its last fault may be that of a moment ago: it is started again within a second, which a single slow request would miss.
        eventually(lambda: server.get("/goes/?0.5").status == 200 and is_told(server), 60, "a slow request is logged")
        assert server.stop() == 0


def test_KE1_the_task_of_the_lifeline_raises(tmp_path: Path) -> None:
    """And the server ends with it all the same, as it was told to."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as lifeline:
        with site(tmp_path, "--lifeline", str(lifeline.pid)) as (it, orders):
            before = orders.arm("the lifeline", "OSError")
            os.kill(lifeline.pid, signal.SIGKILL)
            it.server.wait_log("fault: the lifeline OSError", start=before)
            it.server.wait_log("of --lifeline has ended", start=before)
            assert it.server.wait() == 0
