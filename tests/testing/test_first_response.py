"""TH3: the time from the beginning of a test to its first response, beside clients in the same process. A figure, not a verdict: the machine may be busy.
What would be late in each test is a fact: imports, certificates, checks of the response.
"""

from __future__ import annotations

import ssl
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from test_plugin import run

from passenger_trio.testing.clients import async_client, http_client
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
        live_app.begin(partial(ForkedProcesses, application, "asgi", server.home / "p", {}))
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


FIRST = {
    "flask": """
import sys
from flask import Flask
inner = Flask(__name__)

@inner.get("/")
def index():
    return "hello"

def app(environ, start_response):
    before = set(sys.modules)
    b"".join(inner(environ, lambda *_: None))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(sorted(set(sys.modules) - before)).encode()]
""",
    "fastapi": """
import sys
from fastapi import FastAPI
inner = FastAPI()

@inner.get("/")
def index():  # in a thread
    return {}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return await inner(scope, receive, send)
    before = set(sys.modules)
    async def drop(message): ...
    await inner(scope, receive, drop)
    text = " ".join(sorted(set(sys.modules) - before)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})
""",
}


@pytest.mark.parametrize("framework", FIRST)
def test_TH3_a_forked_process_imports_nothing_with_its_first_request(
    framework: str, tmp_path: Path, passenger_factory: Callable[..., LiveApp]
) -> None:
    """Each test's process imported what Flask and FastAPI import late: 3 and 30 ms of processor time, and memory that was not shared."""
    (tmp_path / "first.py").write_text(FIRST[framework])
    assert passenger_factory(tmp_path, target="first:app").get("/").text == ""


@pytest.mark.parametrize("asynchronous", [False, True])
def test_TH3_a_client_on_a_unix_socket_reads_no_certificates(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """It read those of all authorities in each test: more processor time than the whole test."""
    read: list[str] = []

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: read.append("certificates"))
    (async_client if asynchronous else http_client)("/run/none", "http://localhost")
    assert read == []
    http_client(("localhost", 1), "http://localhost:1").close()
    assert read == ["certificates"], "where TLS is possible"


def test_TH3_TH5_a_response_is_checked_when_the_test_does_not_wait_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        bare="""
            def app(environ, start_response):
                start_response("302 Found", [("Content-Type", "text/plain")])
                return [b"x"]
        """,
        test_bare="""
            import sys
            import pytest

            @pytest.mark.passenger("bare:app")
            def test_it(live_app):
                assert live_app.get("/").status == 302
                assert "httplint" not in sys.modules
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*passenger-lint: GET /: *REDIRECT_WITHOUT_LOCATION*"])
