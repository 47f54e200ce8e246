"""Node.js directories: ``passenger-trio start`` with no option, a real client; Express and Fastify from npm, and plain http.

Starts the command: where detection, the end, restarts or failed starts are the subject; else one Node.js process is kept for all, for none can be forked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from faces_tools import in_threads
from node_packages import application

from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running
from passenger_trio.testing.live_app import LiveApp

APPS = Path(__file__).resolve().parent.parent / "apps" / "node"
FAILS = APPS / "fails_to_start"

pytestmark = [pytest.mark.os, pytest.mark.slow]


@pytest.fixture(scope="module")
def express(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return application("express", tmp_path_factory.mktemp("node") / "express")


@pytest.fixture(scope="module")
def server(express: Path) -> Iterator[Supervisor]:
    with Supervisor.start(express) as running:
        yield running


@pytest.fixture
def client(server: Supervisor) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as it:
        yield it


class TestExpress:
    def test_the_banner_says_what_and_with_which_node(self, server: Supervisor) -> None:
        (app,) = server.ready["applications"]
        assert app["app_type"] == "node"
        assert app["reason"] == "app.js is there, and looks like an HTTP server"
        assert app["interpreter_reason"].startswith("the first in PATH (Node.js ")
        assert (app["spawn_method"], app["concurrency"]) == ("direct", 100)

    def test_pages_on_one_connection(self, client: httpx.Client) -> None:
        for _ in range(3):
            assert client.get("/").text == "hello from express"
        assert client.get("/nothing").status_code == 404
        head = client.head("/")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "18")
        assert client.get("/", headers={"If-None-Match": head.headers["etag"]}).status_code == 304

    def test_what_it_is_told(self, client: httpx.Client) -> None:
        about = client.get("/about", headers={"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}).json()
        assert (about["ip"], about["protocol"], about["env"]) == ("203.0.113.9", "https", "development")
        assert client.get("/about").json()["ip"] == "127.0.0.1"

    def test_json_both_ways(self, client: httpx.Client) -> None:
        answer = client.post("/json", json={"a": [1, 2]})
        assert (answer.status_code, answer.json()) == (201, {"got": {"a": [1, 2]}})
        assert client.post("/json", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400

    @pytest.mark.parametrize("size", [0, 1, 200_000, 5_000_000])
    def test_uploads(self, client: httpx.Client, size: int) -> None:
        content = random.Random(size).randbytes(size)
        assert client.post("/upload", content=content).text == hashlib.sha256(content).hexdigest()
        chunks = (content[at : at + 70_000] for at in range(0, size, 70_000))
        assert client.post("/upload", content=chunks).text == hashlib.sha256(content).hexdigest()

    def test_a_stream(self, client: httpx.Client) -> None:
        answer = client.get("/stream")
        assert answer.text == "one two three"
        assert answer.headers["transfer-encoding"] == "chunked"

    def test_events_come_at_once_and_who_leaves_is_noticed(self, server: Supervisor, client: httpx.Client) -> None:
        with client.stream("GET", "/events") as answer:
            lines = answer.iter_lines()
            assert [line for line, _ in zip(lines, range(5), strict=False) if line][:2] == ["data: 0", "data: 1"]
        server.wait_log("an event stream was closed")
        eventually(lambda: server.group()["processes"][0]["sessions"] == 0)
        raw = server.connect()
        raw.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"data: 0" in raw.receive() + raw.receive()
        seen = len(server.log)
        raw.reset()
        server.wait_log("an event stream was closed", start=seen)

    def test_an_error_in_a_route_is_expresss_own(self, client: httpx.Client) -> None:
        answer = client.get("/throws")
        assert answer.status_code == 500
        assert "the route is broken" in answer.text
        assert client.get("/").status_code == 200

    def test_many_at_a_time_in_one_process(self, server: Supervisor) -> None:
        begun = time.monotonic()
        assert in_threads(30, lambda _: server.get("/slow/300").text) == ["slow"] * 30
        assert time.monotonic() - begun < 8, "one after the other they take 9 seconds"
        assert len(server.pids) == 1

    def test_pipelined_requests(self, server: Supervisor) -> None:
        with server.connect() as raw:
            raw.send(b"GET /slow/50 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert raw.read_response().text == "slow"
            assert raw.read_response().text == "hello from express"


def test_a_process_that_exits_is_replaced(express: Path) -> None:
    with Supervisor.start(express, "--min-instances", "2") as server:
        before = server.pids
        assert server.get("/exit").status == 502
        eventually(lambda: len(server.pids) == 2 and server.pids != before)
        assert server.get("/").text == "hello from express"
        os.kill(server.pids[0], signal.SIGKILL)
        for _ in range(20):
            assert server.get("/").status == 200


def test_requests_in_hand_are_finished_when_it_stops_and_when_it_restarts(express: Path) -> None:
    with Supervisor.start(express) as server:
        old = server.pids
        with server.connect() as slow, server.connect() as idle:
            idle.get("/")
            slow.send(b"GET /slow/1000 HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: server.group()["processes"][0]["sessions"] == 1)
            server.send_signal(signal.SIGHUP)
            eventually(lambda: server.pids and server.pids != old)
            assert idle.get("/").text == "hello from express"
            assert slow.read_response().text == "slow"
            eventually(lambda: not is_running(old[0]))
            slow.send(b"GET /slow/700 HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: any(p["sessions"] for p in server.group()["processes"]))
            server.send_signal(signal.SIGTERM)
            assert slow.read_response().text == "slow"
        assert server.wait() == 0
        assert any("exit status 0" in line for line in server.log)


def cpu_time(pid: int) -> float:
    """Seconds that a process has computed."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("path", ["/", "/spin"])
