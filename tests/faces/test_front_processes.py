"""``--fronts 2``: several processes that serve clients, on one pool (FR2 to FR5).

Starts the command: `--fronts` is the subject.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, Load, clients, gate, in_threads, run_command
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from passenger_trio.admin.client import fetch, order
from passenger_trio.testing import RawClient, Response, Supervisor, eventually

pytestmark = pytest.mark.os

FRONTS = (
    *("--fronts", "2", "--front-balance", "count"),
    *("--max-pool-size", "8", "--min-instances", "4", "--max-instances", "4"),
)


def fronts(server: Supervisor) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.status()["fronts"]
    return found


def serving(server: Supervisor) -> list[dict[str, Any]]:
    """The fronts, once each of them serves."""
    return eventually(lambda: all(front["alive"] for front in fronts(server)) and fronts(server), 30, "all fronts live")


def idle_slots(server: Supervisor) -> bool:
    """Whether the pool has all of its slots back."""
    return all(process["sessions"] == 0 for process in server.group()["processes"])


def tell(server: Supervisor, path: str, **what: Any) -> dict[str, Any]:
    """An order of an operator, and what comes of it."""
    answer: dict[str, Any] = order(str(server.ready["admin_socket"]), path, what, for_long=True)
    return answer


@contextlib.contextmanager
def connected(server: Supervisor, count: int) -> Iterator[list[RawClient]]:
    """So many connections, each of which has had a response."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def answers(client: RawClient) -> bool:
    """Whether a connection still serves."""
    try:
        return client.get("/pid").status == 200
    except Exception:  # noqa: BLE001  however it is broken
        return False


@pytest.fixture(scope="module")
def door() -> Iterator[Any]:
    with gate() as it:
        yield it


@pytest.fixture(scope="module")
def server(door: Any) -> Iterator[Supervisor]:
    with Supervisor.start(BEHAVIOURS, *FRONTS, *door.arguments) as running:
        serving(running)
        yield running


def test_FR2_both_serve_and_FR3_share_the_connections(server: Supervisor) -> None:
    """Neither front has more than the gate allows, and every request is answered by the one pool."""
    before = server.status()
    with connected(server, 16) as there:
        pids = {client.get("/pid").text for client in there for _ in range(5)}
        counts = eventually(
            lambda: (
                sum(front["connections"] for front in fronts(server)) == 16
                and [front["connections"] for front in fronts(server)]
            ),
            15,
            "both fronts tell of their connections",
        )
        assert max(counts) - min(counts) <= 5, counts
    after = server.status()
    assert after["requests"]["total"] - before["requests"]["total"] == 80
    assert after["connections"]["accepted"] - before["connections"]["accepted"] == 16
    assert pids <= {str(pid) for pid in server.pids}
    eventually(lambda: idle_slots(server), 15, "all slots are back")
    assert len(server.pids) == 4


def test_FR5_one_view_of_requests_and_one_access_log(server: Supervisor, door: Any) -> None:
    """A request is seen wherever it is served; each has an id of its own, and a line of its own."""
    with clients(6) as send:
        answers = [send(server, f"/gate?{number}") for number in range(4)]
        pids = {door.wait_arrival() for _ in range(4)}
        found = fetch(str(server.ready["admin_socket"]), "/v1/requests")["requests"]
        assert {request["pid"] for request in found} == pids == set(server.pids)
        assert {request["path"] for request in found} == {"/gate"}
        assert len({request["id"] for request in found}) == 4
        waits = [send(server, f"/pid?{number}") for number in range(2)]
        eventually(lambda: server.status()["pool"]["queue"] == 2, 15, "two requests wait in the one queue")
        door.open()
        assert [answer.result(30).status for answer in [*answers, *waits]] == [200] * 6
    for number in range(4):
        server.wait_access_log(f"/gate?{number} ")


def finished(server: Supervisor) -> float:
    """Requests of the application, by the metrics."""
    with RawClient(str(server.ready["admin_socket"])) as client:
        text = client.request("GET", "/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count" and sample.labels["app"]
    )


def test_FR5_the_metrics_are_those_of_one_server(server: Supervisor) -> None:
    """Also after a front has died: a count never decreases."""
    before = finished(server)
    with connected(server, 8) as there:
        for client in there:
            client.get("/pid")
    eventually(lambda: finished(server) == before + 8, 15, "every request is counted")
    victim = serving(server)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    eventually(lambda: fronts(server)[0]["restarts"] == victim["restarts"] + 1, 30, "its end is seen")
    serving(server)
    assert server.get("/pid").status == 200
    eventually(lambda: finished(server) == before + 9, 15, "what it had counted is kept")


def test_FR5_lines_of_two_fronts_never_mix(server: Supervisor) -> None:
    long = "x" * 3000
    results = in_threads(8, lambda number: [server.get(f"/pid?{number}-{long}").status for _ in range(10)])
    assert Counter(status for some in results for status in some) == {200: 80}
    for number in range(8):
        eventually(
            lambda number=number: sum(f"?{number}-{long} HTTP" in line for line in server.access_log()) == 10,
            15,
            "ten whole lines for each client",
        )


def test_OB10_a_page_that_explains_has_what_the_owner_knows(server: Supervisor) -> None:
    """How the process ended, and the processes of the application, of which a front knows nothing."""
    with server.connect() as client:
        response = client.request("POST", "/exit?3", headers=[("Accept", "application/json")])
    assert response.status == 502
    told = json.loads(response.text)["error"]
    assert "ended: exit status 3" in told["ending"]
    assert told["most_processes"] == 4
    assert told["processes"]
    eventually(lambda: len(server.pids) == 4)


