"""The pool without a server, a server in a thread, and the example programs (LI5, LI6)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from faces_tools import BEHAVIOURS, HELLO, gate, write_app
from test_library_face import config, nothing_left

import passenger_trio
from passenger_trio.errors import (
    ApplicationRaised,
    BindError,
    IncompleteResponse,
    NothingToServe,
    NotPossible,
    PoolShutDown,
    RequestQueueFull,
    RequestTimeExceeded,
    SpawnError,
)
from passenger_trio.testing import RawClient, Response

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("runtime")]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DOES_JOBS = """
import os
def application(environ, start_response):
    job = environ["wsgi.input"].read()
    if job == b"die" and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), 9)
    if job == b"raise":
        raise ValueError("no such job")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [job.upper()]
"""


async def borrow(pool: passenger_trio.RunningPool) -> None:
    async with pool.checkout():
        pass


class TestAPoolWithoutAServer:
    def test_processes_are_borrowed_within_the_limits(self) -> None:
        """LI5."""

        async def program() -> None:
            options = config(pool={"max_pool_size": 2}, max_request_queue_size=1)
            async with passenger_trio.open_pool(options) as pool:
                async with pool.checkout() as process:
                    for _ in range(2):  # one after another, in the same process
                        async with process.request("GET", "/pid") as response:
                            assert response.status == 200
                            assert await response.read() == str(process.pid).encode()
                    async with process.request("POST", "/echo", body=b"x" * 3_000_000) as response:
                        assert len(await response.read()) == 3_000_000
                    async with process.request("GET", "/environ?a", headers={"X-Mine": "yes"}) as response:
                        assert b'"HTTP_X_MINE": "yes"' in await response.read()
                async with pool.checkout() as first, pool.checkout() as second:
                    assert first.pid != second.pid
                    async with trio.open_nursery() as waiting:
                        waiting.start_soon(borrow, pool)
                        await trio.testing.wait_all_tasks_blocked()
                        assert pool.statistics().groups[0].queue_length == 1
                        with pytest.raises(RequestQueueFull):
                            await borrow(pool)
                        waiting.cancel_scope.cancel()
                    assert pool.statistics().groups[0].queue_length == 0, "a cancelled wait leaves the queue"
                async with pool.checkout() as process:
                    with pytest.raises(ApplicationRaised, match="raised on purpose"):
                        async with process.request("GET", "/raise"):
                            raise AssertionError("there is a response")
                    with pytest.raises(ZeroDivisionError):
                        async with pool.checkout():
                            raise ZeroDivisionError
            with pytest.raises(PoolShutDown):
                await borrow(pool)

        with nothing_left():
            trio.run(program)

    def test_what_goes_wrong_costs_one_loan(self) -> None:
        """LI5: recovery and restarts are as in a server."""

        async def program() -> None:
            with gate() as it:
                options = config(env=(("GATE", it.path),), pool={"max_pool_size": 1})
                async with passenger_trio.open_pool(options) as pool:

                    async def kill() -> None:
                        os.kill(await trio.to_thread.run_sync(it.wait_arrival), signal.SIGKILL)

                    async with pool.checkout() as process, trio.open_nursery() as killing:
                        killing.start_soon(kill)
                        dead = process.pid
                        with pytest.raises(IncompleteResponse):
                            async with process.request("GET", "/gate"):
                                raise AssertionError("there is a response")
                    async with pool.checkout() as process:  # another one
                        assert process.pid != dead
                        async with trio.open_nursery() as leaving:

                            async def leave() -> None:
                                await trio.to_thread.run_sync(it.wait_arrival)
                                leaving.cancel_scope.cancel()

                            leaving.start_soon(leave)
                            async with process.request("GET", "/gate"):
                                raise AssertionError("there is a response")
                        with pytest.raises(trio.BusyResourceError):
                            async with process.request("GET", "/pid"):
                                raise AssertionError("there is a response")
                    assert pool.app().processes[0].sessions == 1, "the process is still at it, and is not lent"
                    it.open()
                    async with pool.checkout() as process, process.request("GET", "/pid") as response:
                        assert int(await response.read()) == process.pid
                    await pool.app().wait_restarted(pool.app().restart())
                    async with pool.checkout() as process:
                        assert process.pid == pool.app().processes[0].pid

        with nothing_left():
            trio.run(program)

    def test_a_request_that_lasts_too_long_and_an_application_that_does_not_start(self, tmp_path: Path) -> None:
        root = write_app(tmp_path / "broken", HELLO + "\nraise ValueError('the moon is full')\n")

        async def program() -> None:
            async with passenger_trio.open_pool(config(max_request_time=0.3)) as pool, pool.checkout() as process:
                with pytest.raises(RequestTimeExceeded):
                    async with process.request("GET", "/nap?60000"):
                        raise AssertionError("there is a response")
            async with passenger_trio.open_pool(config(root)) as pool:
                with pytest.raises(SpawnError, match="the moon is full"):
                    await borrow(pool)
            with pytest.raises(NothingToServe):
                async with passenger_trio.open_pool(config(tmp_path)):
                    raise AssertionError("it was begun")

        with nothing_left():
            trio.run(program)

    def test_a_program_with_a_protocol_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "mirror.py").write_text(
            "import os, socket\ns = socket.socket(socket.AF_UNIX)\ns.bind(os.environ['SOCKET'])\ns.listen()\n"
            "while True:\n    c = s.accept()[0]\n    while data := c.recv(100): c.sendall(data[::-1])\n"
        )

        async def program() -> None:
            options = config(tmp_path, app_start_command=f"{sys.executable} mirror.py; : $SOCKET")
            async with passenger_trio.open_pool(options) as pool, pool.checkout() as process:
                stream = process.open_stream()
                await stream.send_all(b"abc")
                assert await stream.receive_some() == b"cba"

        with nothing_left():
            trio.run(program)


class TestAServerInAThread:
    def test_serves_while_the_block_runs_and_takes_calls(self) -> None:
        """LI6."""
        with nothing_left():
            with passenger_trio.run_in_thread(config()) as server:
                with RawClient(_address(server)) as client:
                    assert client.get("/pid").status == 200
                [process] = server.call(lambda running: running.app().processes)
                generation = server.call(lambda running: running.app().restart())
                server.wait(lambda running: running.app().wait_restarted(generation))
                assert server.call(lambda running: running.app().processes)[0].pid != process.pid
            with pytest.raises(NotPossible, match="the server has ended"):
                server.call(lambda running: running.addresses)
            assert [thread.name for thread in threading.enumerate() if thread.name == "passenger_trio"] == []

    def test_errors_of_both_come_out_as_they_are(self) -> None:
        with nothing_left():
            with pytest.raises(BindError), passenger_trio.run_in_thread(config(server={"address": "192.0.2.1"})):
                raise AssertionError("it was begun")
            with gate() as it:

                def interrupted() -> None:
                    with (
                        passenger_trio.run_in_thread(config(env=(("GATE", it.path),))) as server,
                        RawClient(_address(server)) as client,
                    ):
                        client.send(b"GET /ignore-term HTTP/1.1\r\nHost: x\r\n\r\n")
                        it.wait_arrival()
                        raise KeyboardInterrupt  # it waits for no request

                with pytest.raises(KeyboardInterrupt):
                    interrupted()

    def test_in_a_shell_that_reads_line_by_line(self) -> None:
        """LI6: as in a notebook: the block is entered by hand."""
        lines = f"""
