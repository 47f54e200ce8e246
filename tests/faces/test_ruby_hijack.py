"""Rack applications that take the connection over, end to end: full and partial hijack, and a WebSocket with a real client.

Starts the command: restarts and the end are the subject; else one Ruby is kept for all.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from passenger_trio.admin.client import fetch
from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.raw_client import RawClient

HIJACK = Path(__file__).resolve().parent.parent / "apps" / "ruby" / "hijack"
WISH = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

pytestmark = [pytest.mark.os, pytest.mark.slow]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hijack") / "log"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[Supervisor]:
    environment = {"HIJACK_LOG": str(log), "HIJACK_GATE": str(log.with_name("gate"))}
    with Supervisor.start(HIJACK, "--access-log-format", "json", env=environment) as running:
        yield running


def notes(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def websocket(server: Supervisor, path: str = "/socket") -> ClientConnection:
    return connect(server.url.replace("http", "ws", 1) + path)


def receive_until(client: RawClient, end: bytes) -> bytes:
    came = b""
    while not came.endswith(end):
        piece = client.receive()
        assert piece, came
        came += piece
    return came


def test_a_response_that_the_application_writes_itself(server: Supervisor) -> None:
    for _ in range(3):
        with server.connect() as client:
            client.send(b"GET /full HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (
                client.receive_all()
                == b"HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhijacked"
            )
    assert '"status":202' in server.wait_access_log('"target":"/full"')


def test_a_request_body_before_it(server: Supervisor) -> None:
    with server.connect() as client:
        client.send(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde")
        assert client.receive_all() == b"HTTP/1.1 200 OK\r\n\r\nedcba"


@pytest.mark.parametrize(("path", "first"), [(b"/raw", b"ready"), (b"/partial", b"")])
@pytest.mark.parametrize("together", [False, True], ids=["after the handshake", "with the handshake"])
def test_raw_bytes_both_ways(server: Supervisor, log: Path, path: bytes, first: bytes, together: bool) -> None:
    ended = notes(log).count("ended")
    with server.connect() as client:
        client.send(WISH % path + (b"hello" if together else b""))
        came = receive_until(client, first or b"\r\n\r\n" if not together else first + b"HELLO")
        assert came.startswith(SWITCHED + first)
        if not together:
            client.send(b"hello")
            assert receive_until(client, b"HELLO") == b"HELLO"
        large = os.urandom(100) * 20_000
        sender = threading.Thread(target=client.send, args=(large,))
        sender.start()
        came = b""
        while len(came) < len(large):
            came += client.receive()
        sender.join()
        assert came == large.upper()
        client.send_eof()
        assert client.at_end()
    eventually(lambda: notes(log).count("ended") == ended + 1)
    eventually(lambda: not server.status()["requests"]["active"])


def test_an_application_hears_of_the_wish_and_only_of_that(server: Supervisor) -> None:
    with server.connect() as client:
        client.send(WISH % b"/wish")
        assert client.read_response().text == '["Upgrade", "websocket"]'
        assert client.get("/wish", [("Connection", "keep-alive"), ("Upgrade", "websocket")]).text == "[nil, nil]"


def test_a_client_that_leaves_is_told_to_an_application_that_only_writes(server: Supervisor, log: Path) -> None:
    with server.connect() as client:
        client.send(b"GET /ticks HTTP/1.1\r\nHost: localhost\r\n\r\n")
        receive_until(client, b"tick\ntick\n")
        client.reset()
    eventually(lambda: "Errno::EPIPE" in notes(log))


def test_a_process_that_dies_in_it(server: Supervisor) -> None:
    with server.connect() as client:
        client.send(b"GET /dies HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.receive_all() == b"HTTP/1.1 200 OK\r\n\r\nlast words"
    assert server.get("/pid").status == 200


def test_a_websocket(server: Supervisor, log: Path) -> None:
    with websocket(server, "/socket?whole") as client:
        client.send("hello")
        assert client.recv(10) == "HELLO"
        client.send(b"\0\1" * 100_000)
        assert client.recv(10) == b"\0\1" * 100_000
        client.ping().wait(10)
        client.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "as you wish")
    assert '"status":101' in (line := server.wait_access_log('"target":"/socket?whole"'))
    assert '"received":200' in line
    eventually(lambda: "closed 4000" in notes(log))


def test_a_process_that_is_killed_is_a_1012(server: Supervisor) -> None:
    with websocket(server) as client:
        client.send("pid")
        os.kill(int(client.recv(10)), signal.SIGKILL)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert server.get("/pid").status == 200


def test_it_is_listed_while_it_lasts(server: Supervisor) -> None:
    with websocket(server) as client:
        client.send("hello")
        assert client.recv(10) == "HELLO"
        client.send("pid")
        pid = int(client.recv(10))
        eventually(lambda: server.status()["connections"]["upgraded"] == 1)
        (request,) = [
            it for it in fetch(server.ready["admin_socket"], "/v1/requests")["requests"] if it["path"] == "/socket"
        ]
        assert (request["pid"], request["stage"]) == (pid, "relaying (upgraded)")
        assert request["relay"]["bytes_up"] >= 11 + 6
        assert request["relay"]["bytes_down"] >= 7
        assert 0 <= request["relay"]["idle"] <= request["age"] < 30


def test_a_rolling_restart_lets_it_be_for_its_time_and_the_next_one_is_served_by_the_new_process(
    tmp_path: Path,
) -> None:
    with Supervisor.start(HIJACK, "--websocket-drain", "2", "--max-pool-size", "2") as server:
        with websocket(server) as old:
            old.send("pid")
            pid = int(old.recv(10))
            began = time.monotonic()
            server.send_signal(signal.SIGHUP)
            eventually(lambda: server.pids and pid not in server.pids)
            old.send("still here")
            assert old.recv(10) == "STILL HERE"
            with websocket(server) as new:
                new.send("pid")
                assert int(new.recv(10)) != pid
                with pytest.raises(ConnectionClosed) as closed:
                    old.recv(10)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
                assert time.monotonic() - began >= 2
                new.send("hello")
                assert new.recv(10) == "HELLO"
        eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_the_end_of_the_server_closes_it_in_its_time() -> None:
    with Supervisor.start(HIJACK, "--websocket-drain", "1") as server:
        with websocket(server) as client:
            client.send("hello")
            assert client.recv(10) == "HELLO"
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            assert 1 <= time.monotonic() - began < 5
            assert server.wait() == 0
