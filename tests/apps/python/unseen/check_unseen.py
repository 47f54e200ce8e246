"""Five bugs that an in-process client does not see: each once with the framework's own client, and once on a server.

    pytest check_unseen.py

``test_NAME_in_process`` passes. ``test_NAME_live`` fails, and that is the point: what it says is true of the server
in production.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import django_progress
import fastapi_items
import flask_report
import pytest
import starlette_report
from django.test import Client
from fastapi.testclient import TestClient

BAR = {"id": "bar", "title": "Bar"}


# Buffering: under ASGI, Django collects a plain generator before it sends any of it.


def progress_is_seen(lines, gate):
    assert next(lines).strip() == "started"
    gate.touch()
    assert next(lines).strip() == "done"


def test_buffering_in_process(tmp_path):
    response = Client().get("/progress", {"gate": tmp_path / "gate"})
    progress_is_seen((line.decode() for line in response.streaming_content), tmp_path / "gate")


@pytest.mark.passenger("django_progress:application")
@pytest.mark.passenger_allow_log("must consume synchronous iterators")
def test_buffering_live(passenger_client, tmp_path):
    with passenger_client.stream("GET", "/progress", params={"gate": str(tmp_path / "gate")}) as response:
        progress_is_seen(response.iter_lines(), tmp_path / "gate")


# Disconnects: behind any BaseHTTPMiddleware, Starlette's request.is_disconnected() is never true.


def test_disconnect_in_process():
    assert TestClient(starlette_report.wrapped).get("/report").text == "the report"


def the_report_stops(live_app, passenger_log, faults):
    with faults.hold(path="/report") as begun, live_app.connect() as reader:
        reader.send(b"GET /report HTTP/1.1\r\nHost: a\r\n\r\n")
        begun.wait_fired()
    assert passenger_log.wait("stopped|computed") == "stopped: the reader has left"


@pytest.mark.passenger("starlette_report:plain")
def test_disconnect_live_without_middleware(live_app, passenger_log, faults):
    the_report_stops(live_app, passenger_log, faults)


@pytest.mark.passenger("starlette_report:wrapped")
def test_disconnect_live(live_app, passenger_log, faults):
    the_report_stops(live_app, passenger_log, faults)


# Concurrency: what one process keeps in a dict, the other does not have.


def test_concurrency_in_process():
    client = TestClient(fastapi_items.app)
    assert client.post("/items/", json=BAR).status_code == 200
    assert client.get("/items/bar").status_code == 200


@pytest.mark.passenger("fastapi_items:app", max_pool_size=2, max_concurrent_requests_per_process=1)
def test_concurrency_live(live_app, passenger_client, faults):
    assert passenger_client.post("/items/", json=BAR).status_code == 200
    with faults.hold(path="/items/bar") as busy, ThreadPoolExecutor() as pool:
        one = pool.submit(live_app.get, "/items/bar")
        busy.wait_fired()
        other = live_app.get("/items/bar")
        busy.release()
        assert {one.result().status, other.status} == {200}


# Process death: a background task is lost with its process, and the client was told that it was done.


def is_notified(client):
    Path("log.txt").unlink(missing_ok=True)
    assert client.post("/send-notification/a@example.com").status_code == 200
    assert Path("log.txt").exists()


def test_process_death_in_process():
    is_notified(TestClient(fastapi_items.app))


@pytest.mark.passenger("fastapi_items:app")
def test_process_death_live(passenger_client, faults):
    with faults.kill(at="after_end"):
        is_notified(passenger_client)


# Encodings: a header is latin-1 on the wire. Werkzeug's client never encodes it.


def the_name_is_kept(response):
    assert response.status_code == 200
    assert response.headers["Content-Disposition"].endswith('"日本.txt"')


def test_encoding_in_process():
    the_name_is_kept(flask_report.app.test_client().get("/report", query_string={"name": "日本"}))


@pytest.mark.passenger("flask_report:app")
@pytest.mark.passenger_allow_log("a character that HTTP cannot carry")
def test_encoding_live(passenger_client):
    the_name_is_kept(passenger_client.get("/report", params={"name": "日本"}))
