"""Fault 28 (R25): a program that dies in the middle of a body without a length has not sent a whole response, whatever the kernel makes of its streams."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

PROGRAM = """
import http.server, os, signal, socketserver, subprocess, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"first")
        self.wfile.flush()
        what = self.path[1:]
        if what == "helper":
            subprocess.run(["sh", "-c", "exit 7"])
            subprocess.run(["sh", "-c", "kill -TERM $$"])
            global leaked
            leaked = subprocess.Popen(["false"])
            time.sleep(0.1)
        elif what.startswith("exit"):
            self.wfile.write(b"last")
            os._exit(int(what[4:]))
        elif what.startswith("kill"):
            time.sleep(0.2 if what.endswith("slowly") else 0)
            os.kill(os.getpid(), getattr(signal, what[4:].removesuffix("slowly")))
            time.sleep(10)
        self.wfile.write(b"last")

    def log_message(self, *_):
        pass

if sys.argv[1] == "forking":
    class Server(socketserver.ForkingMixIn, http.server.HTTPServer): pass
else:
    Server = http.server.HTTPServer
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

COMMANDS = {
    "by itself": "exec {python} program.py one",
    "under its shell": "{python} program.py one; exit $?",
    "a process for each connection": "exec {python} program.py forking",
}


def received(server: Supervisor, path: str, version: str = "1.1") -> tuple[bytes, bool]:
    """All that came of the response, and whether it was whole by its framing."""
    with closing(socket.create_connection(server.address, 60)) as client:  # type: ignore[arg-type]
        client.sendall(f"GET /{path} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data = b""
        try:
            while piece := client.recv(65536):
                data += piece
        except ConnectionResetError:
            return data, False
    assert b"first" in data
    return data, data.endswith(b"0\r\n\r\n") if version == "1.1" else True


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "program.py").write_text(PROGRAM)
    return COMMANDS[request.param].format(python=sys.executable)


def test_fault_28_a_crash_is_no_end_of_a_body(command: str, tmp_path: Path) -> None:
    with Supervisor.start(tmp_path, "--app-start-command", command) as server:
        for path in ("killSIGSEGV", "killSIGKILLslowly", "killSIGABRTslowly"):
            for version in ("1.1", "1.0"):
                if "forking" not in command:
                    eventually(lambda: received(server, "")[1], 60)  # there is one again
                data, is_whole = received(server, path, version)
                assert not is_whole, (path, version, data)
        assert eventually(lambda: received(server, ""), 60)[1]
        assert [line for line in server.log if "cut a response of" in line]


def test_fault_28_a_good_end_is_one(command: str, tmp_path: Path) -> None:
    """Also of a program whose helpers fail, and of one that ends well behind its response."""
    with Supervisor.start(tmp_path, "--app-start-command", command) as server:
        for path in ("", "helper", "helper", ""):
            data, is_whole = received(server, path)
            assert is_whole, (path, data, server.log_tail)
            assert b"last" in data
        assert received(server, "exit0")[1]


def test_fault_28_an_exit_with_an_error_is_none(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with Supervisor.start(
        tmp_path, "--app-start-command", COMMANDS["by itself"].format(python=sys.executable)
    ) as server:
        assert not received(server, "exit3")[1]


def test_R25_on_a_unix_socket_an_http_1_0_client_is_warned_of(tmp_path: Path) -> None:
    """There is no reset on a Unix socket: docs/connections.md says what nginx must be told, and so does the log when it happens."""
    (tmp_path / "program.py").write_text(PROGRAM)
    path = str(tmp_path / "http")
    start = COMMANDS["by itself"].format(python=sys.executable)
    with Supervisor.start(tmp_path, "--app-start-command", start, "--socket", path) as server:
        assert os.path.exists(path)
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(path)
            client.sendall(b"GET /killSIGSEGV HTTP/1.0\r\n\r\n")
            assert b"first" in b"".join(iter(lambda: client.recv(65536), b""))
        server.wait_log("proxy_http_version 1.1")
