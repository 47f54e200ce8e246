"""TH4: each fault of clients, processes, the machine and deploys once, on one server; a fault that never fired fails the test.

Starts the command: faults without pytest, by a `Supervisor`, are the subject.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passenger_trio.testing import RawClient, Response, Supervisor, eventually
from passenger_trio.testing.faults import Fault, FaultNeverFired, FaultNotPossible, Faults, FaultSetup

pytestmark = pytest.mark.os

APP = Path(__file__).resolve().parent.parent / "apps" / "python" / "buffering"
BLOCK = 65536
TWO = ("--max-pool-size", "2", "--min-instances", "2")


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    setup = FaultSetup(machine=True)
    with Supervisor.start(APP, *TWO, env=setup.environment) as server:
        yield setup.faults(server, seed=16)
    setup.close()


@pytest.fixture(autouse=True)
def two_processes_and_nothing_left(faults: Faults) -> Iterator[None]:
    yield
    eventually(lambda: len(faults.server.pids) == 2, 30, "two processes serve")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("link", "fault"))]
    assert faults.setup is not None
    assert not list(faults.setup.plan.home.glob("*/*"))


@contextmanager
def in_a_thread(work: Callable[[], Response]) -> Iterator[Future[Response]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


# Clients


def test_TH4_a_client_that_reads_slowly_gets_all(faults: Faults) -> None:
    with faults.slow_read(rate=4_000_000) as slow:
        response = slow.get("/length?slow/10")
    assert response.complete
    assert len(response.body) == 10 * BLOCK


def test_TH4_a_client_that_stops_reading_holds_no_process(faults: Faults) -> None:
    with faults.stop_reading(after=500) as fault, fault.connect() as client:
        client.send(b"GET /length?stops/60 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert fault.stopped.wait(30)
        eventually(lambda: all(p["sessions"] == 0 for p in faults.server.group()["processes"]), 30)
        assert faults.server.get("/hello").text == "hello"


def test_TH4_a_reset_at_every_point_of_a_response(faults: Faults) -> None:
    whole = len(_bytes_of(faults.server, b"/hello"))
    for after in faults.points(whole, 12):
        with faults.reset(after=after) as fault, fault.connect() as client:
            client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            got = b""
            while piece := client.receive():
                got += piece
            assert len(got) <= after
    assert faults.server.get("/hello").text == "hello"


def test_TH4_a_reset_in_the_request(faults: Faults) -> None:
    with faults.reset(after=20, of="request") as fault:
        with pytest.raises(ConnectionError):
            fault.get("/hello")


def test_TH4_a_reset_over_tcp_is_a_reset(tmp_path: Path) -> None:
    """Of the kernel: the server sees ECONNRESET, and not an end of file."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        from passenger_trio.testing.faults.clients import Reset

        with Reset(listener.getsockname()[:2], 0, 3, "request") as fault:
            client = RawClient(fault.address)
            server, _ = listener.accept()
            client.send(b"GET / HTTP/1.1\r\n")
            assert server.recv(3) == b"GET"
            with pytest.raises(ConnectionResetError):
                server.recv(100)
            server.close()
            client.close()


def test_TH4_half_close(faults: Faults) -> None:
    with faults.half_close() as fault:
        assert fault.get("/hello").text == "hello"


def test_TH4_byte_by_byte_and_through_httpx(faults: Faults) -> None:
    with faults.trickle(size=1, gap=0.0) as fault, fault.client() as client:
        assert client.get("/hello").text == "hello"
    assert fault.fired > 30


@given(st.lists(st.integers(1, 35), min_size=1, max_size=3, unique=True))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_TH4_offsets_are_values_that_a_property_can_draw(faults: Faults, offsets: list[int]) -> None:
    with faults.split_at(*offsets, gap=0.005) as fault:
        assert fault.get("/hello").text == "hello"


