"""Slow clients and slow uploads, end to end: the command, real processes, a real disk that is full, gone, or limited.

Starts the command: where the disk, its limits or the end are the subject.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from faces_tools import APPS, FRONTS, in_threads
from needs import needs

from passenger_trio.testing import RawClient, Supervisor, eventually
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = pytest.mark.os

APP = APPS / "buffering"
BLOCK = 65536
TWO = ("--max-pool-size", "2", "--min-instances", "2", "-e", "production")
TWO_PROCESSES = pytest.mark.passenger(
    str(APP), max_pool_size=2, environment="production", access_log="-", access_log_format="json"
)
"""For tests of the server with the options ``TWO``. They ask for ``live_app.server``, without a tap in between, which would buffer, too."""


def digest(name: str, count: int) -> str:
    """Of what ``blocks`` of the application makes."""
    whole = hashlib.sha256()
    for number in range(count):
        whole.update(hashlib.sha256(b"%s %d" % (name.encode(), number)).digest() * (BLOCK // 32))
    return whole.hexdigest()


def ask(server: Supervisor, path: str, buffer: int = 0) -> RawClient:
    """A client that has asked, and does not read."""
    client = server.connect(60)
    if buffer:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return client


def is_free(server: Supervisor) -> bool:
    return all(process["sessions"] == 0 for process in server.group()["processes"])


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def tiny_disk(path: Path, size: str) -> tuple[str, ...]:
    """What starts a program that has a tmpfs of that size there: in a mount namespace of its own, so that nothing is left of it."""
    path.mkdir()
    script = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    # As root, or as the root of a user namespace.
    for unshare in (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user")):
        prefix = (*unshare, "sh", "-c", script, str(path))
        if (
            shutil.which("unshare")
            and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
        ):
            return prefix
    needs(False, "a small disk: unshare and mount, as root or where a user may make namespaces")
    raise AssertionError("unreachable")


@TWO_PROCESSES
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_clients_that_stop_reading_hold_no_process(live_app: LiveApp, passenger_log: LiveLog, kind: str) -> None:
    """20 clients, 20 MB each, 2 processes."""
    live_app.start_process()
    server = live_app.server
    assert server.get(f"/{kind}?warm/10").complete
    before = rss(server.pid)
    clients = [ask(server, f"/{kind}?c{number}/305") for number in range(20)]
    eventually(lambda: is_free(server) and server.group()["queue"] == 0, 30)
    assert server.get("/hello").text == "hello"
    assert rss(server.pid) - before < 16 * 1024**2
    buffers = server.status()["buffers"]
    assert buffers["disk"] > 20 * 10 * 1024**2
    assert buffers["memory"] <= 20 * 256 * 1024
    for number, client in enumerate(clients):
        response = client.read_response()
        assert response.complete
        assert hashlib.sha256(response.body).hexdigest() == digest(f"c{number}", 305)
        client.close()
    assert server.status()["buffers"]["disk"] == 0
    assert passenger_log.wait_access(rf"{kind}\?c1/")["spilled"] > 0


def slow_read(client: RawClient) -> tuple[str, bool]:
    """Read a response in small bites; digest and whether it was whole."""
    response = b""
    while piece := client.receive(40_000):
        response += piece
        time.sleep(0.0005)
    client.close()
    head, _, body = response.partition(b"\r\n\r\n")
    return hashlib.sha256(body).hexdigest(), f"Content-Length: {len(body)}".encode() in head


def many_slow_readers(server: Supervisor) -> None:
    """25 of them, who begin when the disk is full: on a busy machine an application is as slow as they are."""

    is_full = threading.Event()

    def one(number: int) -> tuple[str, bool]:
        client = ask(server, f"/length?s{number}/96", 32768)
        if not number:
            eventually(lambda: "no_space" in server.status()["buffers"]["errors"], 30, "the disk is full")
            is_full.set()
        assert is_full.wait(40)
        return slow_read(client)

    for number, got in enumerate(in_threads(25, one)):
        assert got == (digest(f"s{number}", 96), True)


@pytest.mark.slow
def test_F27_a_full_disk_slows_applications_down_and_loses_nothing(tmp_path: Path) -> None:
    """25 responses of 6 MiB at the same time, to slow readers, with 64 KiB of disk."""
    disk = tmp_path / "disk"
    options = ("--data-buffer-dir", str(disk), "--data-buffer-max", "1G")
    with Supervisor.start(APP, *TWO, *options, prefix=tiny_disk(disk, "64k")) as server:
        many_slow_readers(server)
        buffers = server.status()["buffers"]
        assert buffers["errors"].keys() == {"no_space"}
        assert (buffers["disk"], buffers["memory"]) == (0, 0)
        assert 1 <= len([line for line in server.log if "no_space" in line]) <= FRONTS
        assert not any("Traceback" in line for line in server.log)


@pytest.mark.slow
def test_F27_a_file_size_limit_is_like_a_full_disk() -> None:
    needs(shutil.which("prlimit") is not None, "prlimit (the package util-linux)")
    with Supervisor.start(APP, *TWO, prefix=("prlimit", "--fsize=1048576")) as server:
        client = ask(server, "/length?f/320", 32768)
        eventually(lambda: server.status()["buffers"]["errors"].get("file_too_large"))
        assert server.get("/hello").text == "hello"
        assert slow_read(client) == (digest("f", 320), True)


def test_F29_a_directory_that_went_away_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    directory = tmp_path / "buffers"
    directory.mkdir()
    with Supervisor.start(APP, *TWO, "--data-buffer-dir", str(directory)) as server:
        directory.rmdir()
        client = ask(server, "/length?gone/160", 32768)
        server.wait_log("unavailable")
        assert server.get("/hello").text == "hello"
        # Its process waits for the client, and goes on with it.
        assert slow_read(client) == (digest("gone", 160), True)
        directory.mkdir()
        client = ask(server, "/length?back/160", 32768)
        eventually(lambda: server.status()["buffers"]["disk"], 20)
        eventually(lambda: is_free(server))
        assert slow_read(client) == (digest("back", 160), True)


def test_F30_the_quota_is_shared_and_kept() -> None:
    with Supervisor.start(APP, *TWO, "--data-buffer-max", "8M") as server:
        clients = [ask(server, f"/length?q{number}/320", 32768) for number in range(2)]
        eventually(lambda: server.status()["buffers"]["errors"].get("quota"))
        assert server.status()["buffers"]["disk"] <= 8 * 1024**2
        assert not is_free(server)
        got = in_threads(2, lambda number: slow_read(clients[number]))
        assert got == [(digest(f"q{number}", 320), True) for number in range(2)]
        assert server.status()["buffers"]["disk"] == 0


def test_the_watermark_pauses_the_application() -> None:
    with Supervisor.start(APP, *TWO, "--response-buffer-high-watermark", "1M") as server:
        client = ask(server, "/chunked?w/320", 32768)
        eventually(lambda: server.status()["buffers"]["paused"])
        assert server.status()["buffers"]["disk"] <= 1024**2 + 1000
        assert not is_free(server)
        response = client.read_response()
        assert hashlib.sha256(response.body).hexdigest() == digest("w", 320)
        client.close()


@TWO_PROCESSES
@pytest.mark.passenger_allow_log("before it answered|end soon")
def test_F2_what_a_process_wrote_before_it_died_is_delivered(live_app: LiveApp) -> None:
    live_app.start_process()
    server = live_app.server
    pids = set(server.pids)
    client = ask(server, "/dies?160", 32768)
    eventually(lambda: set(server.pids) != pids, what="its process is gone")
    response = client.read_response()
    assert not response.complete
    assert hashlib.sha256(response.body).hexdigest() == digest("dies", 160)
    client.close()
    eventually(lambda: server.status()["buffers"]["disk"] == 0)


def test_F24_the_application_is_told_when_its_client_leaves(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with Supervisor.start(APP, *TWO, "--env", f"NOTES={notes}", "--response-buffer-high-watermark", "4M") as server:
        client = ask(server, "/noted?endless")
        eventually(lambda: server.status()["buffers"]["disk"] > 1024**2)
        client.reset()
        eventually(lambda: notes.exists() and notes.read_text() == "closed\n", 5)
        eventually(lambda: is_free(server))
        assert server.status()["buffers"]["disk"] == 0


@TWO_PROCESSES
def test_F25_aborted_downloads_leave_nothing(live_app: LiveApp) -> None:
    live_app.start_process()
    server = live_app.server
    assert server.get("/length?warm/80").complete
    before = len(server.descriptors())

    def abort(number: int) -> None:
        client = ask(server, f"/length?a{number}/80", 32768)
        client.receive(1000)
        client.reset()

    for round in range(20):
        in_threads(20, lambda number, round=round: abort(20 * round + number))  # type: ignore[misc]
    eventually(lambda: is_free(server))
    # Each of the two processes may keep a stream: the response of the last one may have been stored as a whole before its client left.
    eventually(lambda: len(server.descriptors()) <= before + 2)
    status = server.status()
    assert (status["buffers"]["disk"], status["buffers"]["memory"], status["requests"]["active"]) == (0, 0, 0)
    # (The page that several fronts share has no name, either.)
    assert not [
        name for name in server.descriptors() if "buffer." in name or ("(deleted)" in name and "memfd" not in name)
    ]


@TWO_PROCESSES
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_uploads_that_are_stuck_delay_nobody(live_app: LiveApp, kind: str) -> None:
    body = os.urandom(1024**2)
    framing = b"Content-Length: %d" % len(body) if kind == "length" else b"Transfer-Encoding: chunked"
    live_app.start_process()
    server = live_app.server
    stuck = [server.connect() for _ in range(5)]
    for client in stuck:
        client.send(b"POST /sum HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % framing)
        client.send(body[:700_000] if kind == "length" else b"%x\r\n%b" % (len(body), body[:700_000]))
    eventually(lambda: server.status()["buffers"]["disk"] > 5 * 500_000)
    begun = time.monotonic()
    assert server.get("/hello").text == "hello"
    assert time.monotonic() - begun < 5  # they are stuck for ever
    eventually(lambda: is_free(server))  # they have no process; with several fronts an idle slot lingers for 100 ms
    for client in stuck:
        client.send(body[700_000:] + (b"" if kind == "length" else b"\r\n0\r\n\r\n"))
        assert client.read_response().text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        client.close()
    assert server.status()["buffers"]["disk"] == 0


@pytest.mark.parametrize("limit", ["132K", "300K"])
def test_R35_one_post_where_the_quota_takes_only_a_part(limit: str) -> None:
    """Fault 3 (KE1): the server ended. What the quota does not take stays in memory, and the body is streamed to its application."""
    body = b"".join(hashlib.sha256(b"%d" % number).digest() * 1024 for number in range(32))
    with Supervisor.start(APP, "-e", "production", "--data-buffer-max", limit) as server:
        with server.connect() as client:
            for chunked in (False, True, False):
                if chunked:
                    client.send(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for at in range(0, len(body), 100_000):
                        piece = body[at : at + 100_000]
                        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                    client.send(b"0\r\n\r\n")
                else:
                    client.send(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
                    client.send(body)
                answer = client.read_response()
                assert (answer.status, answer.text) == (200, hashlib.sha256(body).hexdigest())
        assert server.status()["buffers"]["disk"] == 0
        assert not server.status()["requests"]["rejected"]


def test_fault_3_one_client_that_fills_the_quota_costs_another_nothing() -> None:
    """As with a limit of 64M that one client fills: its upload is unfinished, on disk, and leaves the others between a threshold and a batch."""
    with Supervisor.start(APP, *TWO, "--data-buffer-max", f"{700 * FRONTS}K") as server:
        filler = server.connect()
        filler.send(b"POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n")
        filler.send(b"f" * 520_000)
        eventually(lambda: server.status()["buffers"]["disk"] > 500_000)
        assert server.post("/digest", b"x" * 600_000).text == hashlib.sha256(b"x" * 600_000).hexdigest()
        filler.close()
        eventually(lambda: server.status()["buffers"]["disk"] == 0)


def test_fault_16_slow_senders_hold_up_no_other_upload_and_no_end() -> None:
    """Threads waited for the network: four senders whose bytes came within a millisecond of each other had all of them, and the server could not even be ended."""
    with Supervisor.start(APP, *TWO) as server:
        senders = [server.connect() for _ in range(6)]
        stop = threading.Event()

        def send_slowly() -> None:
            """Each has something on the way at any time, and never much."""
            for sender in senders:
                sender.send(
                    b"POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n" + b"s" * 400_000
                )
            while not stop.is_set():
                for sender in senders:
                    try:
                        sender.send(b"s" * 500)
                    except OSError:
                        return  # the server has ended

        sending = threading.Thread(target=send_slowly)
        sending.start()
        try:
            eventually(lambda: server.status()["buffers"]["disk"] > 6 * 400_000)
            for _ in range(3):
                begun = time.monotonic()
                assert server.post("/digest", b"x" * 1024**2).text == hashlib.sha256(b"x" * 1024**2).hexdigest()
                assert time.monotonic() - begun < 10  # the time after which a body is late
            server.send_signal(signal.SIGTERM)
            server.wait_log("draining")
            server.stop(signal.SIGTERM, timeout=10)
        finally:
            stop.set()
            sending.join()
            for sender in senders:
                sender.close()
