"""TH3: the time from the beginning of a test to its first response, beside clients in the same process. A figure, not a verdict: the machine may be busy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from passenger_trio.testing.forked_processes import ForkedProcesses
from passenger_trio.testing.live_app import LiveApp, options_for_object
from passenger_trio.testing.servers import Servers

pytestmark = pytest.mark.os

ROUNDS = 10
APP = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return "hello"
"""


async def index(request: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


application = Starlette(routes=[Route("/", index)])


def times(begin: Callable[[], LiveApp]) -> str:
    """Milliseconds, the median of rounds with a warm preloader; each is a test with one request."""
    first, whole = [], []
    for number in range(ROUNDS + 1):
        begun = time.perf_counter()
        live_app = begin()
        assert live_app.get("/").body == b"hello"
        answered = time.perf_counter()
        assert live_app.end() == []
        if number:
            first.append((answered - begun) * 1000)
            whole.append((time.perf_counter() - begun) * 1000)
    return f"first response after {statistics.median(first):.0f} ms (at best {min(first):.0f}), whole test {statistics.median(whole):.0f} ms"


def test_TH3_times_beside_clients_in_the_same_process(
    tmp_path: Path, record_property: Callable[[str, object], None], passenger_server: Servers
) -> None:
    (tmp_path / "shop.py").write_text(APP)

    def named() -> LiveApp:
        live_app = LiveApp.of(passenger_server.get({"root": str(tmp_path), "target": "shop:app"}, {}))
        live_app.begin()
        return live_app

    def made() -> LiveApp:
        server = passenger_server.get_for_object(
            lambda socket: options_for_object(application, tmp_path, socket, {}), ("times",)
        )
        live_app = LiveApp.of(server)
        live_app.begin(lambda: ForkedProcesses(application, "asgi", server.home / "p", {}))
        return live_app

    in_process = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with TestClient(application) as client:
            assert client.get("/").text == "hello"
        in_process.append((time.perf_counter() - begun) * 1000)
    record_property("figure", f"harness, Flask by name: {times(named)}")
    record_property("figure", f"harness, Starlette object of the test: {times(made)}")
    record_property("figure", f"Starlette's TestClient: whole test {statistics.median(in_process):.0f} ms")
