"""Programs that serve HTTP by themselves, behind ``passenger-trio start --app-start-command``: real ones, with a real client.

Starts the command: where the end, restarts, several processes or failed starts are the subject.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from faces_tools import in_threads, run_command

from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.harness import is_running
from passenger_trio.testing.live_app import LiveApp

APPS = Path(__file__).resolve().parent.parent / "apps" / "generic"
PROGRAM = f"{sys.executable} {APPS / 'program.py'}"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.os

PROGRAMS = {
    "php": (APPS / "php", "php -S 127.0.0.1:$PORT"),
    "php behind cd": (APPS, "cd php && php -S localhost:$PORT"),
    "perl": (APPS, "perl daemon.pl"),
    "gunicorn on a socket": (APPS, f"{BIN}/gunicorn --workers 2 --bind unix:$SOCKET wsgi_echo"),
    "gunicorn with threads on a port": (
        APPS,
        f"{BIN}/gunicorn --threads 4 --keep-alive 1 --bind 127.0.0.1:$PORT wsgi_echo",
    ),
    "uvicorn on a port": (APPS, f"{BIN}/uvicorn --port $PORT asgi_echo:app"),
    "uvicorn on a socket": (APPS, f"exec {BIN}/uvicorn --uds $SOCKET asgi_echo:app"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_serves(name: str) -> None:
    root, command = PROGRAMS[name]
    with Supervisor.start(root, "--app-start-command", command) as server:
        (app,) = server.ready["applications"]
        assert (app["app_type"], app["concurrency"], app["spawn_method"]) == ("generic", 0, "direct")
        with server.connect() as client:
            for number in range(3):
                assert client.get(f"/a/{number}?b=c").text == f"GET /a/{number}?b=c 0 127.0.0.1"
            for size in (1, 70_000, 2_000_000):
                answer = client.request("POST", "/up", body=b"x" * size)
                assert answer.text == f"POST /up {size} 127.0.0.1"
            assert client.get("/stream").text == "one two three"
            head = client.request("HEAD", "/a")
            assert (head.status, head.body) == (200, b"")
            assert client.get("/after").text == "GET /after 0 127.0.0.1"
        bodies = in_threads(8, lambda number: [server.get(f"/{number}").text for _ in range(10)])
        assert bodies == [[f"GET /{number} 0 127.0.0.1"] * 10 for number in range(8)]
        assert not [line for line in server.log if '"level": "error"' in line or "Traceback" in line]


def test_pythons_own_http_server_serves_files(tmp_path: Path) -> None:
    (tmp_path / "a file.txt").write_text("its content")
    with Supervisor.start(
        tmp_path, "--app-start-command", f"{sys.executable} -m http.server --bind 127.0.0.1 $PORT"
    ) as server:
        assert server.get("/a%20file.txt").text == "its content"
        assert server.get("/nothing").status == 404
        assert server.get("/").complete


SERVED = pytest.mark.passenger(str(APPS), app_start_command=f"{PROGRAM} --port $PORT", port=0)


@pytest.fixture
def server(live_app: LiveApp) -> Supervisor:
    """Whose clients connect by TCP, without a tap in between."""
    return live_app.server


@SERVED
def test_what_the_program_is_told(server: Supervisor) -> None:
    fields = dict(json.loads(server.get("/headers", Cookie="a=b", X_Forwarded_Proto="https").text))
    assert fields["Host"] == "localhost"
    assert fields["Cookie"] == "a=b"
    assert fields["X-Forwarded-For"] == "127.0.0.1"
    assert fields["X-Forwarded-Proto"] == "https"  # this machine is trusted
    assert fields["X-Request-Id"]
    assert "Connection" not in fields


@SERVED
def test_chunked_both_ways(server: Supervisor) -> None:
    assert server.get("/chunks").text == "onetwothree"
    with server.connect() as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"
        )
        assert client.read_response("POST").text == "hello"


def test_uploads_that_are_not_buffered_arrive_as_they_come() -> None:
    with Supervisor.start(APPS, "--app-start-command", f"{PROGRAM} --port $PORT", "--no-request-buffering") as server:
        body = os.urandom(3_000_000)
        assert server.post("/", body).body == body
        with server.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, 300_000, 1000):
                client.send(b"3e8\r\n" + body[at : at + 1000] + b"\r\n")
            client.send(b"0\r\n\r\n")
            assert client.read_response("POST").body == body[:300_000]


@SERVED
def test_a_client_that_leaves_is_noticed_by_the_program(server: Supervisor, tmp_path: Path) -> None:
    client = server.connect()
    client.send(f"GET /endless?{tmp_path / 'gone'} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert client.receive()
    client.reset()
    eventually(lambda: (tmp_path / "gone").exists())
    assert server.get("/").text == "hello"
    assert eventually(lambda: server.group()["processes"][0]["sessions"] == 0)


@pytest.mark.passenger_allow_log("before it answered|soon after they have started|is not HTTP")
@SERVED
def test_a_program_that_dies_is_replaced(server: Supervisor) -> None:
    before = server.pids
    with server.connect() as client:
        assert client.request("POST", "/x", body=b"y").status == 200
        assert client.get("/die").status == 502
        assert client.get("/").text == "hello"
    assert server.pids != before
    os.kill(server.pids[0], signal.SIGKILL)
    eventually(lambda: server.get("/").status == 200)


@pytest.mark.passenger_allow_log("before it answered|soon after they have started|is not HTTP")
@SERVED
def test_an_ambiguous_response_is_a_502(server: Supervisor) -> None:
    assert server.get("/both").status == 502
    eventually(lambda: server.get("/").status == 200)


def test_requests_in_hand_are_finished_at_the_end() -> None:
    with Supervisor.start(APPS, "--app-start-command", f"cd php && {PROGRAM} --port $PORT") as server:
        client = server.connect()
        client.send(b"GET /slow?0.7 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: server.group()["processes"][0]["sessions"] == 1)
        server.send_signal(signal.SIGTERM)
        assert client.read_response().text == "slow"
        client.close()
        assert server.wait() == 0
        assert any("it ends in good order" in line for line in server.log)


@SERVED
def test_a_restart_replaces_the_program(server: Supervisor) -> None:
    before = server.pids
    server.send_signal(signal.SIGHUP)
    eventually(lambda: server.pids and server.pids != before)
    assert server.get("/").text == "hello"


def test_a_limit_on_concurrency_starts_more_programs() -> None:
    options = ("--max-concurrent-requests-per-process", "1", "--max-pool-size", "2")
    with Supervisor.start(APPS, "--app-start-command", f"{PROGRAM} --socket $SOCKET", *options) as server:
        begun = time.monotonic()
        assert in_threads(4, lambda _: server.get("/slow?0.5").text) == ["slow"] * 4
        assert time.monotonic() - begun >= 0.9  # two at a time
        assert len(server.pids) == 2


@pytest.mark.parametrize(
    "command",
    [
        f"{PROGRAM} --port $PORT",
        f"cd php && {PROGRAM} --socket $SOCKET --fork",
        f"{BIN}/gunicorn --workers 2 --bind unix:$SOCKET wsgi_echo",
    ],
)
def test_nothing_outlives_a_supervisor_that_is_killed(command: str) -> None:
    """KE12. (``tests/storms/kill_supervisor.py`` measures how long it takes.)"""
    with Supervisor.start(APPS, "--app-start-command", command) as server:
        pids = [int(line.split()[0]) for line in server.marked_processes()]
        assert len(pids) >= 3
        server.kill()
        eventually(lambda: not any(map(is_running, pids)), what="everything is gone")


FAULTS = {
    "no such program": ("no-such-program $PORT", "was not found", "no-such-program"),
    "it ends": ("echo so it is >&2; exit 4", "ended before it listened (exit status 4)", "so it is"),
    "it never listens": ("echo well well; sleep 100", "did not listen within 1 seconds", "well well"),
    "it listens elsewhere": (f"{PROGRAM} --port 0", "did not listen within 1 seconds", "instead of on $PORT"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_program_that_does_not_start_is_explained(name: str) -> None:
    command, summary, detail = FAULTS[name]
    with Supervisor.start(APPS, "--app-start-command", command, "--start-timeout", "1") as server:
        page = server.get("/", Accept="text/html")
        assert page.status == 500
        assert summary in page.text
        assert detail in page.text.replace("&#x27;", "'")
        assert "--app-start-command" in page.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--app-type", "generic"), "--app-start-command"),
        (("--app-type", "wsgi", "--app-start-command", "x"), "says already what is started"),
        (("--startup-file", "a.py", "--app-start-command", "x"), "says already what is started"),
        (("--thread-count", "2", "--app-start-command", "x"), "--max-concurrent-requests-per-process"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], says: str) -> None:
    done = run_command("start", str(APPS), *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_threads_are_counted_where_there_are_some() -> None:
    done = run_command("start", str(APPS.parent / "python" / "hello"), "--max-concurrent-requests-per-process", "5")
    assert done.returncode == 2
    assert "--thread-count" in done.stderr


def test_the_banner_and_status_say_what_runs() -> None:
    with Supervisor.start(APPS, "--app-start-command", f"{PROGRAM} --port $PORT") as server:
        (app,) = server.ready["applications"]
        assert app["reason"] == f"`{PROGRAM} --port $PORT` was given by --app-start-command"
        assert server.group()["app_type"] == "generic"
        assert server.get("/pid").text.split()[0] == str(server.pids[0])
