"""OP13: sticky sessions with real processes: a client's cookie leads it to its process, and long polling works with several.

The clients are the libraries' own: socket.io's and python-socketio's.

Starts the command: three processes that outlast single tests are the subject.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest
import socketio
from faces_tools import APPS
from node_packages import application

from passenger_trio.testing import Supervisor, eventually

pytestmark = [pytest.mark.os, pytest.mark.slow]

COOKIE = "_passenger_route"


@pytest.fixture(scope="module")
def flask() -> Iterator[Supervisor]:
    arguments = ("--sticky-sessions", "--min-instances", "3", "--max-pool-size", "3", "--thread-count", "8")
    with Supervisor.start(APPS / "flask_socketio", *arguments) as server:
        eventually(lambda: len(server.pids) == 3)
        yield server


def test_a_client_comes_back_to_its_process_over_plain_http(flask: Supervisor) -> None:
    """OP13: also while that process is busier than others, and without a cookie when nothing has changed."""
    with flask.connect() as busy:
        busy.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with httpx.Client(base_url=flask.url) as client:
            first = client.get("/")
            assert COOKIE in client.cookies
            assert first.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Lax")
            for _ in range(6):
                again = client.get("/")
                assert again.text == first.text
                assert "set-cookie" not in again.headers


def test_clients_without_a_cookie_are_spread(flask: Supervisor) -> None:
    forged = {"Cookie": f"{COOKIE}=0123456789abcdef"}
    answers = [httpx.get(flask.url, headers=forged) for _ in range(2)]
    assert all(COOKIE in answer.cookies for answer in answers)


def test_a_client_that_came_by_https_has_a_secure_cookie(flask: Supervisor) -> None:
    answer = httpx.get(flask.url, headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"})
    assert answer.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")


def test_flask_socketio_polls_with_several_processes(flask: Supervisor) -> None:
    """OP13: Flask-SocketIO, by python-socketio's client."""
    pids = set()
    for number in range(3):
        client = socketio.Client(reconnection=False)
        client.connect(flask.url, transports=["polling"], wait_timeout=30)
        try:
            for word in range(4):
                said, pid = client.call("echo", f"{number} {word}", timeout=30)
                assert said == f"{number} {word}"
            pids.add(pid)
        finally:
            client.disconnect()
    assert pids <= set(flask.pids)


def test_the_process_of_a_client_dies(flask: Supervisor) -> None:
    """OP13: the client is sent to another, and stays with that."""
    with httpx.Client(base_url=flask.url) as client:
        pid = int(client.get("/").text)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in flask.pids)
        other = client.get("/")
        assert int(other.text) != pid
        assert COOKIE in other.headers["set-cookie"]
        assert client.get("/").text == other.text


@pytest.mark.parametrize("transports", ["polling", "polling,websocket"])
def test_socket_io_with_several_processes(tmp_path_factory: pytest.TempPathFactory, transports: str) -> None:
    """OP13: Node.js' socket.io, by its own client: several at the same time, whose polls meet several processes."""
    root = application("websockets", tmp_path_factory.mktemp("node") / "websockets")
    options = ("--sticky-sessions", "--min-instances", "3", "--max-pool-size", "3")
    with Supervisor.start(root, *options) as server:
        eventually(lambda: len(server.pids) == 3)
        clients = [
            subprocess.Popen(
                ["node", "client.js", server.url, transports],
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        try:
            for client in clients:
                assert client.stdout is not None
                facts = []
                while not facts or facts[-1]["what"] != "shouted":
                    facts.append(json.loads(client.stdout.readline()))
                assert [fact["what"] for fact in facts if fact["what"] in ("connect_error", "disconnect")] == []
                assert facts[-1]["value"] == "all"
        finally:
            for client in clients:
                client.communicate(timeout=20)
