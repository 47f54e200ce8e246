"""The pytest plugin, seen from a suite that uses it. A run of pytest is dear, so each checks many rows.

Starts the command: an instance that runs already (`--passenger-server`) is the subject.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from plugins_off import NOT_ASYNCHRONOUS, WITHOUT

from passenger_trio.testing import eventually
from passenger_trio.testing.opening import _address

pytestmark = [pytest.mark.os, pytest.mark.timeout(400)]

PLUGIN = "passenger_trio.testing.plugin"
LOAD = () if any(entry.value == PLUGIN for entry in entry_points(group="pytest11")) else ("-p", PLUGIN)
PYTEST = (sys.executable, "-m", "pytest", *LOAD, *WITHOUT, "-o", "addopts=", "--strict-markers", "-ra")

SHOP = """
import os, socket, subprocess, sys, threading, time
from flask import Flask, request

app = Flask(__name__)
served, kept = [], []

@app.get("/")
def index():
    served.append(1)
    return f"{len(served)} {os.getpid()}"

@app.get("/print")
def out():
    print("a word of the application")
    return os.environ.get("SHOP", "")

@app.get("/leak/<kind>")
def leak(kind):
    for _ in range(10):
        if kind == "descriptors":
            kept.append(open(__file__))
        if kind == "threads":
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    if kind == "processes":
        kept.append(subprocess.Popen(["sleep", "1000"], start_new_session=True))
    return kind

@app.get("/raise")
def fail():
    raise_in_response

@app.get("/hard")
def hard():
    os._exit(7)
"""

CHAT = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        if scope["path"] == "/no":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"asgi"})
"""


def run(pytester: pytest.Pytester, *arguments: str, asynchronous: bool = False) -> pytest.RunResult:
    """:param asynchronous: whether it has tests that are."""
    return pytester.run(*PYTEST, *(() if asynchronous else NOT_ASYNCHRONOUS), *arguments, timeout=300)


