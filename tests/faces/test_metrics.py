"""OB1, OB3: metrics and health of a running server: they agree with the access log and with ``status``, and are read by whoever may.

Starts the command: its counts are the subject, from its start on.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from passenger_trio.admin.client import fetch_status, order
from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


class Served:
    """A server, and what its two faces for monitoring say."""

    def __init__(self, server: Supervisor, place: str) -> None:
        self.server = server
        self.place = place
        self.admin = str(server.ready["admin_socket"])

    def ask(self, target: str, *, method: str = "GET", admin: bool = False) -> tuple[int, str, str]:
        """Status, content type and body."""
        with RawClient(self.admin if admin else self.place) as client:
            response = client.request(method, target)
            return response.status, response.header("content-type") or "", response.text

    def samples(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Name of a sample -> labels -> value."""
        status, kind, text = self.ask("/metrics")
        assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        found = self.samples().get(name, {})
        return sum(value for key, value in found.items() if set(labels.items()) <= set(key))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = str(tmp_path_factory.mktemp("m") / "metrics.sock")
    with Supervisor.start(
        BEHAVIOURS,
        "--min-instances",
        "2",
        "--metrics-listen",
        f"unix:{place}",
        "--access-log-format",
        "json",
        "--health-path",
        "/-/health",
    ) as server:
        yield Served(server, place)


