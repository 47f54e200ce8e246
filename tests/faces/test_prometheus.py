"""OB1: Prometheus itself scrapes a server while processes are spawned, killed and replaced, the queue overflows, clients are slow, and
WebSockets come and go. What it has at the end is what the access log, the clients and the flight recorder have.

Starts the command: its counts are the subject, from its start on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import textwrap
import time
import urllib.parse
from collections import Counter
from pathlib import Path

import pytest
from faces_tools import Load
from needs import needs
from prometheus_tools import free_port, prometheus
from websockets.sync.client import connect

from passenger_trio.admin.client import fetch, order
from passenger_trio.testing import Response, Supervisor, eventually
from passenger_trio.testing.raw_client import RawClient

pytestmark = pytest.mark.os

BIG = 12_000_000
APP = f"""
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({{"type": f"{{kind}}.complete"}})
                if kind == "lifespan.shutdown":
                    return
        if scope["type"] == "websocket":
            await receive()
            await send({{"type": "websocket.accept"}})
            while (message := await receive())["type"] == "websocket.receive":
                await send({{"type": "websocket.send", "text": message["text"]}})
            return
        if scope["path"] == "/slow":
            await asyncio.sleep(0.3)
        body = b"x" * ({BIG} if scope["path"] == "/big" else 10)
        await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
        await send({{"type": "http.response.body", "body": body}})
    """


def _take_slowly(server: Supervisor) -> int:
    """A client that takes nothing for a while, and then all. Returns the number of bytes of the body."""
    with socket.create_connection(server.address, 30) as client:  # type: ignore[arg-type]
        client.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        time.sleep(1)
        taken = 0
        while more := client.recv(1 << 16):
            taken += len(more)
    return taken


def _websockets(server: Supervisor) -> Counter[str]:
    """Some that say goodbye, each with its code, and some that are gone without a word. Returns how many of each."""
    url = f"ws://127.0.0.1:{urllib.parse.urlsplit(server.url).port}/"
    for code in (1000, 1001, 4001):
        with connect(url) as client:
            client.send("hello")
            assert client.recv(timeout=30) == "hello"
            client.close(code)
    for _ in range(2):
        with connect(url, close_timeout=0.1) as client:
            client.socket.shutdown(socket.SHUT_RDWR)
    return Counter({"1000": 1, "1001": 1, "4xxx": 1, "1006": 2})


def _overflow(server: Supervisor) -> None:
    """More requests at once than may wait."""
    clients = [RawClient(server.address, 30) for _ in range(12)]
    for client in clients:
        client.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for client in clients:
        client.read_response()
        client.close()


def test_OB1_prometheus_has_what_the_log_the_clients_and_the_recorder_have(tmp_path: Path) -> None:
    needs(shutil.which("prometheus") is not None, "prometheus, of Debian's package")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text(textwrap.dedent(APP))
    (tmp_path / "p").mkdir()
    listen = f"127.0.0.1:{free_port()}"
    options = (
        "--metrics-listen",
        listen,
        "--access-log-format",
        "json",
        "--max-pool-size",
        "2",
        "--min-instances",
        "1",
    )
    limits = ("--max-request-queue-size", "3", "--max-concurrent-requests-per-process", "2")
    with (
        Supervisor.start(tmp_path / "app", *options, *limits) as server,
        prometheus(tmp_path / "p", listen) as told,
    ):
        admin = str(server.ready["admin_socket"])
        _overflow(server)
        closed = _websockets(server)
        assert _take_slowly(server) > BIG
        os.kill(killed := server.pids[0], signal.SIGKILL)
        # A restart that came before its end would be the reason of that.
        eventually(lambda: killed not in [process["pid"] for process in server.group()["processes"]])
        with Load(server, "/", 1) as load:
            order(admin, "/v1/restart", {"wait": True}, for_long=True)
            answered = len(load.results)
            eventually(lambda: len(load.results) > answered)
        assert all(isinstance(one, Response) and one.status == 200 for one in load.results)
        eventually(lambda: server.status()["connections"]["open"] == 0)

        eventually(lambda: {(p["state"], p["generation"]) for p in server.group()["processes"]} == {("running", 2)})

        # All has ended: now the next scrape has everything.
        count = "http_server_request_duration_seconds_count"
        eventually(lambda: told.total(count) == len(server.access_log()), timeout=60)
        ended = "passenger_trio_processes_ended_total"
        eventually(lambda: told.total(ended) == json.dumps(fetch(admin, "/v1/trace")).count('["process_exited"'))
        logged = [json.loads(line) for line in server.access_log()]
        assert told.total(count) == len(logged)
        by_status = Counter(str(record["status"]) for record in logged)
        assert told.values(count, by="http_response_status_code") == by_status
        assert by_status["101"] == 5
        assert by_status["503"] > 0
        assert told.total('passenger_trio_requests_refused_total{reason="queue_full"}') == by_status["503"]
        assert told.values("passenger_trio_websockets_closed_total", by="code") == closed
        queued = told.total("passenger_trio_request_queue_seconds_count")
        assert queued == sum(record["queue_time"] > 0 for record in logged)

        trace = fetch(admin, "/v1/trace")
        assert trace["whole"]
        facts = Counter(entry[0] for entry in trace["entries"])
        started = json.dumps(trace).count('{"": "StartSpawn"')
        assert told.total("passenger_trio_spawns_started_total") == started >= 3
        assert told.total('passenger_trio_spawn_seconds_count{outcome="ready"}') == facts["spawn_succeeded"]
        assert told.total(ended) == facts["process_exited"] >= 2
        assert told.total(f'{ended}{{reason="signal"}}') == 1
        assert (
            told.total('passenger_trio_restarts_total{outcome="done"}') == facts["restart"] + facts["restart_all"] == 1
        )
        assert told.total("passenger_trio_request_app_seconds_count") <= facts["session_closed"]

        eventually(lambda: "PassengerRequestsRefused" in told.firing(), timeout=60)
