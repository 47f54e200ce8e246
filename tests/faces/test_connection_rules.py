"""The rules of a connection (R18, R20, R23 to R32) against a real server with real processes.

What is decided within one step is tested in simulated time (``tests/server``); here is what only real sockets, real clocks and real processes
can show. Nothing is decided by how long it took.

Starts the command: where its Unix socket or its limit of descriptors is the subject.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from faces_tools import APPS, GATE, Gate, run_command

from passenger_trio.testing import RawClient, Supervisor, eventually
from passenger_trio.testing.harness import is_running
from passenger_trio.testing.live_app import LiveApp
from passenger_trio.testing.live_log import LiveLog

pytestmark = [
    pytest.mark.os,
    pytest.mark.passenger_allow_log(
        "response cannot be sent|before it answered|soon after they have started|cut a response of|raised KeyError"
    ),
]

APP = APPS / "connections"
NOTES = Path(tempfile.gettempdir(), f"pt-notes-{os.getpid()}")
"""What the application notes: one file for all tests of this process, so that they can share a server."""
ENVIRONMENT = {"NOTES": str(NOTES), "GATE": GATE}
LARGE = hashlib.sha256(b"seed").digest() * 10_000
"""320 KB: more than is kept in front of the pool."""

Start = Callable[..., LiveApp]
Command = Callable[..., Supervisor]
Server = LiveApp | Supervisor


class Notes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> list[str]:
        return self.path.read_text().split("\n")[:-1] if self.path.exists() else []

    def wait(self, text: str, times: int = 1) -> None:
        eventually(lambda: self().count(text) >= times, what=f"the application notes {text!r} {times} times")


@pytest.fixture
def notes() -> Iterator[Notes]:
    notes = Notes(NOTES)
    yield notes
    notes.path.unlink(missing_ok=True)


@pytest.fixture
def start(passenger_factory: Callable[..., LiveApp], at_gate: Gate, notes: Notes) -> Iterator[Start]:
    """Serves the application by one process on TCP, to clients that no tap stands behind, and checks at the end that every session was given back."""
    started: list[LiveApp] = []

    def run(**options: object) -> LiveApp:
        live_app = passenger_factory(str(APP), **{"max_pool_size": 1, "port": 0, "env": ENVIRONMENT, **options})
        live_app.address = live_app.server.address
        started.append(live_app)
        return live_app

    yield run
    at_gate.open()
    for live_app in started:
        eventually(lambda: sessions(live_app) == 0, 30.0, "every session was given back")  # noqa: B023 - asked at once


@pytest.fixture
def command(at_gate: Gate, notes: Notes, instance_dir: Path) -> Iterator[Command]:
    """Starts the command, where its socket and its end are the subject."""
    with ExitStack() as servers:
        yield lambda *options: servers.enter_context(
            Supervisor.start(APP, "--max-pool-size", "1", "--env", f"NOTES={notes.path}", *at_gate.arguments, *options)
        )
        at_gate.open()


@contextmanager
def crowd(server: Server, count: int) -> Iterator[list[RawClient]]:
    """So many clients that have connected; whatever becomes of the test, they are closed."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def the_server(server: Server) -> Supervisor:
    return server if isinstance(server, Supervisor) else server.server


def status(server: Server) -> dict[str, Any]:
    return the_server(server).status()


def sessions(server: Server) -> int:
    return sum(process["sessions"] for process in status(server)["groups"][0]["processes"])


def queue_length(server: Server) -> int:
    return int(status(server)["groups"][0]["queue"])