def test_OB1_sums_equal_the_access_log(served: Served) -> None:
    """Requests that are served, refused, answered by a dying process, and made up."""
    server = served.server
    for path in ("/pid", "/raise", "/exit", "/nothing-here"):
        server.get(path)
    with server.connect() as client:
        for _ in range(20):
            assert client.get("/pid").status == 200
    for wrong in (b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"):
        with server.connect() as client:
            client.send(wrong)
            client.receive_all()
    with server.connect() as client:
        client.request("BREW", "/pid")
    logged = eventually(lambda: len(lines) >= 27 and lines if (lines := server.access_log()) else None)
    records = [json.loads(line) for line in logged]
    assert served.total("http_server_request_duration_seconds_count") == len(records)
    for status in {record["status"] for record in records}:
        counted = served.total("http_server_request_duration_seconds_count", http_response_status_code=str(status))
        assert counted == sum(record["status"] == status for record in records), status
    assert served.total("http_server_request_duration_seconds_count", http_request_method="_OTHER") >= 1
    assert served.total("http_server_request_duration_seconds_count", app="") == 2
    assert served.total("passenger_trio_access_log_lines_total", outcome="written") == len(records)
    assert served.total("passenger_trio_request_app_seconds_count") == sum(record["app_time"] > 0 for record in records)
    assert served.total("passenger_trio_request_queue_seconds_count") == sum(r["queue_time"] > 0 for r in records)


def test_OB1_transitions_of_the_pool_have_their_reasons(served: Served) -> None:
    server = served.server
    before = served.total("passenger_trio_processes_ended_total", reason="exited")
    server.get("/exit")
    eventually(lambda: served.total("passenger_trio_processes_ended_total", reason="exited") >= before + 1)
    eventually(lambda: len(server.pids) == 2)  # the GET was sent again, so both may have ended
    ended = served.total("passenger_trio_processes_ended_total", reason="restart")
    order(served.admin, "/v1/restart", {"wait": True}, for_long=True)
    eventually(lambda: served.total("passenger_trio_processes_ended_total", reason="restart") >= ended + 1)
    assert served.total("passenger_trio_restarts_total", outcome="done") >= 1
    assert served.total("passenger_trio_processes_detached_total", reason="restart") >= 1
    eventually(lambda: len(server.pids) == 2)
    ready = served.total("passenger_trio_spawn_seconds_count", outcome="ready")
    ends = served.total("passenger_trio_processes_ended_total")
    assert ready - ends == 2, "what came and has not gone is there"


def test_OB1_metrics_and_status_agree_to_the_number(served: Served) -> None:
    eventually(lambda: len(served.server.pids) == 2)
    status = fetch_status(served.admin)
    (group,) = status["groups"]
    name = group["name"]
    assert served.total("passenger_trio_pool_capacity") == status["pool"]["max"]
    assert served.total("passenger_trio_pool_used") == status["pool"]["size"]
    assert served.total("passenger_trio_requests_waiting", app=name) == group["queue"]
    assert served.total("passenger_trio_processes", app=name, state="idle") == len(group["processes"])
    assert served.total("passenger_trio_processes", app=name, state="spawning") == group["spawning"]
    assert served.total("passenger_trio_generation", app=name) == group["generation"]
    assert served.total("passenger_trio_connections_accepted_total") == status["connections"]["accepted"]
    assert served.total("passenger_trio_buffer_disk_limit_bytes") == status["buffers"]["disk_max"]
    assert served.total("passenger_trio_faults_total") == status["faults"]["total"]
    for reason, count in status["requests"]["rejected"].items():
        assert served.total("passenger_trio_requests_refused_total", reason=reason) == count
    assert served.total("passenger_trio_process_pss_bytes", app=name) > 0


def test_OB1_what_alerts_look_at_is_there_before_it_happens(served: Served) -> None:
    """An increase from nothing to 1 is no increase for Prometheus."""
    samples = served.samples()
    for reason in ("queue_full", "queue_timeout", "spawn_failed"):
        assert samples["passenger_trio_requests_refused_total"][(("reason", reason),)] == 0
    assert {dict(key)["reason"] for key in samples["passenger_trio_processes_ended_total"]} >= {"exited", "signal"}


def test_OB1_no_label_names_a_path_or_a_pid(served: Served) -> None:
    served.server.get("/no/such/place?secret=1")
    labels = {label for samples in served.samples().values() for key in samples for label, _ in key}
    words = (
        "app version http_request_method http_response_status_code url_scheme le reason state direction method outcome"
    )
    assert labels <= {*words.split(), "kind", "task", "code"}
    assert "secret" not in served.ask("/metrics")[2]


def test_OB1_every_metric_is_in_the_documentation(served: Served) -> None:
    """And each that the page names is one that the source makes."""
    page = DOCUMENT.read_text()
    families = {family.name for family in text_string_to_metric_families(served.ask("/metrics")[2])}
    named = set(re.findall(r"^\| `([a-z_]+)`", page, re.M))
    assert families <= named
    admin = DOCUMENT.parents[1] / "passenger_trio" / "admin"
    source = (admin / "metrics.py").read_text() + (admin / "metric_families.py").read_text()
    for name in named:
        assert f'"{name.removeprefix("passenger_trio_")}"' in source, name


def test_OB1_both_faces_answer_the_same(served: Served) -> None:
    for target in ("/metrics", "/livez", "/readyz", "/startupz"):
        status, kind, _ = served.ask(target)
        assert served.ask(target, admin=True)[:2] == (status, kind)
        assert served.ask(target, method="HEAD")[::2] == (200, "")


def test_OB1_no_order_can_be_given_to_the_metrics_listener(served: Served) -> None:
    assert served.ask("/v1/status")[0] == 404
    assert served.ask("/v1/shutdown", method="POST")[0] == 405
    assert served.ask("/metrics", method="POST")[0] == 405
    assert fetch_status(served.admin)["stopping"] is False


def test_OB1_silent_callers_keep_no_scraper_out(served: Served) -> None:
    silent = []
    try:
        for _ in range(40):
            client = socket.socket(socket.AF_UNIX)
            client.connect(served.place)
            silent.append(client)
        assert served.ask("/livez")[0] == 200
        with RawClient(served.place) as client:
            client.send(b"\0\1\2\r\n\r\n")
            assert client.read_response().status == 400
    finally:
        for one in silent:
            one.close()


def test_OB3_health_of_a_server_that_drains(served: Served) -> None:
    assert served.ask("/readyz")[::2] == (200, "ok\n")
    order(served.admin, "/v1/drain", {})
    try:
        assert served.ask("/readyz")[::2] == (503, "draining\n")
        assert served.ask("/livez")[::2] == (200, "ok\n")
        assert "[-]accepting: draining\n" in served.ask("/readyz?verbose")[2]
        assert "[-]accepting: draining\n" in served.ask("/readyz?verbose=1", admin=True)[2]
    finally:
        order(served.admin, "/v1/resume", {})
    assert served.ask("/readyz")[0] == 200
    assert served.total("passenger_trio_ready") == 1


def test_OB3_the_public_listener_tells_everybody_but_names_no_application(served: Served) -> None:
    server = served.server
    assert (server.get("/-/health/livez").text, server.get("/-/health/startupz").text) == ("ok\n", "ok\n")
    told = server.get("/-/health/readyz?verbose")
    assert (told.status, told.text) == (200, "[+]started ok\n[+]accepting ok\n[+]capacity ok\nreadyz check passed\n")
    assert "behaviours" in served.ask("/readyz?verbose", admin=True)[2]
    assert "behaviours" not in served.ask("/readyz?verbose&brief", admin=True)[2]
    assert server.get("/livez").text == "no such behaviour\n"
