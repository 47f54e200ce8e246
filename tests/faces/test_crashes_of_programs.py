"""Fault 28 (R25): a program that dies in the middle of a body without a length has not sent a whole response, whatever the kernel makes of its streams."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest
from faces_tools import APPS

from passenger_trio.testing import eventually
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog
from passenger_trio.testing.reachable import Reachable

pytestmark = [
    pytest.mark.os,
    pytest.mark.passenger_allow_log("cut a response of|soon after they have started|before it answered"),
]

GENERIC = APPS.parent / "generic"
COMMANDS = {
    "by itself": "exec {python} crashes.py one",
    "under its shell": "{python} crashes.py one; exit $?",
    "a process for each connection": "exec {python} crashes.py forking",
}


def served(name: str) -> pytest.MarkDecorator:
    """On TCP, where a reset ends a response that is not whole."""
    command = COMMANDS[name].format(python=sys.executable)
    return pytest.mark.passenger(str(GENERIC), app_start_command=command, port=0)


EACH = pytest.mark.parametrize("name", [pytest.param(name, marks=served(name)) for name in COMMANDS])


def received(server: Reachable, path: str, version: str = "1.1") -> tuple[bytes, bool]:
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


@pytest.fixture
def program(live_app: LiveApp) -> Reachable:
    """The program, without a tap in between."""
    return live_app.server


@EACH
def test_fault_28_a_crash_is_no_end_of_a_body(program: Reachable, passenger_log: LiveLog, name: str) -> None:
    for path in ("killSIGSEGV", "killSIGKILLslowly", "killSIGABRTslowly"):
        for version in ("1.1", "1.0"):
            if name != "a process for each connection":
                eventually(lambda: received(program, "")[1], 60)  # there is one again
            data, is_whole = received(program, path, version)
            assert not is_whole, (path, version, data)
    assert eventually(lambda: received(program, ""), 60)[1]
    passenger_log.wait("cut a response of")


@EACH
def test_fault_28_a_good_end_is_one(program: Reachable, name: str) -> None:
    """Also of a program whose helpers fail, and of one that ends well behind its response."""
    for path in ("", "helper", "helper", ""):
        data, is_whole = received(program, path)
        assert is_whole, (path, data)
        assert b"last" in data
    assert received(program, "exit0")[1]


@served("by itself")
def test_fault_28_an_exit_with_an_error_is_none(program: Reachable) -> None:
    assert not received(program, "exit3")[1]


@pytest.mark.passenger(str(GENERIC), app_start_command=COMMANDS["by itself"].format(python=sys.executable))
def test_R25_on_a_unix_socket_an_http_1_0_client_is_warned_of(program: Reachable, passenger_log: LiveLog) -> None:
    """There is no reset on a Unix socket: docs/connections.md says what nginx must be told, and so does the log when it happens."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(program.address)
        client.sendall(b"GET /killSIGSEGV HTTP/1.0\r\n\r\n")
        assert b"first" in b"".join(iter(lambda: client.recv(65536), b""))
    passenger_log.wait("proxy_http_version 1.1")