def request(path: str = "/", *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def ends_cleanly(client: RawClient) -> bool:
    """By an end of file. A reset may take with it what the client has not read yet."""
    return client.socket.recv(1) == b""


def resets(client: RawClient) -> bool:
    try:
        while client.socket.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def drip(client: RawClient, wire: bytes) -> bool:
    """Send byte by byte until the server has something to say. False: all was sent, and it has not."""
    for at in range(len(wire)):
        client.socket.settimeout(0.02)
        try:
            client.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            client.socket.sendall(wire[at : at + 1])
        else:
            client.socket.settimeout(30)
            return True
    client.socket.settimeout(30)
    return False


# -- R18: what is not a request ---------------------------------------------------------------------------------------


class TestWhatComesBehind:
    @pytest.mark.parametrize(
        "first",
        [
            request("/note?first", "X : y"),
            request("/note?first", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST"),
            request("/note?first", version="2.0"),
            request("/note?first", method="BR(EW"),
        ],
    )
    def test_R18_nothing_behind_an_error_is_served(self, start: Start, notes: Notes, first: bytes) -> None:
        server = start()
        with server.connect() as client:
            client.send(first + request("/note?smuggled"))
            answer = client.read_response()
            assert answer.status in (400, 501, 505)
            assert answer.header("Connection") == "close"
            client.send(request("/note?smuggled"))
            assert ends_cleanly(client)
        assert server.get("/note?next").status == 200
        assert notes() == ["next"]

    def test_R18_R29_nothing_behind_the_last_request_is_served_and_its_answer_arrives(
        self, start: Start, notes: Notes
    ) -> None:
        server = start()
        for last in (request("/note?last", "Connection: close"), request("/note?last", version="1.0")):
            with server.connect() as client:
                client.send(last + request("/note?smuggled") * 2000)
                assert client.read_response().body == b"noted"
                assert ends_cleanly(client)
        assert notes() == ["last", "last"]

    def test_R18_half_a_body_error_is_not_answered_twice(self, start: Start, notes: Notes) -> None:
        server = start()
        with server.connect() as client:
            client.send(request("/digest", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello")
            client.send(b"XX0\r\n\r\n" + request("/note?smuggled"))
            assert client.read_response().status == 400
            assert ends_cleanly(client)
        assert notes() == []


# -- R20: 100 Continue ------------------------------------------------------------------------------------------------


class TestContinue:
    def test_R20_it_comes_when_the_body_is_wanted(self, start: Start) -> None:
        server = start()
        with server.connect() as client:
            for body in (b"hello", LARGE):
                client.send(request("/digest", f"Content-Length: {len(body)}", "Expect: 100-continue", method="POST"))
                assert client.socket.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
                client.send(body)
                assert client.read_response().text == f"{hashlib.sha256(body).hexdigest()} {len(body)} {len(body)}"
            client.send(request("/digest", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"))
            assert client.socket.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(chunked(LARGE, 5000))
            assert client.read_response().text == f"{hashlib.sha256(LARGE).hexdigest()} {len(LARGE)} {len(LARGE)}"

    def test_R20_a_final_answer_comes_in_its_place_where_the_body_is_not_wanted(self, start: Start) -> None:
        server = start(max_request_body=1000)
        for fields, status in (
            (("Content-Length: 1001", "Expect: 100-continue"), b"413"),
            (("Content-Length: 5", "Expect: 200-maybe"), b"417"),
            (("Content-Length: 5", "Expect: 100-continue", "Transfer-Encoding: chunked"), b"400"),
        ):
            with server.connect() as client:
                client.send(request("/digest", *fields, method="POST"))
                assert client.receive().startswith(b"HTTP/1.1 " + status)

    def test_R20_never_to_HTTP_1_0_and_never_without_a_body(self, start: Start) -> None:
        server = start()
        for wire in (
            request("/digest", "Content-Length: 5", "Expect: 100-continue", method="POST", version="1.0") + b"hello",
            request("/", "Expect: 100-continue"),
            request("/digest", "Content-Length: 0", "Expect: 100-continue", method="POST"),
        ):
            with server.connect() as client:
                client.send(wire)
                assert client.receive().startswith(b"HTTP/1.1 200")


# -- R21, R23 to R25: responses ---------------------------------------------------------------------------------------


class TestResponses:
    @pytest.mark.parametrize("status", ["204", "304"])
    def test_R23_no_body_where_there_can_be_none(self, start: Start, status: str) -> None:
        """F42."""
        server = start()
        with server.connect() as client:
            for _ in range(2):
                answer = client.get(f"/status?{status}")
                assert (answer.status, answer.body) == (int(status), b"")
            client.send(request("/status?200", "Connection: close", method="HEAD"))
            wire = client.receive_all()
            assert wire.startswith(b"HTTP/1.1 200 ")
            assert b"Content-Length: 5\r\n" in wire
            assert wire.endswith(b"\r\n\r\n")

    def test_R24_a_body_that_is_short_cannot_be_taken_for_whole(self, start: Start) -> None:
        """F41."""
        server = start()
        with server.connect() as client:
            client.send(request("/length?10:5") + request("/"))
            answer = client.read_response()
            assert (answer.header("Content-Length"), answer.body, answer.complete) == ("10", b"xxxxx", False)
            assert client.at_end()

    def test_R24_a_body_that_is_long_is_cut_off(self, start: Start) -> None:
        """F41."""
        server = start()
        with server.connect() as client:
            client.send(request("/length?3:50"))
            answer = client.read_response()
            assert (answer.header("Content-Length"), answer.body, answer.complete) == ("3", b"xxx", True)
        assert server.get("/").body == b"hello"

    def test_R21_a_header_that_would_split_the_response_is_a_500_and_the_process_lives(self, start: Start) -> None:
        """F40."""
        server = start()
        pid = server.get("/pid").text
        with server.connect() as client:
            answer = client.get("/header")
            assert (answer.status, answer.header("Set-Cookie")) == (500, None)
            assert client.get("/pid").text == pid

    @pytest.mark.parametrize(
        ("query", "version", "end"),
        [
            ("", "1.1", b"\r\n\r\n6\r\npiece\n\r\n"),
            ("length", "1.1", b"\r\n\r\npiece\n"),
            ("more", "1.1", b"\r\n\r\npiece\n"),
            ("", "1.0", None),
            ("length", "1.0", None),
        ],
    )
    def test_R25_a_process_that_is_killed_in_the_middle(
        self, start: Start, at_gate: Gate, query: str, version: str, end: bytes | None
    ) -> None:
        """Chunked: no last chunk. A length: fewer bytes. HTTP/1.0, where the end of the connection ends the body: a reset."""
        server = start()
        with server.connect() as client:
            client.send(request(f"/stream?{query}", version=version))
            wire = b""
            while b"piece" not in wire:
                wire += client.receive()
            os.kill(at_gate.wait_arrival(), signal.SIGKILL)
            if end is None:
                assert resets(client)
            else:
                while more := client.socket.recv(65536):
                    wire += more
                assert wire.endswith(end)
        assert server.get("/").body == b"hello"
        LiveLog(server).wait_access("/stream")

    def test_R25_those_who_waited_behind_it_are_served(self, start: Start, at_gate: Gate) -> None:
        server = start()
        with server.connect() as first, server.connect() as second:
            first.send(request("/gate", method="POST"))
            pid = at_gate.wait_arrival()
            second.send(request("/pid"))
            eventually(lambda: queue_length(server) == 1)
            os.kill(pid, signal.SIGKILL)
            assert first.read_response().status == 502
            assert first.get("/").body == b"hello"  # an error of the application's side does not end the connection
            assert second.read_response().text != str(pid)

    def test_a_piece_is_visible_before_the_application_makes_the_next(self, start: Start, at_gate: Gate) -> None:
        server = start()
        with server.connect() as client:
            client.send(request("/stream"))
            wire = b""
            while b"piece\n" not in wire:
                wire += client.receive()
            at_gate.wait_arrival()
            assert wire.count(b"piece") == 1
            at_gate.open()
            while not wire.endswith(b"0\r\n\r\n"):
                wire += client.receive()
            assert wire.count(b"piece") == 2


# -- R27: time --------------------------------------------------------------------------------------------------------


class TestTime:
    def test_R27_the_time_for_a_head_is_absolute(self, start: Start) -> None:
        """It comes byte by byte, and each byte comes soon: that does not help."""
        server = start(header_timeout="500ms")
        with server.connect() as client:
            for _ in range(2):
                assert client.get("/").body == b"hello"
            assert drip(client, request("/", "X: " + "y" * 1000))
            answer = client.read_response()
            assert (answer.status, answer.header("Connection")) == (408, "close")
            assert client.at_end()
        assert status(server)["requests"]["rejected"] == {"header_timeout": 1}

    def test_R27_an_idle_connection_closes_silently(self, start: Start) -> None:
        server = start(header_timeout="500ms", keep_alive_timeout="500ms")
        with server.connect() as fresh, server.connect() as used:
            assert used.get("/").body == b"hello"
            assert ends_cleanly(fresh)
            assert ends_cleanly(used)
        assert status(server)["requests"]["rejected"] == {}

    @pytest.mark.parametrize("at_once", [0, len(LARGE) - 5000])
    def test_R27_a_body_below_the_minimum_rate_is_late(self, start: Start, at_once: int) -> None:
        """In front of the pool, and when a process has the most of it already."""
        server = start(body_timeout="500ms", body_min_rate="100K")
        with server.connect() as client:
            client.send(request("/digest", f"Content-Length: {len(LARGE)}", method="POST") + LARGE[:at_once])
            assert drip(client, LARGE[at_once : at_once + 5000])
            assert client.read_response().status == 408
            assert client.at_end()
        assert server.get("/").body == b"hello"

    def test_R27_a_client_that_takes_nothing_is_closed_and_the_process_is_free(
        self, start: Start, notes: Notes
    ) -> None:
        server = start(write_timeout="500ms")
        with server.connect() as client:
            client.send(request("/endless"))
            notes.wait("closed")
            assert server.get("/").body == b"hello"
        LiveLog(server).wait("closing a client that stopped reading")


# -- R28: half-closed -------------------------------------------------------------------------------------------------


class TestHalfClose:
    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_R28_a_client_that_has_said_all_is_answered(self, start: Start, at_gate: Gate, version: str) -> None:
        """F26."""
        server = start()
        with server.connect() as first, server.connect() as queued:
            first.send(request("/gate", version=version))
            first.send_eof()
            pid = at_gate.wait_arrival()
            queued.send(request("/pid", version=version))
            queued.send_eof()
            eventually(lambda: queue_length(server) == 1)
            at_gate.open()
            for client in (first, queued):
                answer = client.read_response()
                assert (answer.text, answer.complete) == (str(pid), True)
                assert ends_cleanly(client)

    def test_R28_all_that_was_pipelined_before_is_answered(self, start: Start) -> None:
        server = start()
        with server.connect() as client:
            client.send(request("/count") * 20)
            client.send_eof()
            assert [client.read_response().text for _ in range(20)] == [str(number) for number in range(20)]
            assert ends_cleanly(client)

    def test_R28_an_end_in_the_middle_of_a_body_is_told_to_the_application_and_not_answered(
        self, start: Start, notes: Notes
    ) -> None:
        server = start(request_buffering=False)
        with server.connect() as client:
            client.send(request("/cut-off", f"Content-Length: {len(LARGE)}", method="POST") + LARGE[:-1])
            notes.wait("reading")
            client.send_eof()
            assert client.socket.recv(1) == b""
        eventually(lambda: len(notes()) == 2)
        assert notes()[1].startswith("cut off: ")
        assert LiveLog(server).wait_access("/cut-off")["status"] == 499

    def test_R28_an_end_in_the_middle_of_a_buffered_body_never_becomes_a_request(
        self, start: Start, notes: Notes
    ) -> None:
        server = start()
        for size, there in ((5, b"four"), (len(LARGE), LARGE[:-1])):
            with server.connect() as client:
                client.send(request("/cut-off", f"Content-Length: {size}", method="POST") + there)
                client.send_eof()
                assert client.socket.recv(1) == b""
        assert notes() == []


# -- R29: lingering ---------------------------------------------------------------------------------------------------


class TestLingering:
    @pytest.mark.parametrize(
        ("wire", "status"),
        [
            (request("/digest", "Content-Length: 1000001", method="POST"), 413),
            (request("/digest", "Transfer-Encoding: chunked", method="POST") + b"fffffff\r\n", 413),
            (request("/", "X : y"), 400),
            (request("/" + "x" * 9000), 414),
        ],
    )
    def test_R29_the_client_gets_the_refusal_before_the_close(self, start: Start, wire: bytes, status: int) -> None:
        """The client is not listening yet: it sends, and would lose what a reset overtakes."""
        server = start(max_request_body=1000000)
        with server.connect() as client:
            client.send(wire)
            sent = 0
            while sent < 200_000:
                client.send(LARGE[:20_000])
                sent += 20_000
            answer = client.read_response()
            assert (answer.status, answer.complete) == (status, True)
            assert ends_cleanly(client)

    def test_R29_what_is_dropped_meanwhile_is_bounded(self, start: Start) -> None:
        server = start()
        with server.connect() as client:
            client.send(b"BAD\r\n\r\n")
            with pytest.raises(OSError):  # noqa: PT012 - one of the sends fails
                for _ in range(1000):
                    client.send(LARGE)
        eventually(lambda: status(server)["connections"]["open"] == 0)

    def test_F43_an_application_that_does_not_read_its_body_is_heard(self, start: Start) -> None:
        """Also when both have more to say than a socket holds."""
        server = start()
        for body in (LARGE[:1000], LARGE[:190_000], LARGE * 3):
            for size in (0, 1, 2000):
                with server.connect() as client:
                    sender = threading.Thread(
                        target=_send_quietly, args=(client, request(f"/unread?{size}", method="POST", body=body))
                    )
                    sender.start()
                    answer = client.read_response()
                    assert (answer.status, len(answer.body)) == (200, 1024 * size)
                    sender.join(30)
                    assert not sender.is_alive()
        assert server.get("/").body == b"hello"


def _send_quietly(client: RawClient, wire: bytes) -> None:
    try:
        client.send(wire)
    except OSError:
        pass  # answered before it had sent all


# -- R30: processes that went away --------------------------------------------------------------------------------------


class TestProcessesThatWentAway:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_R30_an_idle_process_that_was_killed_costs_no_request(self, start: Start, method: str) -> None:
        """Its stream is stale, whether its exit has been seen by then or not."""
        server = start()
        with server.connect() as client:
            for _ in range(5):
                pid = int(client.get("/pid").text)
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: not is_running(pid))  # noqa: B023 - asked at once
                answer = client.request(method, "/pid", body=b"x" if method == "POST" else b"")
                assert answer.status == 200
                assert answer.text != str(pid)

    def test_R30_a_post_that_a_process_has_had_is_not_sent_to_another(self, start: Start, notes: Notes) -> None:
        server = start()
        with server.connect() as client:
            assert client.request("POST", "/die", body=b"x").status == 502
            assert notes() == ["dying"]
            assert client.get("/").body == b"hello"

    def test_R30_a_get_that_kills_its_process_is_sent_to_one_other_and_the_log_says_so(
        self, start: Start, notes: Notes
    ) -> None:
        server = start()
        with server.connect() as client:
            answer = client.get("/die")
            assert answer.status == 502
            assert client.get("/").body == b"hello"
        assert notes() == ["dying", "dying"]
        log = LiveLog(server)
        assert log.wait_access("GET /die")["retried"]
        assert not log.wait_access("GET /$")["retried"]

    def test_R30_a_put_whose_body_was_passed_on_is_not_sent_to_another(self, start: Start, notes: Notes) -> None:
        server = start(request_buffering=False)
        with server.connect() as client:
            sender = threading.Thread(target=_send_quietly, args=(client, request("/die", method="PUT", body=LARGE)))
            sender.start()
            assert client.read_response().status == 502
            sender.join(30)
        assert notes() == ["dying"]


# -- R31, R32: one after the other --------------------------------------------------------------------------------------


class TestOneAfterTheOther:
    def test_R31_pipelined_requests_are_served_in_order_and_one_at_a_time(self, start: Start, at_gate: Gate) -> None:
        server = start(max_pool_size=4)
        for _ in range(3):
            server.start_process()
        with server.connect() as client:
            client.send(request("/gate") + request("/slow?0.1") + request("/gate") + request("/"))
            first = at_gate.wait_arrival()
            assert sessions(server) == 1
            at_gate.open()
            assert client.read_response().text == str(first)
            assert client.read_response().text == "at last"
            second = at_gate.wait_arrival()
            assert sessions(server) == 1
            at_gate.open()
            assert client.read_response().text == str(second)
            assert client.read_response().text == "hello"

    def test_R31_a_client_that_pipelines_for_ever_is_not_read_for_ever(self, start: Start, at_gate: Gate) -> None:
        """The kernel's buffers fill, and ours do not."""
        server = start()
        with server.connect() as client:
            client.send(request("/gate"))
            at_gate.wait_arrival()
            client.socket.settimeout(1.0)
            sent = 0
            wire = request("/" + "x" * 2000)
            try:
                while sent < 200 << 20:
                    sent += client.socket.send(wire)
            except TimeoutError:
                pass
            assert sent < 100 << 20
            at_gate.open()
            client.socket.settimeout(30)
            assert client.read_response().status == 200

    def test_R32_a_newcomer_is_served_before_the_second_requests_of_those_before_him(
        self, start: Start, at_gate: Gate
    ) -> None:
        server = start()
        with server.connect() as busy, server.connect() as newcomer, crowd(server, 8) as greedy:
            busy.send(request("/gate"))
            at_gate.wait_arrival()
            for number, client in enumerate(greedy):
                # The second request is here before the newcomer has come.
                client.send(request("/count") + request("/count"))
                eventually(lambda: queue_length(server) == number + 1)  # noqa: B023 - asked at once
            newcomer.send(request("/count"))
            eventually(lambda: queue_length(server) == 9)
            at_gate.open()
            assert newcomer.read_response().text == "8"
            assert [client.read_response().text for client in greedy] == [str(number) for number in range(8)]
            # Among the second ones there is no order that is promised: who outlasted the patience of the fast path asks again some turns of Trio later.
            assert sorted(int(client.read_response().text) for client in greedy) == list(range(9, 17))


# -- keep-alive, and its end --------------------------------------------------------------------------------------------


class TestKeepAlive:
    def test_a_connection_ends_after_its_most_of_requests(self, start: Start) -> None:
        server = start(max_requests_per_connection=3)
        with server.connect() as client:
            answers = [client.get("/") for _ in range(3)]
            assert [answer.header("Connection") for answer in answers] == [None, None, "close"]
            assert ends_cleanly(client)

    @pytest.mark.parametrize(
        ("fields", "version"),
        [
            (["Connection: close"], "1.1"),
            (["Connection: keep-alive, Close"], "1.1"),
            ([], "1.0"),
            (["Connection: keep-alive"], "1.0"),
        ],
    )
    def test_a_connection_ends_when_the_client_says_so_or_speaks_HTTP_1_0(
        self, start: Start, fields: list[str], version: str
    ) -> None:
        server = start()
        with server.connect() as client:
            client.send(request("/", *fields, version=version))
            answer = client.read_response()
            assert (answer.body, answer.header("Connection")) == (b"hello", "close")
            assert ends_cleanly(client)

    def test_a_connection_lives_on_after_errors_of_the_application(self, start: Start) -> None:
        server = start()
        with server.connect() as client:
            for _ in range(3):
                assert client.get("/nowhere").status == 500  # a KeyError in the application
                assert client.get("/").body == b"hello"


# -- bodies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain_parser", [True, False], ids=["plain-parser", "no-plain-parser"])
class TestBodies:
    SIZE = 10 << 20

    @pytest.mark.parametrize("buffering", [True, False], ids=["buffering", "no-buffering"])
    def test_ten_MB_up(self, start: Start, plain_parser: bool, buffering: bool) -> None:
        """A chunked body has a length once it is here, and none where it is passed on as it comes."""
        server = start(plain_parser=plain_parser, request_buffering=buffering)
        body = (LARGE * 33)[: self.SIZE]
        with server.connect() as client:
            client.send(request("/digest", method="POST", body=body))
            assert client.read_response().text == f"{hashlib.sha256(body).hexdigest()} {len(body)} {len(body)}"
            for size in (70_000, 1_000_000):
                client.send(request("/digest", "Transfer-Encoding: chunked", method="POST") + chunked(body, size))
                length = len(body) if buffering else None
                assert client.read_response().text == f"{hashlib.sha256(body).hexdigest()} {len(body)} {length}"

    @pytest.mark.parametrize("query", ["10", "length:10"])
    def test_ten_MB_down(self, start: Start, plain_parser: bool, query: str) -> None:
        server = start(plain_parser=plain_parser)
        expected = hashlib.sha256(bytes(range(256)) * 256 * 160).hexdigest()
        with server.connect() as client:
            for _ in range(2):
                answer = client.get(f"/big?{query}")
                assert answer.complete
                assert hashlib.sha256(answer.body).hexdigest() == expected

    def test_a_slow_application_and_a_slow_queue(self, start: Start, at_gate: Gate, plain_parser: bool) -> None:
        """Both outlast the patience of the fast path."""
        server = start(plain_parser=plain_parser)
        with server.connect() as client:
            for _ in range(3):
                assert client.get("/slow?0.2").text == "at last"
        with server.connect() as first, server.connect() as second, server.connect() as third:
            first.send(request("/slow?0.3"))
            eventually(lambda: sessions(server) == 1)
            second.send(request("/digest", method="POST", body=LARGE))
            third.send(request("/slow?0.1"))
            assert first.read_response().text == "at last"
            assert second.read_response().text.startswith(hashlib.sha256(LARGE).hexdigest())
            assert third.read_response().text == "at last"


# -- clients that leave -------------------------------------------------------------------------------------------------


class TestClientsThatLeave:
    def test_F24_a_response_that_nobody_takes_is_closed_and_the_process_is_free(
        self, start: Start, notes: Notes
    ) -> None:
        server = start()
        for number in range(5):
            client = server.connect()
            client.send(request("/endless"))
            while b"200 OK" not in client.receive():
                pass
            client.reset()
            notes.wait("closed", number + 1)
            assert server.get("/").body == b"hello"

    def test_F24_an_application_that_thinks_is_closed_when_it_has_thought(
        self, start: Start, notes: Notes, at_gate: Gate
    ) -> None:
        server = start()
        client = server.connect()
        client.send(request("/thinks"))
        at_gate.wait_arrival()
        client.reset()
        assert LiveLog(server).wait_access("/thinks")["status"] == 499
        assert sessions(server) == 1  # it is busy, and counts as busy
        at_gate.open()
        notes.wait("closed")
        assert server.get("/").body == b"hello"

    def test_F24_a_client_that_leaves_the_queue_never_reaches_the_application(
        self, start: Start, notes: Notes, at_gate: Gate
    ) -> None:
        server = start(request_buffering=False)
        with server.connect() as first:
            first.send(request("/gate"))
            at_gate.wait_arrival()
            for wire in (request("/note?gone"), request("/note?gone", method="POST", body=LARGE)[:200_000]):
                client = server.connect()
                client.send(wire)
                eventually(lambda: queue_length(server) == 1)
                client.reset()
                eventually(lambda: queue_length(server) == 0)
            at_gate.open()
            first.read_response()
        assert server.get("/note?stayed").body == b"noted"
        assert notes() == ["stayed"]

    def test_F25_a_storm_of_resets_leaves_nothing_behind(self, start: Start) -> None:
        server = start(max_pool_size=2, max_request_queue_size=0)
        assert server.get("/").body == b"hello"
        base = len(server.server.descriptors())
        wires = [
            b"",
            b"GET",
            request("/"),
            request("/big?1"),
            request("/digest", method="POST", body=LARGE)[:150_000],
            b"BAD\r\n\r\n",
        ]
        storm = struct.pack("ii", 1, 0)
        for number in range(2000):
            client = socket.create_connection(server.address, 30)  # type: ignore[arg-type]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, storm)
            client.setblocking(False)
            if wire := wires[number % len(wires)]:
                client.send(wire)
            client.close()
        assert server.get("/").body == b"hello"
        eventually(lambda: status(server)["connections"]["open"] == 0, 30.0)
        eventually(lambda: sessions(server) == 0 and queue_length(server) == 0, 30.0)
        # A stream to each process may be kept.
        eventually(
            lambda: len(server.server.descriptors()) <= base + 16, 30.0, "the descriptors are back to what they were"
        )
        assert calm(server)

    def test_F25_five_hundred_half_uploads_hold_no_process(self, start: Start) -> None:
        server = start(max_request_queue_size=0)
        with crowd(server, 500) as halves:
            for client in halves:
                client.send(request("/digest", "Content-Length: 100", method="POST") + b"half")
            eventually(lambda: status(server)["connections"]["open"] == 500)
            assert sessions(server) == 0
            assert server.get("/").body == b"hello"
            assert calm(server)
            for client in halves[::2]:
                client.send(b"x" * 96)
            for client in halves[::2]:
                assert client.read_response().text.endswith(" 100 100")
        eventually(lambda: status(server)["connections"]["open"] == 0)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def calm(server: Server) -> bool:
    """Whether the supervisor is at rest: an interval is found in which it runs for less than a tenth of the time."""

    def rests() -> bool:
        before = cpu_ticks(the_server(server).pid)
        threading.Event().wait(0.5)
        return cpu_ticks(the_server(server).pid) - before <= 5

    return eventually(rests, 30.0, "the supervisor comes to rest")


# -- F31: too few descriptors -------------------------------------------------------------------------------------------


class TestTooFewDescriptors:
    def test_F31_the_oldest_idle_connections_make_room_and_the_server_is_calm(
        self, at_gate: Gate, notes: Notes
    ) -> None:
        options = ["--max-pool-size", "2", "--env", f"NOTES={notes.path}", *at_gate.arguments]
        with Supervisor.start(APP, *options, prefix=["prlimit", "--nofile=80"]) as server:
            assert server.get("/").body == b"hello"
            with ExitStack() as stack:
                clients = []
                for _ in range(200):
                    clients.append(stack.enter_context(server.connect()))
                    assert clients[-1].get("/").body == b"hello"
                # The newest are served still, the oldest were closed, in good order.
                assert clients[-1].get("/").body == b"hello"
                assert ends_cleanly(clients[0])
                assert status(server)["connections"]["open"] < 80
                assert calm(server)
            eventually(lambda: status(server)["connections"]["open"] == 0)
            assert server.get("/").body == b"hello"

    def test_F31_when_all_are_busy_newcomers_wait_and_nobody_spins(self, at_gate: Gate, notes: Notes) -> None:
        options = [
            "--max-pool-size",
            "1",
            "--max-request-queue-size",
            "0",
            "--env",
            f"NOTES={notes.path}",
            *at_gate.arguments,
        ]
        with Supervisor.start(APP, *options, prefix=["prlimit", "--nofile=80"]) as server:
            with server.connect() as first:
                first.send(request("/gate"))
                at_gate.wait_arrival()
                with ExitStack() as stack:
                    clients = []
                    for _ in range(100):
                        # Each has asked before the next one connects: one that had not would be idle, and would make room.
                        clients.append(stack.enter_context(server.connect()))
                        clients[-1].send(request("/count"))
                    assert calm(server)
                    at_gate.open()
                    assert first.read_response().status == 200
                    for client in clients:
                        assert client.read_response().status == 200
                        client.close()

    def test_R36_the_greatest_number_of_connections_is_kept(self, start: Start, at_gate: Gate) -> None:
        server = start(max_connections=5)
        wire = request("/gate", "Connection: close")
        with ExitStack() as stack:
            inside = []
            for number in range(5):
                # One after the other, so that they are in this order in the queue, too.
                inside.append(stack.enter_context(server.connect()))
                inside[-1].send(wire)
                if not number:
                    at_gate.wait_arrival()
                eventually(lambda: queue_length(server) == number)  # noqa: B023 - asked at once
            outside = [stack.enter_context(server.connect()) for _ in range(15)]
            for client in outside:
                client.send(request("/", "Connection: close"))
            assert calm(server)
            assert status(server)["connections"]["open"] == 5
            for client in inside:
                at_gate.open()
                assert client.read_response().status == 200
                if client is not inside[-1]:
                    at_gate.wait_arrival()
            for client in outside:
                assert client.read_response().body == b"hello"
                client.close()


# -- Unix sockets -------------------------------------------------------------------------------------------------------


class TestUnixSocket:
    def test_it_serves_and_is_gone_afterwards(self, command: Command, instance_dir: Path) -> None:
        path = str(instance_dir / "s")
        server = command("-S", path)
        assert server.address == path
        with server.connect() as client:
            for _ in range(3):
                assert client.get("/").body == b"hello"
            client.send(request("/digest", "Transfer-Encoding: chunked", method="POST") + chunked(LARGE, 10_000))
            assert client.read_response().text.startswith(hashlib.sha256(LARGE).hexdigest())
        assert server.stop() == 0
        assert not os.path.lexists(path)

    @pytest.mark.parametrize(("arguments", "mode"), [((), 0o666), (("--socket-mode", "0660"), 0o660)])
    def test_its_mode(self, command: Command, instance_dir: Path, arguments: tuple[str, ...], mode: int) -> None:
        """Fault 35"""
        path = str(instance_dir / "s")
        server = command("-S", path, *arguments)
        assert stat.S_IMODE(os.lstat(path).st_mode) == mode
        assert server.get("/").body == b"hello"

    def test_F58_a_stale_socket_is_replaced(self, command: Command, instance_dir: Path) -> None:
        path = str(instance_dir / "s")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        assert command("-S", path).get("/").body == b"hello"

    def test_F58_a_live_socket_and_any_other_file_are_left_alone(self, command: Command, instance_dir: Path) -> None:
        path = str(instance_dir / "s")
        first = command("-S", path)
        done = run_command("start", str(APP), "-S", path)
        assert (done.returncode, "Traceback" in done.stderr) == (5, False), done.stderr
        assert path in done.stderr
        assert first.get("/").body == b"hello"
        regular = path + ".txt"
        Path(regular).write_text("mine")
        done = run_command("start", str(APP), "-S", regular)
        assert (done.returncode, "Traceback" in done.stderr) == (5, False), done.stderr
        assert Path(regular).read_text() == "mine"

    def test_a_server_that_drains_does_not_take_the_socket_of_its_successor(
        self, command: Command, instance_dir: Path, at_gate: Gate
    ) -> None:
        path = str(instance_dir / "s")
        old = command("-S", path)
        with old.connect() as busy:
            busy.send(request("/gate"))
            at_gate.wait_arrival()
            old.send_signal(signal.SIGTERM)
            eventually(lambda: not os.path.lexists(path))
            new = command("-S", path)
            assert new.get("/").body == b"hello"
            at_gate.open()
            assert busy.read_response().status == 200
        assert old.process.wait(30) == 0
        assert os.path.lexists(path)
        assert new.get("/").body == b"hello"