import passenger_trio as p
it = p.run_in_thread(p.Config(server=p.ServerOptions(port=0, access_log="off"), apps=(p.AppOptions(root={str(BEHAVIOURS)!r}),)))
server = it.__enter__()
import urllib.request
urllib.request.urlopen(server.addresses[0] + "pid").status + 1000
it.__exit__(None, None, None)
"""
        done = subprocess.run(
            [sys.executable, "-i"], input=lines, capture_output=True, text=True, timeout=120, check=False
        )
        assert "1200" in done.stdout, done
        assert "Traceback" not in done.stderr


def _address(server: passenger_trio.ServerInThread) -> tuple[str, int]:
    return _at(server.addresses[0])


def _at(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])


class TestTheExamplePrograms:
    def test_a_queue_consumer(self, tmp_path: Path) -> None:
        """LI5: jobs are done in several processes; one that dies costs an attempt."""
        root = write_app(tmp_path / "jobs", DOES_JOBS)
        done = subprocess.run(
            [sys.executable, EXAMPLES / "queue_consumer.py", root],
            input="one\ndie\nraise\n" + "more\n" * 20,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers = done.stdout.splitlines()
        assert sorted(answers)[:2] == ["die: DIE", "more: MORE"]
        assert answers.count("more: MORE") == 20
        assert "raise: given up: the application raised ValueError: no such job" in answers

    def test_beside_asyncio(self) -> None:
        """LI6: Trio's guest mode."""
        done = subprocess.run(
            [sys.executable, EXAMPLES / "beside_asyncio.py", BEHAVIOURS / "../hello"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("HTTP/1.1 200 OK") == 3
        assert "Traceback" not in done.stderr

    def test_a_site_that_adds_and_removes_applications(self, tmp_path: Path) -> None:
        """LI2: a published framework's site (Quart-Trio, by Hypercorn) and the server are one Trio program."""
        root = write_app(tmp_path / "shop")
        with subprocess.Popen(
            [sys.executable, EXAMPLES / "quart_site.py", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as program:
            try:
                assert program.stdout is not None
                lines = {
                    line.partition(" at ")[0]: line.partition(" at ")[2].strip()
                    for line in (program.stdout.readline(), program.stdout.readline())
                }
                with RawClient(_at(lines["site"])) as site, RawClient(_at(lines["applications"])) as visitor:

                    def ask(method: str, target: str) -> Response:
                        site.send(
                            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
                        )
                        return site.read_response(method)

                    assert visitor.get("/").body == b"welcome\n"
                    added = ask("PUT", f"/apps/shop?root={root}")
                    assert (added.status, len(json.loads(added.body)["pids"])) == (201, 1)
                    assert visitor.get("/shop/").body == b"hello"
                    assert ask("GET", "/ask/shop/any/path").body == b"hello"
                    assert json.loads(ask("POST", "/apps/shop/restart").body)["pids"] != json.loads(added.body)["pids"]
                    assert set(json.loads(ask("GET", "/apps").body)["apps"]) == {"welcome", "shop"}
                    assert ask("DELETE", "/apps/shop").status == 204
                    assert visitor.get("/shop/").body == b"welcome\n"
                    assert ask("DELETE", "/apps/shop").status == 404
                    assert ask("PUT", "/apps/none?root=/nowhere").status == 422
            finally:
                program.terminate()
                errors = program.communicate(timeout=60)[1]
        assert "Traceback" not in errors