def test_TH4_pipelined_requests_are_answered_in_order(faults: Faults) -> None:
    with faults.pipeline(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n" * 2) as fault:
        assert fault.get("/hello").text == "hello"
        assert fault.answered.wait(15)
    assert fault.responses.count(b"HTTP/1.1 200 OK") == 2


def test_TH4_abandoned_uploads(faults: Faults) -> None:
    with faults.early_eof(after=200) as fault:
        with pytest.raises(ConnectionError):
            fault.post("/hello", b"x" * 100_000)
    with faults.early_eof(after=20, close=False) as fault:
        assert fault.get("/hello").status == 400


# Processes


@pytest.mark.parametrize("at", ["accept", "head"])
def test_TH4_a_process_killed_before_it_answers(faults: Faults, at: str) -> None:
    """A safe request is sent again, to another process."""
    with faults.kill(at=at) as fault:  # type: ignore[arg-type]
        assert faults.server.get("/hello").text == "hello"
    assert fault.pids[0] not in faults.server.pids


@pytest.mark.parametrize("at", ["mid_body", "before_end"])
def test_TH4_a_process_killed_in_its_response(faults: Faults, at: str) -> None:
    """The client sees that the response is not whole."""
    with faults.kill(at=at):  # type: ignore[arg-type]
        response = faults.server.get("/hello")
    assert not response.complete
    assert response.body == {"mid_body": b"he", "before_end": b"hell"}[at]


def test_TH4_other_ends_in_the_middle(faults: Faults) -> None:
    with faults.exit("mid_body", status=3):
        assert not faults.server.get("/hello").complete
    with faults.oom("mid_body", size=8 << 20):
        assert not faults.server.get("/hello").complete
    with faults.close_stream("mid_body"):
        assert not faults.server.get("/hello").complete
    with faults.bad_frame("head"):
        assert faults.server.get("/hello").status == 502


@pytest.mark.parametrize("kind", ["stop", "hang", "hold"])
def test_TH4_a_process_that_does_nothing_holds_up_nobody_else(faults: Faults, kind: str) -> None:
    with getattr(faults, kind)(path="/hello") as fault, in_a_thread(lambda: faults.server.get("/hello")) as late:
        pid = fault.wait_fired()
        assert pid in faults.server.pids
        assert faults.server.get("/length?other/1").complete
        assert not late.done()
        fault.end()
        assert late.result(30).text == "hello"


def test_TH4_starts_that_crash_or_are_slow(faults: Faults) -> None:
    with faults.crash_on_start("exit") as crash:
        os.kill(faults.server.pids[0], signal.SIGKILL)
        crash.wait_fired()
        eventually(lambda: len(faults.server.pids) == 2, 30, "the next start succeeds")
    with faults.slow_start(0.2) as slow:
        os.kill(faults.server.pids[0], signal.SIGKILL)
        pid = slow.wait_fired()
        assert faults.server.get("/hello").text == "hello"
        eventually(lambda: pid in faults.server.pids, 30, "the slow process serves")


# The machine


def test_TH4_a_slow_disk_and_then_a_full_one(faults: Faults) -> None:
    """Bodies that are buffered on disk come whole all the same."""
    with faults.slow_disk(0.01), faults.slow_read(8_000_000) as slow:
        assert slow.get("/length?disk/120").complete
    with faults.disk_full(after=100_000), faults.slow_read(8_000_000) as slow:
        assert slow.get("/length?disk/120").complete
    assert faults.server.status()["buffers"]["errors"]["no_space"] >= 1


def test_TH4_the_clock_jumps(faults: Faults) -> None:
    day = faults.server.get("/hello").header("Date")
    with faults.clock_jump(400 * 86_400):
        assert faults.server.get("/hello").header("Date") != day
    assert (faults.server.get("/hello").header("Date") or "")[:16] == (day or "")[:16]


def test_TH4_no_descriptors(faults: Faults) -> None:
    with faults.no_descriptors(spare=3):
        clients = [faults.server.connect() for _ in range(8)]
        faults.server.wait_log("Too many open files")
        for client in clients:
            client.close()
    assert faults.server.get("/hello").text == "hello"


def test_TH4_a_server_that_does_not_run_for_a_while(faults: Faults) -> None:
    with faults.pause_supervisor(0.1):
        assert faults.server.get("/hello").text == "hello"


# Deploys


@pytest.mark.parametrize("at", [None, "mid_body"])
def test_TH4_a_restart_also_in_the_middle_of_a_request(faults: Faults, at: str | None) -> None:
    before = faults.server.group()["generation"]
    with faults.restart_now(at=at):  # type: ignore[arg-type]
        response = faults.server.get("/hello")
    assert (response.text, response.complete) == ("hello", True)
    assert faults.server.group()["generation"] > before


def test_TH4_a_broken_release_and_a_slow_one(faults: Faults) -> None:
    with faults.broken_release() as broken:
        assert [result["result"] for result in broken.results] == ["rejected"]
        assert faults.server.get("/hello").text == "hello"
    with faults.slow_release(0.2):
        assert faults.server.get("/hello").text == "hello"


# The laws


def test_TH4_a_fault_that_never_fired_fails_the_test(faults: Faults) -> None:
    for fault in (
        faults.split_at(10_000),
        faults.reset(after=10_000),
        faults.kill("mid_body", path="/nowhere"),
        faults.disk_full(),
        faults.no_descriptors(spare=200),
        faults.slow_start(),
    ):
        with pytest.raises(FaultNeverFired, match=r"never fired.*seed 16|seed 16.*never fired"), fault:
            assert faults.server.get("/hello").text == "hello"


def test_TH4_a_failure_names_the_fault_it_happened_under(faults: Faults) -> None:
    with pytest.raises(AssertionError) as caught, faults.trickle(size=5):
        raise AssertionError("of the test")
    assert caught.value.__notes__ == ["under the fault trickle(size=5, gap=0.001) (seed 16), which fired 0 times"]


def test_TH4_the_same_seed_draws_the_same_faults(faults: Faults) -> None:
    def drawn(seed: int) -> list[str]:
        again = Faults(faults.server, faults.setup, seed)
        made: list[Fault] = [again.reset(), again.slow_read(), again.split_at(), again.slow_start(), again.clock_jump()]
        return [repr(fault) for fault in made] + [str(again.points(1000, 9))]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_TH4_what_is_not_possible_says_what_to_do(faults: Faults) -> None:
    with pytest.raises(FaultNotPossible, match=r"FaultSetup\.environment"):
        Faults(faults.server).kill("mid_body")
    with pytest.raises(FaultNotPossible, match=r"machine=True"):
        Faults(faults.server).disk_full()


def test_TH4_a_server_that_runs_elsewhere_has_faults_of_clients_only(faults: Faults) -> None:
    elsewhere = Faults(None, address=faults.server.address)
    with elsewhere.trickle(size=5) as slow:
        assert slow.get("/hello").text == "hello"
    with pytest.raises(FaultNotPossible, match="runs elsewhere"):
        elsewhere.pause_supervisor()


def _bytes_of(server: Supervisor, path: bytes) -> bytes:
    """A response that ends with "hello"."""
    with server.connect() as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        got = b""
        while not got.endswith(b"hello"):
            got += client.receive()
        return got
