"""What a test costs with the harness, beside the clients that it takes the place of. Figures, never a verdict.

    python tests/bench/harness.py            all
    python tests/bench/harness.py suites     the published sample suites, with our client and with their own
    python tests/bench/harness.py first      the time from the beginning of a test to its first response (TH3)
    python tests/bench/harness.py pytest     the same in a run of pytest, with all that its fixtures do

``suites`` runs each suite twice with pytest, and prints the seconds that pytest reports: Flask's tutorial, FastAPI's examples, Starlette's CORS tests
(``tests/testing/test_sample_suites.py`` has them, and fetches them once).

``pytest`` has a suite of tests with one request each, by ``passenger_client`` and by ``live_app.get``, with the plugin's defaults: timeline, lint, leaks.
A test begins with pytest's set-up of it, before any fixture.

``first`` has a warm preloader and is the median of many tests with one request each, in milliseconds: the harness with an application by name and
with an object of the test, Starlette's ``TestClient``, and servers in a thread as the ``live_server`` of pytest-django (Django's ``LiveServerThread``) and
of pytest-flask (``werkzeug.serving.make_server``) start them. Those two start once a session; a thread for each test is what it would cost them to be
as fresh as ours, which is a process.

On a busy machine look at the least figure, or run ``perf stat -e instructions:u`` around it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "testing"), str(HERE.parent), str(HERE.parent / "faces")]
ROUNDS = 30
SHOP = "from flask import Flask\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n    return 'hello'\n"


CONFTEST = """
import statistics, time, pytest
figures = {}

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.begun = time.perf_counter()

@pytest.fixture
def answered(request):
    took = figures.setdefault(request.node.originalname, [])
    return lambda: took.append((time.perf_counter() - request.node.begun) * 1000)

def pytest_sessionfinish():
    for name, took in figures.items():
        first, *others = took
        print(f"\\nfigure: {name:45} first response {statistics.median(others):6.1f} ms (least {min(others):.1f}), of the first test {first:.0f}")
"""
TESTS = """
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

def index(request):
    return PlainTextResponse("hello")

here = Starlette(routes=[Route("/", index)])
many = pytest.mark.parametrize("number", range(31))
named, made = pytest.mark.passenger("shop:app"), pytest.mark.passenger(here)

@many
@named
def test_by_name(number, live_app, answered):
    assert live_app.get("/").text == "hello"
    answered()

@many
@named
def test_by_name_with_httpx(number, passenger_client, answered):
    assert passenger_client.get("/").text == "hello"
    answered()

@many
@made
def test_object_of_the_test(number, live_app, answered):
    assert live_app.get("/").text == "hello"
    answered()

@many
@made
def test_object_of_the_test_with_httpx(number, passenger_client, answered):
    assert passenger_client.get("/").text == "hello"
    answered()