def test_FR4_drain_and_resume_reach_every_front(server: Supervisor) -> None:
    with connected(server, 6) as there:
        assert {client.get("/pid").header("Connection") for client in there} == {None}
        assert tell(server, "/v1/drain")["draining"]
        assert all(client.at_end() for client in there)
    assert server.get("/pid").header("Connection") == "close"
    tell(server, "/v1/resume")
    eventually(lambda: server.get("/pid").header("Connection") is None, 15, "connections are kept alive again")


def test_FR4_logs_are_opened_anew_by_every_front(server: Supervisor) -> None:
    path = server.home / "access.log"
    path.rename(server.home / "access.log.1")
    server.send_signal(signal.SIGUSR1)
    eventually(path.exists, 15, "the log is there again")
    with connected(server, 8) as there:
        for number, client in enumerate(there):
            client.get(f"/pid?anew-{number}")
    for number in range(8):
        server.wait_access_log(f"?anew-{number} ")


def test_FR4_a_front_that_dies_loses_its_own_connections_only(server: Supervisor, door: Any) -> None:
    """The other front's connections go on, all slots come back, another front takes its place."""
    with connected(server, 8) as there, clients(1) as send:
        for client in there:
            client.get("/pid")
        waiting = send(server, "/gate")
        door.wait_arrival()
        eventually(
            lambda: sum(front["connections"] for front in fronts(server)) == 9, 15, "both tell of their connections"
        )
        victim, other = serving(server)
        os.kill(victim["pid"], signal.SIGKILL)
        eventually(lambda: fronts(server)[0]["restarts"] == victim["restarts"] + 1, 30, "its end is seen")
        door.open()
        lost = [client for client in there if not answers(client)]
        assert len(lost) + (waiting.exception(30) is not None) == victim["connections"]
        line = server.wait_log(f"front {victim['number']} was ended by SIGKILL")
        assert json.loads(line)["level"] == "error"
    new, same = serving(server)
    assert same["pid"] == other["pid"]
    assert new["pid"] != victim["pid"]
    eventually(lambda: idle_slots(server), 30, "all slots are back")
    results = in_threads(8, lambda number: server.get("/pid").status)
    assert results == [200] * 8
    assert len(server.pids) == 4, "no process was lost with it"


def test_FR4_a_front_that_stands_still_is_replaced_and_its_slots_come_back(server: Supervisor) -> None:
    """A recall cannot reach it, so it is ended."""
    victim = serving(server)[0]
    os.kill(victim["pid"], signal.SIGSTOP)
    eventually(lambda: fronts(server)[0]["restarts"] == victim["restarts"] + 1, 90, "it is ended")
    server.wait_log("its event loop has stood still")
    assert serving(server)[0]["pid"] != victim["pid"]
    eventually(lambda: idle_slots(server), 30, "all slots are back")


def test_FR4_a_restart_under_load_fails_no_request(server: Supervisor) -> None:
    before = set(server.pids)
    with Load(server, "/pid", 8) as load:
        eventually(lambda: len(load.results) > 50, 60, "the load runs")
        done = tell(server, "/v1/restart", wait=True)
        assert {group["result"] for group in done["groups"]} == {"restarted"}
        seen = len(load.results)
        eventually(lambda: len(load.results) > seen + 50, 60, "the load goes on")
    assert Counter(r.status if isinstance(r, Response) else repr(r) for r in load.results).keys() == {200}
    eventually(lambda: not before & set(server.pids), 60, "the old processes are gone")


def test_FR4_the_server_drains_with_what_is_under_way_and_leaves_nothing(door: Any) -> None:
    with Supervisor.start(BEHAVIOURS, *FRONTS, *door.arguments) as own, clients(3) as send:
        serving(own)
        answers = [send(own, "/gate") for _ in range(3)]
        for _ in answers:
            door.wait_arrival()
        own.send_signal(signal.SIGTERM)
        own.wait_log("draining: ")

        def refused() -> bool:
            try:
                socket.create_connection(own.address, timeout=5).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:
                pass  # the listener was closed in this very moment
            return False

        eventually(refused, 15, "nobody else is let in")
        assert not any(answer.done() for answer in answers)
        door.open()
        assert [answer.result(30).status for answer in answers] == [200] * 3
        assert own.wait() == 0


def test_FR4_fronts_end_with_their_owner() -> None:
    with Supervisor.start(BEHAVIOURS, *FRONTS) as own:
        pids = [front["pid"] for front in serving(own)]
        with connected(own, 4) as there:
            for client in there:
                client.get("/pid")
            own.kill()
            eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 5, "no front is left")
            assert all(client.at_end() for client in there)


def test_FR2_a_warning_where_slots_are_few_and_an_error_where_the_number_is_none() -> None:
    with Supervisor.start(BEHAVIOURS, "--fronts", "2", "--max-pool-size", "2") as own:
        own.wait_log("2 fronts have less than 4 places in processes each")
        assert own.get("/pid").status == 200
    done = run_command("start", str(BEHAVIOURS), "--fronts", "none")
    assert done.returncode == 2
    assert "--fronts" in done.stderr
    assert "auto" in done.stderr