def test_fixtures_marks_and_options(pytester: pytest.Pytester) -> None:
    """TH1, TH2, TH3, TH9: what a suite can ask for. The sample suite is all green."""
    pytester.makeini("[pytest]\npassenger_app = shop:app\n")
    (pytester.path / "program").mkdir()
    (pytester.path / "program" / "server.py").write_text(PROGRAM)
    pytester.makepyfile(
        shop=SHOP,
        chat=CHAT,
        test_shop=r'''
            import os, subprocess, sys
            import pytest
            from flask import Flask

            here = Flask("here")
            word = "before"

            @here.get("/")
            def say():
                return word

            seen = set()

            @pytest.mark.parametrize("number", range(3))
            def test_each_test_has_a_fresh_process(passenger_client, live_app, number):
                count, pid = passenger_client.get("/").text.split()
                assert count == "1"
                assert live_app.pids == [int(pid)]
                assert pid not in seen
                seen.add(pid)
                assert passenger_client.get("/").text == f"2 {pid}"
                assert isinstance(live_app.address, str), "a Unix socket"

            def test_requests_of_bytes(passenger_raw):
                passenger_raw.send(b"GET / HTTP/1.1\r\nHo", b"st: a\r\n\r\n")
                assert passenger_raw.read_response().status == 200

            @pytest.mark.passenger(env={"SHOP": "shut"})
            def test_options_and_log(passenger_client, passenger_log):
                assert passenger_client.get("/print").text == "shut"
                passenger_log.wait("a word of the applica")
                assert passenger_log.output == ["a word of the application"]
                assert not any("a word" in event for event in passenger_log.events[:1])

            @pytest.mark.passenger("chat:app")
            def test_websockets(passenger_ws):
                from trio_websocket import ConnectionClosed, ConnectionRejected
                chat = passenger_ws("/")
                chat.send("hello")
                assert chat.receive() == "HELLO"
                with pytest.raises(ConnectionRejected):
                    passenger_ws("/no")
                chat.close()
                assert chat.closed.code == 1000

            @pytest.mark.passenger(here)
            def test_an_object_of_the_test_file_with_what_is_patched(monkeypatch, passenger_factory):
                from passenger_trio.testing import eventually
                first = passenger_factory()
                with first.connect() as client:
                    assert client.get("/").body == b"before"
                    monkeypatch.setattr(sys.modules[__name__], "word", "patched")
                    # The copy that is forked now keeps no copy of the connection, which would hold it open.
                    assert passenger_factory().get("/").body == b"patched"
                eventually(lambda: first.server.status()["connections"]["open"] == 0, 10)

            @pytest.fixture
            def made(tmp_path):
                async def app(scope, receive, send):
                    assert scope["type"] == "http"
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": str(tmp_path).encode()})
                return app

            def test_an_object_that_a_fixture_made(made, passenger_factory, tmp_path):
                assert passenger_factory(made).get("/").text == str(tmp_path)

            @pytest.mark.passenger_matrix("shop:app", "chat:app", here)
            def test_many_applications(passenger_client, request):
                assert passenger_client.get("/").status_code == 200

            @pytest.mark.passenger(app_start_command=f"{sys.executable} server.py")
            @pytest.mark.passenger_matrix("program")
            def test_of_a_program(passenger_client):
                assert passenger_client.get("/").text == "program"

            def test_two_at_a_time(live_app, passenger_factory):
                other = passenger_factory("chat:app")
                assert (live_app.get("/").body[:2], other.get("/").body) == (b"1 ", b"asgi")

            def test_a_restart_in_the_middle(live_app):
                before = live_app.pids
                live_app.restart()
                assert live_app.get("/").body.startswith(b"1 ")
                assert live_app.pids != before

            @pytest.mark.trio
            async def test_in_trio(live_app):
                import trio
                async with live_app.async_client() as client:
                    async with trio.open_nursery() as nursery:
                        for _ in range(3):
                            nursery.start_soon(client.get, "/")
                    assert (await client.get("/")).text.startswith("4 ")

            @pytest.mark.trio
            @pytest.mark.passenger("chat:app")
            async def test_a_websocket_in_trio(live_app):
                async with live_app.open_websocket("/") as chat:
                    await chat.send_message("trio")
                    assert await chat.get_message() == "TRIO"
        ''',
        test_anyio='''
            import pytest
            pytestmark = pytest.mark.anyio

            @pytest.fixture(params=["asyncio", "trio"])
            def anyio_backend(request):
                return request.param

            async def test_with_anyio(live_app):
                async with live_app.async_client() as client:
                    assert (await client.get("/")).text.startswith("1 ")
        ''',
        test_unit='''
            import os, unittest
            from passenger_trio.testing import PassengerTestCase

            class Shop(PassengerTestCase):
                app = "shop:app"
                options = {"env": {"SHOP": "unit"}}

                def test_one(self):
                    self.assertEqual(self.client.get("/print").text, "unit")

                def test_two(self):
                    self.assertTrue(self.client.get("/").text.startswith("1 "))
                    self.assertEqual(len(self.live_app.pids), 1)

            class Made(PassengerTestCase):
                def setUp(self):
                    self.app = lambda environ, start: (start("200 OK", []), [self.id().encode()])[1]
                    super().setUp()

                def test_object(self):
                    self.assertEqual(self.client.get("/").text, self.id())
        ''',
    )  # fmt: skip
    result = run(pytester, "test_shop.py", "test_anyio.py", "--passenger-keep", asynchronous=True)
    result.assert_outcomes(passed=18)
    result.stdout.fnmatch_lines(["passenger: configuration and log of a server are in *"])
    unit = subprocess.run([sys.executable, "-m", "unittest", "-v", "test_unit"], cwd=pytester.path, capture_output=True)
    assert unit.returncode == 0, unit.stderr.decode()
    assert b"Ran 3 tests" in unit.stderr


