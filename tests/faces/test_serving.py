"""``passenger-trio start`` serves an application: real clients, real processes, what is logged, how the pool follows the load.

Starts the command: where its options, its start, its addresses or its end are the subject.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from faces_tools import (
    AS_OURSELVES,
    BEHAVES,
    BEHAVIOURS,
    FLASK,
    FRONTS,
    HELLO,
    Gate,
    clients,
    gate,
    in_threads,
    keep_alive,
    write_app,
)

from passenger_trio.testing import LeftBehind, RawClient, Response, Supervisor, eventually
from passenger_trio.testing.clients import http_client
from passenger_trio.testing.harness import MARK, is_running
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = pytest.mark.os

ONE_PROCESS = BEHAVES.with_args(max_pool_size=1)


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ps() -> str:
    """Every process there is, with its environment."""
    return subprocess.run(["ps", "axeww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout


def processed(server: Supervisor) -> int:
    return sum(process["processed"] for process in server.group()["processes"])


class TestAFlaskApplication:
    def test_curl_shows_200(self) -> None:
        with Supervisor.start(FLASK) as server:
            answer = curl("-i", server.url + "/")
            assert answer.startswith("HTTP/1.1 200 OK\n"), answer
            assert "<p>Hello, World!</p>" in answer
            assert curl("-d", "name=you", server.url + "/greet") == '{"greeting":"Hello, you"}\n'
            assert curl("-o", "/dev/null", "-w", "%{http_code}", server.url + "/nowhere") == "404"

    @pytest.mark.parametrize("plain_parser", ["--plain-parser", "--no-plain-parser"])
    def test_a_thousand_keep_alive_requests_over_32_connections_without_an_error_and_counts_that_add_up(
        self, plain_parser: str
    ) -> None:
        with Supervisor.start(FLASK, plain_parser, "--max-pool-size", "3") as server:
            results = keep_alive(server, "/", connections=32, requests=32)
            assert len(results) == 1024
            assert Counter(r.status if isinstance(r, Response) else repr(r) for r in results) == {200: 1024}
            assert {r.body for r in results if isinstance(r, Response)} == {b"<p>Hello, World!</p>"}
            status = server.status()
            assert status["requests"] == {"total": 1024, "active": 0, "rejected": {}}
            assert processed(server) == 1024  # none has been retired, so every request is found at a process
            assert status["connections"]["accepted"] == 32
            assert status["pool"]["size"] == len(status["groups"][0]["processes"])
            assert {
                int(pid) for pid in re.findall(r"process (\d+) of \S+ \(development\) is ready", "\n".join(server.log))
            } == set(server.pids)

    def test_httpx_keeps_its_connections(self) -> None:
        with Supervisor.start(FLASK) as server:
            with httpx.Client(limits=httpx.Limits(max_connections=8)) as client, ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(lambda _: client.get(server.url + "/"), range(200)))
            assert {answer.status_code for answer in answers} == {200}
            assert server.status()["connections"]["accepted"] <= 8

    def test_wrk_sees_no_error(self) -> None:
        with Supervisor.start(FLASK, "--access-log", "off") as server:
            done = subprocess.run(
                ["wrk", "-c", "64", "-d", "3", "-t", "1", "--timeout", "30s", server.url + "/"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "Socket errors" not in done.stdout, done.stdout
            assert "Non-2xx" not in done.stdout, done.stdout
            total = re.search(r"(\d+) requests in", done.stdout)
            assert total is not None
            assert int(total[1]) > 0

    def test_a_real_ctrl_c_on_a_terminal_leaves_nothing(self) -> None:
        """The byte that the key sends, to a pseudo-terminal whose foreground group the server is."""
        shown = b""

        def read_until(text: bytes) -> None:
            nonlocal shown
            while text not in shown:
                assert select.select([terminal], [], [], 60)[0], shown
                shown += os.read(terminal, 65536)

        with tempfile.TemporaryDirectory(prefix="pt-") as base:
            terminal, its_side = pty.openpty()
            with subprocess.Popen(
                [
                    "setsid",
                    "--ctty",
                    sys.executable,
                    "-m",
                    "passenger_trio",
                    "start",
                    str(FLASK),
                    "-p",
                    "0",
                    "--min-instances",
                    "2",
                ],
                stdin=its_side,
                stdout=its_side,
                stderr=its_side,
                env={**os.environ, **AS_OURSELVES, "XDG_RUNTIME_DIR": base},
            ) as process:
                os.close(its_side)
                read_until(b"Ctrl-C stops")
                address = re.search(rb"http://[0-9.:]+", shown)
                assert address is not None
                assert curl(address[0].decode() + "/") == "<p>Hello, World!</p>"
                read_until(b"GET / ")  # the access log is on the terminal, too
                [instance] = (Path(base) / "passenger-trio").iterdir()
                assert len(list(instance.iterdir())) == 6  # lock, description, two sockets of ours, two of workers
                assert base in ps()
                os.write(terminal, b"\x03")
                assert process.wait(60) == 0
            os.close(terminal)
            assert base not in ps()
            assert list((Path(base) / "passenger-trio").iterdir()) == []

    def test_a_ctrl_c_for_the_whole_process_group_is_drained_and_not_an_error(self) -> None:
        with Supervisor.start(FLASK, "--min-instances", "3") as server:
            server.interrupt()
            assert server.wait() == 0
            assert not [line for line in server.log if '"level":"error"' in line or "Traceback" in line]


class TestTheHarness:
    """It would be worth nothing if it saw nothing."""

    def test_a_process_that_is_left_is_noticed(self) -> None:
        server = Supervisor.start(BEHAVIOURS)
        try:
            # Outside of the server's cgroup, so that nothing of the server's ends it.
            stray = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: server._mark})
            server.kill()
            eventually(lambda: len(server.marked_processes()) == 1)
            with pytest.raises(LeftBehind, match=rf"\b{stray.pid} sleep 600"):
                server.check_nothing_left()
            stray.kill()
            stray.wait()
        finally:
            server.kill()
            server._clean()

    def test_a_directory_that_is_left_is_noticed(self) -> None:
        server = Supervisor.start(FLASK)
        try:
            server.kill()
            eventually(lambda: not server.marked_processes())
            with pytest.raises(LeftBehind, match="instance directory"):
                server.check_nothing_left()
        finally:
            server._clean()

    def test_a_server_that_does_not_start_is_said_with_its_log(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="ended before it was ready"):
            Supervisor.start(tmp_path)


class TestThePoolFollowsTheLoad:
    @pytest.mark.parametrize("method", ["smart", "direct"])
    def test_it_grows_to_its_maximum_under_load_and_shrinks_to_its_minimum_when_idle(self, method: str) -> None:
        options = ("--spawn-method", method, "--max-pool-size", "3", "--pool-idle-time", "300ms")
        with gate() as it, clients(5) as send, Supervisor.start(BEHAVIOURS, *options, *it.arguments) as server:
            assert len(server.pids) == 1
            answers = [send(server, "/gate") for _ in range(5)]
            arrived = {it.wait_arrival() for _ in range(3)}
            assert len(arrived) == 3  # one request each
            status = eventually(lambda: s if (s := server.status())["pool"]["queue"] == 2 else None)
            assert status["pool"]["size"] == status["pool"]["max"] == 3
            assert status["requests"]["active"] == 5
            assert [process["sessions"] for process in status["groups"][0]["processes"]] == [1, 1, 1]
            assert it.nobody_comes()
            it.open()
            assert {it.wait_arrival() for _ in range(2)} < arrived
            it.open()
            assert {int(answer.result().text) for answer in answers} == arrived
            eventually(lambda: len(server.pids) == 1)
            eventually(lambda: sum(map(is_running, arrived)) == 1)
            assert (server.preloader_pid is None) == (method == "direct")

    def test_what_was_retired_is_started_again_when_it_is_wanted(self) -> None:
        options = ("--min-instances", "0", "--pool-idle-time", "200ms", "--max-preloader-idle-time", "200ms")
        with Supervisor.start(BEHAVIOURS, *options) as server:
            assert server.pids == []
            first = server.get("/pid").text
            eventually(lambda: server.pids == [] and server.preloader_pid is None)
            second = server.get("/pid").text
            assert first != second

    def test_a_full_queue_says_no_at_once(self) -> None:
        options = ("--max-pool-size", "1", "--max-request-queue-size", "2")
        with gate() as it, clients(3) as send, Supervisor.start(BEHAVIOURS, *options, *it.arguments) as server:
            waiting = [send(server, "/gate") for _ in range(3)]
            it.wait_arrival()
            eventually(lambda: server.status()["pool"]["queue"] == 2)
            refused = server.get("/gate")  # answered while the others wait
            assert refused.status == 503
            assert int(refused.header("Retry-After") or 0) >= 1
            assert refused.complete
            assert server.status()["requests"]["rejected"] == {"queue_full": 1}
            for _ in range(2):
                it.open()
                it.wait_arrival()
            it.open()
            assert [answer.result().status for answer in waiting] == [200, 200, 200]

    @ONE_PROCESS
    def test_who_waits_is_served_in_the_order_of_arrival(self, live_app: LiveApp, at_gate: Gate) -> None:
        server = live_app.server
        with clients(4) as send:
            first = send(live_app, "/gate")
            at_gate.wait_arrival()
            queued = []
            for number in range(3):
                queued.append(send(live_app, f"/gate?{number}"))
                eventually(lambda: server.status()["pool"]["queue"] == len(queued))
            for answer in [first, *queued]:
                assert not answer.done()
                at_gate.open()
                assert answer.result().status == 200
                if answer is not queued[-1]:
                    at_gate.wait_arrival()

    @ONE_PROCESS
    def test_a_client_that_leaves_the_queue_costs_no_process(self, live_app: LiveApp, at_gate: Gate) -> None:
        server = live_app.server
        with clients(1) as send:
            first = send(live_app, "/gate")
            at_gate.wait_arrival()
            impatient = live_app.connect()
            impatient.send(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: server.status()["pool"]["queue"] == 1)
            impatient.reset()
            eventually(lambda: server.status()["pool"]["queue"] == 0)
            at_gate.open()
            assert first.result().status == 200
            assert live_app.get("/pid").status == 200
            assert at_gate.nobody_comes()

    def test_threads_serve_requests_of_one_process_at_the_same_time(self) -> None:
        options = ("--thread-count", "4", "--max-pool-size", "1")
        with gate() as it, clients(4) as send, Supervisor.start(BEHAVIOURS, *options, *it.arguments) as server:
            assert server.get("/environ").text.count('"wsgi.multithread": true') == 1
            answers = [send(server, "/gate") for _ in range(4)]
            assert len({it.wait_arrival() for _ in range(4)}) == 1
            [process] = server.group()["processes"]
            assert (process["sessions"], process["concurrency"]) == (4, 4)
            it.open()
            assert len({answer.result().text for answer in answers}) == 1

    def test_the_minimum_is_running_before_the_server_says_that_it_is_ready(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--min-instances", "3") as server:
            ready = next(number for number, line in enumerate(server.log) if '"addresses"' in line)
            assert sum(" is ready after " in line for line in server.log[:ready]) == 3
            assert len(server.pids) == 3

    def test_a_process_that_dies_is_replaced_when_the_minimum_wants_it(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--min-instances", "2") as server:
            before = server.pids
            os.kill(before[0], 9)
            eventually(lambda: len(pids := server.pids) == 2 and before[0] not in pids)


class TestWhatTheApplicationIsTold:
    def test_the_path_under_a_base_uri(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--base-uri", "/shop") as server:
            told = json.loads(server.get("/shop/environ?a=%20b").body)
            assert (told["SCRIPT_NAME"], told["PATH_INFO"], told["QUERY_STRING"]) == ("/shop", "/environ", "a=%20b")
            assert told["REQUEST_URI"] == "/shop/environ?a=%20b"
            assert server.get("/environ").status == 404
            assert server.get("/shopping/environ").status == 404

    def test_the_names_of_the_environment_and_its_own_variables_and_nothing_of_the_supervisor(self) -> None:
        env = {
            "PASSENGER_TRIO_MAX_POOL_SIZE": "2",
            "PASSENGER_TRIO_SECRET": "s3cret",
            "OF_THE_SHELL": "kept",
            "GIVEN": "by the shell",
        }
        options = ("-e", "staging", "--env", "GIVEN=by=hand", "--env", "EMPTY=")
        for method in ("smart", "direct"):
            with Supervisor.start(BEHAVIOURS, *options, "--spawn-method", method, env=env) as server:
                assert server.status()["pool"]["max"] == 2  # the variable was an option
                told = json.loads(server.get("/env").body)
            assert not [name for name in told if name.startswith("PASSENGER_TRIO_")]
            names = ("PASSENGER_APP_ENV", "WSGI_ENV", "RACK_ENV", "RAILS_ENV", "NODE_ENV")
            assert {told[name] for name in names} == {"staging"}
            assert (told["IN_PASSENGER"], told["OF_THE_SHELL"], told["GIVEN"], told["EMPTY"]) == (
                "1",
                "kept",
                "by=hand",
                "",
            )
            assert told["PWD"] == str(BEHAVIOURS)

    def test_no_descriptor_of_the_supervisor_is_open_in_a_worker(self) -> None:
        """R44. The listener, above all: whoever holds it keeps the port after our end."""
        for method in ("smart", "direct"):
            with Supervisor.start(BEHAVIOURS, "--spawn-method", method) as server:
                ours = {link for link in server.descriptors() if link.startswith(("socket:", "pipe:", "anon_inode"))}
                for pid in server.pids:
                    links = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
                    assert not ours & {link for link in links if link.startswith("socket:")}


class TestRequestsAndResponses:
    @BEHAVES
    def test_a_piece_of_a_stream_is_seen_before_the_next_is_made(self, live_app: LiveApp, at_gate: Gate) -> None:
        with live_app.connect() as client:
            client.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            seen = b""
            while b"first\n" not in seen:
                seen += client.receive()
            at_gate.wait_arrival()
            at_gate.open()
            while b"last\n" not in seen:
                seen += client.receive()

    @BEHAVES
    def test_large_bodies_both_ways_as_length_and_as_chunks(self, live_app: LiveApp) -> None:
        body = os.urandom(1 << 20) * 20
        with http_client(live_app.server.address, live_app.url, timeout=60) as client:  # not by the tap, which is slow
            assert client.post("/echo", content=body).content == body
            pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
            assert client.post("/echo", content=pieces).content == body
            assert len(client.get("/big?64").content) == 64 << 20

    @BEHAVES
    def test_curl_in_its_several_ways(self, live_app: LiveApp, tmp_path: Path) -> None:
        upload = tmp_path / "upload"
        upload.write_bytes(os.urandom(3 << 20))
        there = ("--unix-socket", live_app.socket)
        done = subprocess.run(
            ["curl", "-sS", *there, "-H", "Expect: 100-continue", "-T", str(upload), live_app.url + "/echo"],
            capture_output=True,
            check=True,
        )
        assert done.stdout == upload.read_bytes()
        pid = live_app.url + "/pid"
        assert curl(*there, "-0", pid).isdigit()
        assert "HTTP/1.0" not in curl(*there, "-0", "-i", pid)
        assert curl(*there, "-I", pid).startswith("HTTP/1.1 200 OK")
        count = ("-w", " %{num_connects}\n", pid)
        two = curl(*there, *count, "--next", "-sS", *there, *count)
        assert [line.split()[1] for line in two.splitlines()] == ["1", "0"]

    def test_a_unix_socket_instead_of_a_port(self, tmp_path: Path) -> None:
        path = tmp_path / "web.sock"
        with Supervisor.start(FLASK, "-S", str(path)) as server:
            assert server.url == f"unix:{path}"
            assert curl("--unix-socket", str(path), "http://localhost/") == "<p>Hello, World!</p>"
            assert in_threads(8, lambda _: server.get("/").status) == [200] * 8
        assert not path.exists()

    def test_ipv6(self) -> None:
        with Supervisor.start(BEHAVIOURS, "-a", "::1") as server:
            assert server.url.startswith("http://[::1]:")
            assert curl("-g", server.url + "/pid").isdigit()
            told = json.loads(curl("-g", server.url + "/environ"))
            assert told["REMOTE_ADDR"] == "::1"

    @BEHAVES
    @pytest.mark.passenger_allow_log("raised on purpose")
    def test_an_exception_of_the_application_costs_that_request_only(
        self, live_app: LiveApp, passenger_log: LiveLog
    ) -> None:
        [pid] = live_app.pids
        with live_app.connect() as client:
            failed = client.get("/raise?a&b<c>", [("Accept", "text/html")])
            assert failed.status == 500
            assert "raised on purpose: a&amp;b&lt;c&gt;" in failed.text
            assert client.get("/pid").text == str(pid)
        passenger_log.wait("raised on purpose")

    def test_in_production_an_exception_is_not_shown(self) -> None:
        with Supervisor.start(BEHAVIOURS, "-e", "production") as server:
            for accept in ("text/html", "application/json"):
                failed = server.get("/raise?treasure", Accept=accept)
                assert failed.status == 500
                assert b"treasure" not in failed.body
                assert b"RuntimeError" not in failed.body
                id = failed.header("X-Request-Id")
                assert id
                assert id in failed.text
                server.wait_log(id)

    @ONE_PROCESS
    def test_clients_that_go_away_in_the_middle_cost_no_process(self, live_app: LiveApp) -> None:
        """F24: the application is told, and its process serves the next."""
        [pid] = live_app.pids
        for _ in range(5):
            client = live_app.connect()
            client.send(b"GET /big?500 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.receive()
            client.reset()
        assert live_app.get("/pid").text == str(pid)

    def test_a_storm_of_resets_leaves_no_descriptor(self) -> None:
        """F25."""
        with Supervisor.start(BEHAVIOURS, "--min-instances", "2", "--max-pool-size", "2") as server:
            assert server.get("/pid").status == 200
            before = len(server.descriptors())

            def storm(_: int) -> None:
                for _ in range(100):
                    client = server.connect()
                    client.send(b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    client.reset()

            in_threads(8, storm)
            eventually(lambda: server.status()["connections"]["open"] == 0)
            eventually(lambda: len(server.descriptors()) <= before + 1)  # the stream to the second process may be kept
            assert server.get("/pid").status == 200


class TestOddNames:
    @pytest.mark.parametrize("name", ["größe & <co>", "with\nnewline", "quote'\"s", os.fsdecode(b"bytes\xff\xfe")])
    def test_of_the_applications_directory(self, name: str, tmp_path: Path) -> None:
        root = write_app(tmp_path / name)
        for method in ("smart", "direct"):
            with Supervisor.start(root, "--spawn-method", method) as server:
                assert server.get("/").body == b"hello"
                assert server.wait_access_log("GET /").isprintable()
                assert len(server.access_log()) == 1
                assert json.dumps(server.status())
        write_app(root, "boom\n" + HELLO)
        with Supervisor.start(root, env={"VARIABLE": os.fsdecode(b"not\xffutf-8")}) as server:
            for accept in ("text/html", "application/json"):
                assert "boom" in server.get("/", Accept=accept).text


class TestLogs:
    LINE = re.compile(
        r'(?P<remote>\S+) - - \[(?P<time>[^]]+)\] "(?P<line>[^"]*)" (?P<status>\d+) (?P<size>\d+) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
        r" id=(?P<id>\S+) pid=(?P<pid>\d+) group=(?P<group>\S+) time=(?P<duration>[\d.]+) queue=(?P<queue>[\d.]+)"
    )

    def test_the_access_log_says_who_asked_what_and_which_process_answered(self) -> None:
        with Supervisor.start(BEHAVIOURS) as server:
            told = json.loads(
                server.get("/environ?combined", User_Agent="tester/1.0", Referer="http://elsewhere/").body
            )
            line = server.wait_access_log("combined")
            match = self.LINE.fullmatch(line)
            assert match is not None, line
            assert match["line"] == "GET /environ?combined HTTP/1.1"
            assert (match["remote"], match["status"], match["group"]) == ("127.0.0.1", "200", "behaviours")
            assert (match["agent"], match["referer"]) == ("tester/1.0", "http://elsewhere/")
            assert int(match["pid"]) == server.pids[0]
            assert match["id"] == told["HTTP_X_REQUEST_ID"]
            assert float(match["queue"]) == 0 or FRONTS > 1  # whose slot comes from the owner

    @ONE_PROCESS
    def test_as_json_with_the_time_in_the_queue(self, live_app: LiveApp, at_gate: Gate, passenger_log: LiveLog) -> None:
        server = live_app.server
        with clients(2) as send:
            first = send(live_app, "/gate?1")
            pid = at_gate.wait_arrival()
            second = send(live_app, "/gate?2")
            eventually(lambda: server.status()["pool"]["queue"] == 1)
            at_gate.open()
            at_gate.wait_arrival()
            at_gate.open()
            assert first.result().status == second.result().status == 200
            records = [passenger_log.wait_access(rf"/gate\?{number}") for number in (1, 2)]
            assert [record["pid"] for record in records] == [pid, pid]
            assert records[0]["queue_time"] == 0 or FRONTS > 1  # whose slot comes from the owner
            assert records[0]["queue_time"] < records[1]["queue_time"] <= records[1]["duration"]
            assert len({record["request_id"] for record in records}) == 2
            assert {record["group"] for record in records} == {"behaviours"}
            assert {record["status"] for record in records} == {200}

    def test_a_client_cannot_forge_a_line(self) -> None:
        with Supervisor.start(BEHAVIOURS) as server:
            with server.connect() as client:
                client.send(
                    b'GET /pid?%0a" HTTP/1.1\r\nHost: x\r\nUser-Agent: a" id=1 pid=2 \\" \xff\xe2\x80\xae\r\n\r\n'
                )
                client.read_response()
            line = server.wait_access_log("/pid?%0a")
            assert line.isprintable()
            assert self.LINE.fullmatch(re.sub(r"\\\\|\\\"", "_", line)), line
            assert len(server.access_log()) == 1

    def test_a_full_disk_costs_lines_and_nothing_else(self) -> None:
        """F54."""
        with Supervisor.start(BEHAVIOURS, "--access-log", "/dev/full") as server:
            assert [server.get("/pid").status for _ in range(20)] == [200] * 20

    def test_standard_output_is_the_access_log_in_development(self, tmp_path: Path) -> None:
        with Supervisor.start(BEHAVIOURS, "--access-log", "auto") as server:
            server.get("/pid")
            eventually(lambda: any("GET /pid" in line for line in server.output))

    @pytest.mark.parametrize("method", ["smart", "direct"])
    def test_what_the_application_writes_is_in_the_log_with_its_group_and_pid(self, method: str) -> None:
        with Supervisor.start(BEHAVIOURS, "--spawn-method", method, "--log-level", "error") as server:
            server.get("/print?this")
            for text in ("printed: this", "complained: this"):
                record = json.loads(server.wait_log(text))
                assert (record["group"], record["app_pid"]) == ("behaviours", server.pids[0])

    def test_on_the_console_too(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--log-format", "console", wait=False) as server:
            line = server.wait_log("serves http://")
            port = int(line.rsplit(":", 1)[1].rstrip("/"))
            with RawClient(("127.0.0.1", port)) as client:
                assert client.get("/print?that").text == "ok"
            line = server.wait_log("printed: that")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z \[behaviours \d+\] printed: that", line)
            banner = [number for number, line in enumerate(server.log) if line.startswith("passenger-trio ")]
            assert len(banner) == 1
            assert server.log[banner[0] + 5].strip() == "Ctrl-C stops"

    def test_what_the_application_writes_while_it_is_imported(self, tmp_path: Path) -> None:
        root = write_app(
            tmp_path / "chatty", "print('imported')\nfrom wsgiref.simple_server import demo_app as application\n"
        )
        with Supervisor.start(root) as server:
            record = json.loads(server.wait_log('"event":"imported"'))
            assert (record["group"], record["app_pid"]) == ("chatty", server.preloader_pid)

    def test_output_that_is_no_text_is_one_printable_line(self) -> None:
        with Supervisor.start(BEHAVIOURS, "--log-format", "console", wait=False) as server:
            port = int(server.wait_log("serves http://").rsplit(":", 1)[1].rstrip("/"))
            with RawClient(("127.0.0.1", port)) as client:
                client.get("/binary-output")
            assert server.wait_log("not printable").isprintable()
