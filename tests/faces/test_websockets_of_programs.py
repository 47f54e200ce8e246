"""WebSockets of processes that speak HTTP, end to end: ws and socket.io on Node.js with their own clients, and Python programs.

Starts the command: restarts and the end are the subject; else one program is kept for all, for none can be forked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from node_packages import application
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running

APPS = Path(__file__).resolve().parent.parent / "apps"
GENERIC = APPS / "generic"
BIN = Path(sys.executable).parent
PROGRAMS = {
    "websockets": f"exec {sys.executable} {GENERIC / 'websocket_echo.py'} $PORT",
    "uvicorn on a port": f"exec {BIN}/uvicorn --port $PORT asgi_echo:app",
    "uvicorn on a socket, with wsproto": f"exec {BIN}/uvicorn --ws wsproto --uds $SOCKET asgi_echo:app",
}

pytestmark = [pytest.mark.os, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return application("websockets", tmp_path_factory.mktemp("node") / "websockets")


Starting = Callable[..., AbstractContextManager[Supervisor]]


@pytest.fixture(scope="module", params=["node", *PROGRAMS])
def start(request: pytest.FixtureRequest, root: Path) -> Starting:
    def it(*arguments: str) -> AbstractContextManager[Supervisor]:
        if request.param == "node":
            return Supervisor.start(root, *arguments)
        return Supervisor.start(GENERIC, "--app-start-command", PROGRAMS[request.param], *arguments)

    return it


@pytest.fixture(scope="module")
def server(start: Starting) -> Iterator[Supervisor]:
    with start("--access-log-format", "json") as running:
        yield running


def websocket(server: Supervisor, path: str = "/ws", **more: Any) -> ClientConnection:
    return connect(server.url.replace("http", "ws", 1) + path, **more)


def talk(client: ClientConnection, text: str) -> str:
    client.send(text)
    return str(client.recv(10))


def closing(client: ClientConnection) -> tuple[int, str] | None:
    """Code and reason of the Close that comes, behind whatever comes before it; None: there was none."""
    try:
        while True:
            client.recv(20)
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else None


def test_an_echo(server: Supervisor) -> None:
    with websocket(server, "/ws?an-echo", subprotocols=[Subprotocol("other"), Subprotocol("echo")]) as client:
        assert client.subprotocol == "echo"
        assert talk(client, "hello") == "hello"
        for size in (0, 1, 125, 126, 65535, 65536, 700_000):
            client.send(bytes(size))
            assert client.recv(10) == bytes(size)
        for number in range(200):
            client.send(f"{number}")
        assert [client.recv(10) for _ in range(200)] == [f"{number}" for number in range(200)]
        client.ping().wait(10)
        client.send("bye")
        assert closing(client) == (4000, "as you wish")
    line = json.loads(server.wait_access_log('"target":"/ws?an-echo"'))
    assert line["status"] == 101
    assert line["received"] > 2000  # it was compressed on its way
    eventually(lambda: not server.status()["connections"]["upgraded"])
    eventually(lambda: all(not process["sessions"] for process in server.group()["processes"]))


def test_a_refusal_is_a_response(server: Supervisor) -> None:
    for _ in range(3):
        with pytest.raises(InvalidStatus) as refused:
            websocket(server, "/refused")
        assert refused.value.response.status_code == 403
    assert int(server.get("/pid").text) in server.pids


def test_many_at_a_time_beside_ordinary_requests(server: Supervisor) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(websocket(server)) for _ in range(30)]
        for number, client in enumerate(clients):
            client.send(f"{number}")
        assert [client.recv(10) for client in clients] == [f"{number}" for number in range(30)]
        assert int(server.get("/pid").text) in server.pids
        assert server.status()["connections"]["upgraded"] == 30
    eventually(lambda: not server.status()["connections"]["upgraded"])


def test_a_process_that_is_killed_is_replaced_and_its_clients_can_come_back(start: Starting) -> None:
    with start() as server:
        with websocket(server) as client:
            pid = int(talk(client, "pid"))
            os.kill(pid, signal.SIGKILL)
            assert closing(client) == (1012, "")
        with websocket(server) as client:
            assert int(talk(client, "pid")) != pid


def test_a_rolling_restart_lets_it_be_for_its_time(start: Starting) -> None:
    with start("--websocket-drain", "2") as server:
        with websocket(server) as old:
            pid = int(talk(old, "pid"))
            began = time.monotonic()
            server.send_signal(signal.SIGHUP)
            eventually(lambda: server.pids and pid not in server.pids)
            assert talk(old, "still here") == "still here"
            with websocket(server) as new:
                assert int(talk(new, "pid")) != pid
                assert closing(old) == (1012, "")
                assert 1.9 <= time.monotonic() - began < 10
                assert talk(new, "hello") == "hello"
        eventually(lambda: not is_running(pid))


def test_term_gives_it_its_time_to_end(start: Starting) -> None:
    with start("--websocket-drain", "1") as server:
        with websocket(server) as client:
            assert talk(client, "hello") == "hello"
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert talk(client, "still here") == "still here"
            assert closing(client) == (1001, "")
            assert 0.9 <= time.monotonic() - began < 5
            assert server.wait() == 0


# -- socket.io --------------------------------------------------------------------------------------------------------


@contextmanager
def socket_io(root: Path, url: str, transports: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A client; what it yields waits for the next thing of that name, and says what is known of it."""
    command = ["node", "client.js", url, transports]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = iter(process.stdout)

        def wait(what: str) -> dict[str, Any]:
            seen = []
            for line in lines:
                seen.append(line)
                if (fact := json.loads(line))["what"] == what:
                    return dict(fact)
            raise AssertionError(seen)

        try:
            yield wait
        finally:
            process.stdin.close()
            process.wait(20)


@pytest.mark.parametrize(
    ("transports", "first", "then"),
    [
        ("polling,websocket", "polling", "websocket"),
        ("websocket", "websocket", "websocket"),
        ("polling", "polling", "polling"),
    ],
)
def test_socket_io_with_its_own_client(root: Path, transports: str, first: str, then: str) -> None:
    with Supervisor.start(root) as server, socket_io(root, server.url, transports) as wait:
        assert wait("connect")["transport"] == first
        assert wait("echo") == {"what": "echo", "transport": then, "same": True}
        assert wait("shouted")["value"] == "all"
        assert bool(server.status()["connections"]["upgraded"]) == (then == "websocket")


def test_socket_io_reconnects_after_a_restart_and_after_a_kill(root: Path) -> None:
    with Supervisor.start(root, "--websocket-drain", "1") as server:
        with socket_io(root, server.url, "websocket") as wait:
            assert wait("shouted")["value"] == "all"
            server.send_signal(signal.SIGHUP)
            assert wait("disconnect")["reason"] == "transport close"
            assert wait("shouted")["value"] == "all"
            os.kill(server.pids[0], signal.SIGKILL)
            assert wait("disconnect")["reason"] == "transport close"
            assert wait("shouted")["value"] == "all"