PROGRAM = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"program")

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_what_a_test_leaves_behind_fails_it(pytester: pytest.Pytester) -> None:
    """TH7, TH1: each planted leak, allowed and not. An application that does not start is explained."""
    pytester.makepyfile(
        shop=SHOP,
        broken="def app(environ, start_response): pass\n\nraise RuntimeError('a planted reason')",
        conftest="""
            def pytest_passenger_options(request, options):
                options["app_type"] = "wsgi"

            def pytest_passenger_start(live_app, request):
                live_app.found = []

            def pytest_passenger_end(live_app, request):
                return live_app.found
        """,
        test_leaks="""
            import os
            import pytest
            pytestmark = pytest.mark.passenger("shop:app")

            @pytest.mark.parametrize("kind", ["descriptors", "threads", "processes"])
            def test_bad(live_app, kind):
                live_app.get(f"/leak/{kind}")

            def test_bad_sockets(live_app):
                globals()["kept"] = live_app.connect()
                kept.get("/")

            def test_bad_log(live_app):
                with pytest.raises(Exception):
                    live_app.get("/hard").raise_for_status()

            @pytest.mark.passenger_allow_leak("descriptors")
            def test_good_descriptors(live_app):
                live_app.get("/leak/descriptors")

            @pytest.mark.passenger_allow_leak
            def test_good_processes(live_app):
                live_app.get("/leak/processes")
                live_app.get("/leak/threads")

            @pytest.mark.passenger_allow_log("closed the connection|end soon")
            def test_good_log(live_app):
                assert live_app.get("/hard").status == 502

            def test_good_after_a_crash(live_app):
                assert live_app.get("/").body.startswith(b"1 ")

            def test_bad_end_that_the_server_has_not_seen_yet(live_app):
                os.kill(live_app.pids[0], 9)

            def test_bad_finding(live_app):
                live_app.found.append("a planted finding")

            @pytest.mark.passenger("broken:app")
            def test_bad_start(live_app):
                raise AssertionError("it did not start")

            @pytest.mark.passenger("shop:app", no_such_option=1)
            def test_bad_option(live_app):
                raise AssertionError("it did not start")

            def test_bad_at_the_very_end(live_app):
                live_app.found.append("the session ends before this is shown")
        """,
    )
    result = run(pytester, "test_leaks.py")
    result.assert_outcomes(passed=12, errors=10)
    result.stdout.fnmatch_lines_random(
        [
            "*more open descriptors than before the test: */shop.py (10)*",
            "*the application has 10 more threads than before the test*",
            "*processes that the application started outlived it: * (sleep 1000)*",
            "*1 connections to the server are still open*",
            "*the log has lines of level error*",
            "*a planted finding*",
            "*the session ends before this is shown*",
            "*RuntimeError: a planted reason*",
            "*there is no option 'no_such_option'*",
        ]
    )
    good = [line for line in result.outlines if line.startswith("ERROR") and "test_good" in line]
    assert not good, good