def test_nothing_outlives_a_supervisor_that_is_killed(express: Path, path: str) -> None:
    with Supervisor.start(express) as server:
        (pid,) = server.pids
        before = cpu_time(pid)
        with server.connect() as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            eventually(lambda: server.group()["processes"][0]["sessions"] == 1 or path == "/")
            eventually(lambda: path == "/" or cpu_time(pid) > before + 0.1)
            server.kill()
            eventually(lambda: not is_running(pid), what="it is gone")


def test_fastify_as_a_module_on_two_addresses(tmp_path: Path) -> None:
    root = application("fastify", tmp_path / "fastify")
    (root / "package.json").write_text('{"scripts": {"start": "node server.mjs"}, "type": "module"}')
    with Supervisor.start(root) as server:
        (app,) = server.ready["applications"]
        assert app["reason"] == "package.json starts server.mjs"
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert client.get("/").json() == {"hello": "fastify"}
            answer = client.post("/json", json={"x": "y"})
            assert (answer.status_code, answer.json()) == (201, {"got": {"x": "y"}})
        server.wait_log("it goes on after listen()")
        assert server.stop() == 0
        assert any("fastify was closed" in line for line in server.log)


PLAIN = pytest.mark.passenger(str(APPS / "plain"))


class TestPlainHttp:
    @PLAIN
    @pytest.mark.passenger_allow_log("is not HTTP|before it answered")
    def test_what_node_is_sent_and_what_it_may_answer(self, live_app: LiveApp) -> None:
        fields = json.loads(live_app.get("/headers", X_Custom="1").text)
        assert fields["x-custom"] == "1"
        assert fields["x-forwarded-host"] == "localhost"
        assert "connection" not in fields
        assert live_app.get("/hints").text == "hinted"
        assert live_app.get("/raw").status == 502
        assert live_app.get("/after").text == "GET /after"

    @PLAIN
    @pytest.mark.passenger_allow_log("cut a response of")
    def test_a_response_that_is_too_short_is_seen_to_be(self, live_app: LiveApp) -> None:
        """Node says nothing and waits; when it has given the connection up (after five seconds) everybody knows."""
        answer = live_app.get("/short")
        assert (answer.body, answer.complete) == (b"short", False)

    def test_a_second_server_listens_where_it_says(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.sock"
        with Supervisor.start(APPS / "plain", "--env", f"METRICS={path}") as server:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
                assert client.get("http://a/").text == "metrics"
            assert server.get("/x").text == "GET /x"

    def test_several_processes_and_a_limit_for_each(self) -> None:
        with Supervisor.start(
            APPS / "plain", "--min-instances", "3", "--max-concurrent-requests-per-process", "1"
        ) as server:
            assert len(server.pids) == 3
            assert [p["concurrency"] for p in server.group()["processes"]] == [1, 1, 1]
            assert in_threads(9, lambda number: server.get(f"/{number}").text) == [
                f"GET /{number}" for number in range(9)
            ]

    def test_a_warm_up(self) -> None:
        with Supervisor.start(APPS / "plain", "--warmup-url", "/warm") as server:
            assert server.get("/").text == "GET /"


FAULTS = {
    "syntax_error.js": ("syntax error", "Fix the line"),
    "module_syntax.cjs": ("syntax error: Cannot use import statement outside a module", '"type": "module"'),
    "missing_module.js": ("needs left-pad-of-the-future, which cannot be found", "npm install left-pad-of-the-future"),
    "missing_file.mjs": ("there_is_no_such.mjs", "Check the path"),
    "throws.js": ("The application threw TypeError: the moon is full", "about to"),
    "rejects.js": ("The application threw Error: the database is away", "rejects.js"),
    "rejects.mjs": ("The application threw Error: the database is away", "rejects.mjs"),
    "exports_only.js": ("does not listen", "bin/www"),
    "never_listens.js": ("not ready within 2 seconds", "busy with other things"),
    "never_but_http2.js": ("not ready within 2 seconds", "A server for HTTP/2 listens on port 3000"),
    "never_but_tls.js": ("not ready within 2 seconds", "Replace https.createServer() by http.createServer()"),
    "cluster.js": ("listens in worker processes of its own", "--min-instances"),
    "exits.js": ("ended the process before it listened", "so long"),
}


@pytest.mark.parametrize("file", FAULTS)
def test_an_application_that_does_not_start_is_explained(file: str) -> None:
    summary, detail = FAULTS[file]
    with Supervisor.start(
        FAILS, "--startup-file", file, "--start-timeout", "2s" if "never" in file else "20s"
    ) as server:
        page = server.get("/", Accept="text/html")
        assert page.status == 500
        text = re.sub(r"&#x27;|&#39;", "'", page.text.replace("&quot;", '"'))
        assert summary in text
        assert detail in text
        error = server.get("/", Accept="application/json")
        assert error.status == 500
        if file == "never_listens.js":
            assert "Listen for sessions" in text


def test_mending_the_file_is_all_there_is_to_do(tmp_path: Path) -> None:
    shutil.copy(FAILS / "throws.js", tmp_path / "app.js")
    with Supervisor.start(tmp_path) as server:
        assert server.get("/").status == 500
        shutil.copy(APPS / "plain" / "server.js", tmp_path / "app.js")
        eventually(lambda: server.get("/x").text == "GET /x")
        # The process of a request from before the change was seen may come as well: it is replaced.
        eventually(lambda: len(server.pids) == 1)


def test_no_connection_is_left_behind_by_clients_that_leave(express: Path) -> None:
    with Supervisor.start(express) as server:
        server.get("/")
        before = len(server.descriptors())
        for how in ("reset", "close") * 10:
            with contextlib.suppress(OSError):
                client = server.connect()
                client.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
                client.receive()
                getattr(client, how)()
        eventually(lambda: server.group()["processes"][0]["sessions"] == 0)
        eventually(lambda: len(server.descriptors()) <= before + 1)