"""


def in_pytest() -> None:
    from test_plugin import PYTEST

    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for name, text in (("shop.py", SHOP), ("conftest.py", CONFTEST), ("test_first.py", TESTS)):
            (place / name).write_text(text)
        command = [*PYTEST, "-q", "-s", "--rootdir", directory, "test_first.py"]
        result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        figures = re.findall(r"^figure: (.*)$", result.stdout, re.MULTILINE)
        print("\n".join(figures) if len(figures) == 4 else result.stdout + result.stderr, flush=True)


def suites() -> None:
    from test_plugin import PYTEST
    from test_sample_suites import SUITES, source

    for suite in SUITES:
        for name, conftest in (("harness", suite.conftest), ("its own client", "")):
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory)
                for part in suite.parts:
                    target = part if part.startswith("docs") else Path(part).name
                    shutil.copytree(source(suite.package) / part, place / target)
                (place / "conftest.py").write_text(conftest)
                choice = ("-k", "asyncio") if suite.package == "starlette" else ()
                command = [*PYTEST, "-q", "-W", "ignore", "-p", "no:trio", *choice, *suite.tests]
                result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
                last = result.stdout.strip().splitlines()[-1].strip("= ")
                count = sum(int(number) for number in re.findall(r"(\d+) (?:passed|failed)", last))
                print(f"{suite.package:10} {name:15} {count} tests: {last}", flush=True)


def first() -> None:
    from test_first_response import application

    from passenger_trio.testing.forked_processes import ForkedProcesses
    from passenger_trio.testing.live_app import LiveApp, options_for_object
    from passenger_trio.testing.run_directory import HOME, temporary_directory
    from passenger_trio.testing.servers import Servers

    place = temporary_directory("bench-")
    (place / "shop.py").write_text(SHOP)
    with Servers({}, lambda: temporary_directory(HOME)) as servers:

        def named() -> tuple[str, Callable[[], object]]:
            live_app = LiveApp.of(servers.get({"root": str(place), "target": "shop:app"}, {}))
            live_app.begin()
            return live_app.get("/").text, live_app.end

        def made() -> tuple[str, Callable[[], object]]:
            server = servers.get_for_object(
                lambda socket: options_for_object(application, place, socket, {}), ("bench",)
            )
            live_app = LiveApp.of(server)
            live_app.begin(partial(ForkedProcesses, application, "asgi", server.home / "p", {}))
            return live_app.get("/").text, live_app.end

        show("harness, an application by name (Flask)", named)
        show("harness, an object of the test (Starlette)", made)
    show("Starlette's TestClient", of_starlette)
    show("pytest-flask's live_server, one a test", of_flask)
    show("pytest-django's live_server, one a test", of_django())


def show(name: str, begin: Callable[[], tuple[str, Callable[[], object]]]) -> None:
    answered, whole = [], []
    for number in range(ROUNDS + 1):
        begun = time.perf_counter()
        text, end = begin()
        done = time.perf_counter()
        assert text == "hello", text
        end()
        if number:
            answered.append((done - begun) * 1000)
            whole.append((time.perf_counter() - begun) * 1000)
    print(
        f"{name:45} first response {statistics.median(answered):6.1f} ms (least {min(answered):.1f}),"
        f" whole test {statistics.median(whole):6.1f} ms (least {min(whole):.1f})",
        flush=True,
    )


def of_starlette() -> tuple[str, Callable[[], object]]:
    from starlette.testclient import TestClient
    from test_first_response import application

    client = TestClient(application)
    client.__enter__()
    return client.get("/").text, lambda: client.__exit__(None, None, None)


def of_flask() -> tuple[str, Callable[[], object]]:
    import flask
    from werkzeug.serving import make_server

    app = flask.Flask("shop")
    app.add_url_rule("/", view_func=lambda: "hello")
    server: Any = make_server("127.0.0.1", 0, app, threaded=True)
    server.log = server.RequestHandlerClass.log = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def end() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return fetch(server.port), end


def of_django() -> Callable[[], tuple[str, Callable[[], object]]]:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.test.testcases import LiveServerThread
    from django.urls import path

    def index(request: HttpRequest) -> HttpResponse:
        return HttpResponse("hello")

    urls: Any = type(sys)("bench_urls")
    urls.urlpatterns = [path("", index)]
    sys.modules["bench_urls"] = urls
    settings.configure(ROOT_URLCONF="bench_urls", ALLOWED_HOSTS=["*"], DEBUG=False, STATIC_URL="/static/")
    django.setup()

    class Plain(WSGIHandler):
        """In place of the handler for static files."""

        def __init__(self, inner: object) -> None:
            super().__init__()

    def begin() -> tuple[str, Callable[[], object]]:
        thread: Any = LiveServerThread("127.0.0.1", Plain, connections_override={})
        thread.daemon = True
        thread.start()
        thread.is_ready.wait()
        if thread.error:
            raise thread.error
        return fetch(thread.port), thread.terminate

    return begin


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as response:
        text: str = response.read().decode()
    return text


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["suites", "pytest", "first"]
    if "first" in wanted:
        first()
    if "pytest" in wanted:
        in_pytest()
    if "suites" in wanted:
        suites()