@pytest.mark.parametrize(("number", "names"), [(signal.SIGKILL, "'shop:app', app"), (signal.SIGTERM, "app")])
def test_a_killed_run_leaves_nothing(pytester: pytest.Pytester, instance_dir: Path, number: int, names: str) -> None:
    """TH8: servers, preloaders and processes end, also those of application objects, also with a descriptor of pytest's elsewhere; and what they had on
    disk goes: homes of servers, links of faults and taps, evidence, the servers of drop-in clients.
    """
    pytester.makepyfile(
        shop=SHOP,
        test_shop=f"""
            import os, time
            from shop import app

            def test_waits(passenger_factory, live_app, faults):
                from passenger_trio.testing import Supervisor, process_wide
                pids = []
                slow = faults.slow_read(rate=1000)
                slow.__enter__()
                process_wide.serve("shop:app", {{}})
                server = Supervisor.start(".", "shop:app")
                pids += [server.pid, *server.pids]
                for name in [{names}]:
                    live = passenger_factory(name)
                    waits = live.server.preloader_pid or live._forked._copies[1][0]
                    pids += [live.server.pid, waits, *live.pids]
                open("pids", "w").write(" ".join(map(str, pids)) + " end")
                time.sleep(1000)
        """,
    )
    pids = pytester.path / "pids"
    environment = {**os.environ, "TMPDIR": str(instance_dir)}
    command = [*PYTEST, *NOT_ASYNCHRONOUS, "-s", "--basetemp", "own", "--passenger-app", "shop:app", "test_shop.py"]
    with subprocess.Popen(command, cwd=pytester.path, start_new_session=True, env=environment) as killed:
        eventually(lambda: pids.exists() and pids.read_text().endswith("end"), 200)
        made = {path.name.rpartition("-")[0] for path in instance_dir.glob("pt-run-*/*")}
        assert made >= {"home", "evidence", "link"}, made
        killed.send_signal(number)
    found = [int(word) for word in pids.read_text().split()[:-1]]
    assert len(found) == 2 + 3 * len(names.split(","))
    eventually(lambda: not [pid for pid in found if Path(f"/proc/{pid}/stat").exists() and not is_zombie(pid)], 30)
    eventually(lambda: not list(instance_dir.iterdir()), 30, f"{instance_dir} is empty")
    assert not (pytester.path / "own").exists(), "nothing of pytest's directory was needed"
    sockets = [path for path in Path(pytester.path).rglob("*") if path.is_socket()]
    assert not sockets


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_nothing_heavy_is_imported_by_a_run_that_does_not_use_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TH1: of this package the plugin and its parts, and no library."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            heavy = {"trio", "h11", "attrs", "attr", "httpx", "httpx2", "psutil", "trio_websocket", "asyncio"} & set(sys.modules)
            ours = sorted(name for name in sys.modules if name.startswith("passenger_trio"))
            assert not heavy and len(ours) < 12, (heavy, ours)
        """
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins import what they like
    result = pytester.run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-q", "-p", PLUGIN),
        timeout=100,
    )
    result.assert_outcomes(passed=1)


def test_workers_of_xdist_and_a_server_elsewhere(pytester: pytest.Pytester) -> None:
    """TH3, TH1: two workers with a server each; and a server that runs already."""
    pytester.makepyfile(
        shop=SHOP,
        test_shop="""
            import os, pytest
            pytestmark = pytest.mark.passenger("shop:app")

            @pytest.mark.parametrize("number", range(6))
            def test_fresh(passenger_client, number):
                assert passenger_client.get("/").text.startswith("1 ")
        """,
        test_elsewhere="""
            def test_elsewhere(passenger_client, passenger_raw):
                assert passenger_client.get("/").status_code == 200
                assert passenger_raw.get("/").status == 200
        """,
    )
    run(pytester, "-n", "2", "test_shop.py").assert_outcomes(passed=6)
    from passenger_trio.testing import Supervisor

    with Supervisor.start(pytester.path, "shop:app") as server:
        run(pytester, "--passenger-server", server.url, "test_elsewhere.py").assert_outcomes(passed=1)
        by_name = run(pytester, f"--passenger-server={server.instance_dir}", "test_elsewhere.py")
        by_name.assert_outcomes(passed=1)
        moved = run(pytester, "--passenger-server", str(server.instance_dir), "test_elsewhere.py")
        assert moved.ret == pytest.ExitCode.USAGE_ERROR
        moved.stderr.fnmatch_lines([f"*write --passenger-server={server.instance_dir}*looks for its rootdir there*"])
    with pytest.raises(pytest.UsageError, match="'no-such-one': no such instance of yours runs"):
        _address("no-such-one")


def test_TH1_a_function_as_only_argument_of_the_mark_is_an_error_that_says_what_to_write(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        wsgi="def app(environ, start_response):\n    return []\n",
        test_decorator="""
            import pytest
            from wsgi import app

            @pytest.mark.passenger(app)
            def test_one():
                pass
        """,
        test_module="""
            import pytest
            from wsgi import app as shop
            pytestmark = pytest.mark.passenger(shop)

            def test_two():
                pass
        """,
        test_silent="""
            import pytest

            def make(value=None):
                return object()

            @pytest.mark.passenger(make)
            def test_three():
                pass
        """,
        test_fine="""
            import pytest
            from flask import Flask
            app = Flask("app")

            class Shared:
                pytestmark = pytest.mark.usefixtures("tmp_path")  # one mark, and no list

            @pytest.mark.passenger
            class TestIt:
                @pytest.mark.passenger(app)
                def test_four(self):
                    pass
        """,
    )
    result = run(pytester)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines_random(
        [
            "*test_decorator.py: passenger(app) marks app itself*: write passenger(app=app)*",
            "*test_module.py: passenger(shop) marks shop itself*: write passenger(app=shop)*",
            "*test_silent.py: passenger(make) marks make itself*: write passenger(app=make)*",
            "*3 errors*",
        ]
    )
