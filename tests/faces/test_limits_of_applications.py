"""OP9: limits of an application, as its processes have them and as the kernel keeps them.

Starts the command: the limits that it sets at the start of a process are the subject.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

FACTS = """
import json, os, resource

NAMES = ("NOFILE", "CORE", "AS", "CPU", "NPROC")


def facts():
    mask = os.umask(0)
    os.umask(mask)
    found = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in NAMES}
    descriptors = {int(name) for name in os.listdir("/proc/self/fd")}
    return {**found, "nice": os.getpriority(os.PRIO_PROCESS, 0), "umask": mask, "argv": open("/proc/self/cmdline").read(),
            "stdin": os.readlink("/proc/self/fd/0")}


def open_many():
    kept = []
    try:
        while True:
            kept.append(open("/dev/null"))
    except OSError as error:
        return os.strerror(error.errno)


def compute():
    while True:
        pass
"""
WSGI = f"""{FACTS}

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    found = {{"/": facts, "/many": open_many, "/compute": compute}}[environ["PATH_INFO"]]()
    return [json.dumps(found).encode()]
"""
PROGRAM = f"""{FACTS}
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(facts()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
LIMITS = """
open_files = 60
core = "0"
address_space = "8G"
cpu_time = 4
nice = 3
umask = "0027"
"""
WANTED = {"NOFILE": [60, 60], "CORE": [0, 0], "AS": [8 * 1024**3] * 2, "CPU": [4, 9], "nice": 3, "umask": 0o027}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """One application for each way in which processes are made, all with the same limits; and one without."""
    home = tmp_path_factory.mktemp("limits")
    tables = ["[pool]\nmax_pool_size = 8\n[server]\n"]
    for name, how in (
        ("forked", 'spawn_method = "smart"'),
        ("started", 'spawn_method = "direct"'),
        ("program", f'app_start_command = "exec {sys.executable} program.py"'),
        ("free", 'spawn_method = "direct"'),
    ):
        (home / name).mkdir()
        (home / name / ("program.py" if name == "program" else "wsgi.py")).write_text(
            PROGRAM if name == "program" else WSGI
        )
        tables.append(f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\n{how}\n{"" if name == "free" else LIMITS}')
    config = home / "passenger-trio.toml"
    config.write_text("\n".join(tables))
    with Supervisor.start(None, "--config", str(config)) as server:
        yield server


def facts(server: Supervisor, name: str) -> dict[str, Any]:
    return dict(json.loads(server.get(f"/{name}/").body))


@pytest.mark.parametrize("name", ["forked", "started", "program"])
def test_OP9_processes_have_the_limits(server: Supervisor, name: str) -> None:
    """However they are made. The shell that waits for the limits is gone, and has left no trace."""
    found = facts(server, name)
    assert {member: found[member] for member in WANTED} == WANTED
    assert "exec" not in found["argv"]
    assert found["stdin"] == "/dev/null"


def test_OP9_an_application_without_limits_has_the_servers(server: Supervisor) -> None:
    found = facts(server, "free")
    assert found["nice"] == os.getpriority(os.PRIO_PROCESS, server.pid)
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    own = next(line.split()[-2] for line in limits.splitlines() if line.startswith("Max open files"))
    assert found["NOFILE"][1] == int(own)
    assert found["AS"] == [-1, -1]


def test_OP9_the_kernel_keeps_them(server: Supervisor) -> None:
    """Files beyond the limit are refused to the application; one that computes for too long is ended, and replaced."""
    assert json.loads(server.get("/started/many").body) == "Too many open files"
    answer = server.get("/started/compute")
    assert answer.status == 502
    # SIGKILL, at the hard limit, would not tell why.
    eventually(lambda: [line for line in server.log if "(SIGXCPU: its processor time is used up)" in line], 30)
    assert eventually(lambda: server.get("/started/").status == 200, 30)
