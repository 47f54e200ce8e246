"""The server inside other people's Trio programs: a real run with real processes and the real clock, and nothing left of it in the program that goes on."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from faces_tools import APPS, BEHAVIOURS, HELLO, gate, write_app

import passenger_trio
from passenger_trio import AppOptions, Config, PassengerError, PoolOptions, RunningServer, ServerOptions
from passenger_trio.admin.client import fetch_status
from passenger_trio.errors import BindError, NothingToServe, OptionError, StartupAborted
from passenger_trio.events import Event, ProcessAttached, ProcessDetached, ProcessExited
from passenger_trio.system.children import descendants
from passenger_trio.testing import RawClient, Response, eventually

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("runtime")]

METHODS = pytest.mark.parametrize("method", ["smart", "direct"])


def config(
    root: Path = BEHAVIOURS, *, server: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **app: Any
) -> Config:
    return Config(
        server=ServerOptions(**{"port": 0, "access_log": "off", **(server or {})}),
        pool=PoolOptions(**(pool or {})),
        apps=(AppOptions(**{"root": str(root), **app}),),
    )


async def get(server: RunningServer, path: str = "/pid") -> Response:
    """From a thread: the client is as foreign to the server as any."""
    parts = urlsplit(server.addresses[0])
    assert parts.hostname is not None
    assert parts.port is not None

    def talk() -> Response:
        with RawClient((str(parts.hostname), int(parts.port or 0))) as client:
            return client.get(path)

    return await trio.to_thread.run_sync(talk, abandon_on_cancel=True)


def belongings() -> dict[str, object]:
    """What a server could leave in the program that embedded it."""
    gc.collect()
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(link))
        except FileNotFoundError:
            continue  # the descriptor of this very look
    return {
        "descriptors": sorted(link for link in links if not link.endswith("/fd")),
        "processes": descendants(os.getpid()),
        "signal handlers": [
            signal.getsignal(number)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE)
        ],
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "umask": _umask(),
        "log handlers": list(logging.getLogger("passenger_trio").handlers),
        "instances": sorted(os.listdir(os.environ["XDG_RUNTIME_DIR"] + "/passenger-trio")),
    }


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


@contextmanager
def nothing_left() -> Iterator[None]:
    # Threads of Trio's cache live on for a while, and hold nothing.
    before = belongings()
    yield
    assert belongings() == before


def test_events_of_a_real_server() -> None:
    """OB7: the same facts as those of the admin API's stream, as values."""
    heard: list[Event] = []

    async def program() -> None:
        async with passenger_trio.open_server(config()) as server:
            told = server.events()
            (process,) = server.pool.processes.values()
            os.kill(process.live.pid, signal.SIGKILL)
            async for event in told:
                heard.append(event)
                if isinstance(event, ProcessAttached):
                    break
            later = server.events()
        heard.extend([event async for event in later])

    trio.run(program)
    kinds = [type(event) for event in heard]
    assert kinds[:2] == [ProcessExited, ProcessAttached]
    assert kinds[2:] == [ProcessDetached, ProcessExited], "and what happened at the end is heard after it"


BLOCKS_OWN = [ValueError("mine"), KeyboardInterrupt("mine"), SystemExit(3), BaseExceptionGroup("mine", [SystemExit(3)])]


@pytest.mark.parametrize("error", BLOCKS_OWN, ids=lambda error: type(error).__name__)
def test_whatever_the_block_raises_comes_out_as_it_is(error: BaseException) -> None:
    """Fault 35, LI1: KeyboardInterrupt and SystemExit, too, and in no group that the block did not make."""
    caught: list[BaseException] = []

    async def program() -> None:
        try:
            async with passenger_trio.open_server(config()):
                raise error
        except BaseException as exc:  # noqa: BLE001  the test's own, looked at below
            caught.append(exc)

    with nothing_left():
        trio.run(program)
    assert caught == [error]
    assert caught[0] is error


class TestOpenServer:
    @METHODS
    def test_serves_for_as_long_as_the_block_lasts(self, method: str) -> None:
        async def program() -> None:
            async with passenger_trio.open_server(config(spawn_method=method, min_instances=2)) as server:
                assert (await get(server)).status == 200
                status = await trio.to_thread.run_sync(fetch_status, server.admin_socket)
                assert len(status["groups"][0]["processes"]) == 2
            with pytest.raises(OSError):
                await get(server)

        async def twice() -> None:
            for _ in range(2):
                with nothing_left():
                    await program()

        trio.run(program)  # what is imported on first use stays
        with nothing_left():
            trio.run(program)
        trio.run(twice)

    def test_an_exception_of_the_block_comes_out_as_it_is_and_ends_everything_at_once(self) -> None:
        """It waits for no request, and not for a process that will not go."""

        class Mine(Exception):
            pass

        async def breaks(path: str) -> None:
            async with passenger_trio.open_server(config(env=(("GATE", path),))) as server:
                with RawClient(_address(server)) as client:
                    client.send(b"GET /ignore-term HTTP/1.1\r\nHost: x\r\n\r\n")
                    await trio.to_thread.run_sync(it.wait_arrival)
                    raise Mine

        with gate() as it, nothing_left():
            with pytest.raises(Mine) as caught:
                trio.run(breaks, it.path)
            del caught
            it.open()

    @METHODS
    def test_cancelled_it_ends_at_once(self, method: str) -> None:
        async def program() -> None:
            with gate() as it, nothing_left():
                with trio.CancelScope() as scope:
                    async with passenger_trio.open_server(
                        config(spawn_method=method, env=(("GATE", it.path),))
                    ) as server:
                        with RawClient(_address(server)) as client:
                            client.send(b"GET /ignore-term HTTP/1.1\r\nHost: x\r\n\r\n")
                            await trio.to_thread.run_sync(it.wait_arrival)
                            scope.cancel()
                            await trio.sleep_forever()
                assert scope.cancelled_caught
                it.open()

        trio.run(program)

    @METHODS
    def test_cancelled_while_it_starts(self, method: str, tmp_path: Path) -> None:
        root = write_app(
            tmp_path / "app", f"open({str(tmp_path / 'begun')!r}, 'w').close()\nimport time; time.sleep(600)\n" + HELLO
        )

        async def program() -> None:
            with nothing_left():
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(passenger_trio.serve, config(root, spawn_method=method))
                        await trio.to_thread.run_sync(eventually, (tmp_path / "begun").exists)
                        scope.cancel()
                assert scope.cancelled_caught

        trio.run(program)

    def test_cancelled_at_any_step_of_its_life(self, tmp_path: Path) -> None:
        """The deadline walks through the start, the serving and the drain."""
        root = write_app(tmp_path / "app")

        async def program() -> None:
            for milliseconds in (1, 3, 10, 20, 40, 60, 80, 100, 120, 150, 180):
                with nothing_left():
                    with trio.move_on_after(milliseconds / 1000):
                        async with passenger_trio.open_server(config(root, min_instances=2)) as server:
                            await get(server)

        trio.run(program)

    def test_a_process_that_takes_no_notice_is_killed_when_the_block_is_left(self) -> None:
        async def program() -> None:
            with gate() as it, nothing_left():
                options = config(env=(("GATE", it.path),), shutdown_timeout=0.2, server={"shutdown_timeout": 0.2})
                async with passenger_trio.open_server(options) as server:
                    client = RawClient(_address(server))
                    client.send(b"GET /ignore-term HTTP/1.1\r\nHost: x\r\n\r\n")
                    await trio.to_thread.run_sync(it.wait_arrival)
                client.close()
                it.open()

        trio.run(program)


class TestServe:
    def test_start_gives_the_running_server_and_stop_drains_it(self) -> None:
        async def program() -> None:
            with nothing_left():
                async with trio.open_nursery() as nursery:
                    server = await nursery.start(passenger_trio.serve, config())
                    assert isinstance(server, RunningServer)
                    assert (await get(server)).status == 200
                    server.stop()

        trio.run(program)

    def test_two_servers_in_one_program(self, tmp_path: Path) -> None:
        root = write_app(tmp_path / "other")

        async def program() -> None:
            with nothing_left():
                async with trio.open_nursery() as nursery:
                    first = await nursery.start(passenger_trio.serve, config())
                    second = await nursery.start(passenger_trio.serve, config(root))
                    assert first.addresses != second.addresses
                    assert (await get(first)).body.isdigit()
                    assert (await get(second)).body == b"hello"
                    first.stop()
                    assert (await get(second)).body == b"hello"
                    second.stop()

        trio.run(program)

    def test_two_applications_of_one_server_share_its_pool_and_not_their_variables(self, tmp_path: Path) -> None:
        async def program() -> None:
            two = Config(
                server=ServerOptions(port=0, access_log="off"),
                pool=PoolOptions(max_pool_size=2),
                apps=(
                    AppOptions(
                        root=str(BEHAVIOURS), name="a", base_uri="/a", env=(("SECRET_OF_A", "the-secret-of-a"),)
                    ),
                    AppOptions(
                        root=str(BEHAVIOURS), name="b", base_uri="/b", env=(("SECRET_OF_B", "the-secret-of-b"),)
                    ),
                ),
            )
            with nothing_left():
                async with passenger_trio.open_server(two) as server:
                    of_a, of_b = (await get(server, "/a/env")).text, (await get(server, "/b/env")).text
                    assert "the-secret-of-a" in of_a
                    assert "the-secret-of-b" not in of_a
                    assert "the-secret-of-b" in of_b
                    assert "the-secret-of-a" not in of_b
                    assert (await get(server, "/c/env")).status == 404
                    assert (await get(server, "/a/pid")).body != (await get(server, "/b/pid")).body

        trio.run(program)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"root": Path("/nowhere/at/all")}, NothingToServe),
            ({"server": {"address": "192.0.2.1"}}, BindError),
            ({"server": {"access_log": "/nowhere/at/all"}}, OptionError),
            ({"server": {"trusted_proxies": ("somebody",)}}, OptionError),
            ({"server": {"instance_dir": "/nowhere/at/all"}}, OptionError),
            ({"server": {"port": 70000}}, OptionError),
            ({"server": {"port": "80"}}, OptionError),
            ({"server": {"header_timeout": -1.0}}, OptionError),
            ({"server": {"header_timeout": 0.0}}, OptionError),
            ({"server": {"access_log_format": "odd"}}, OptionError),
            ({"thread_count": 0}, OptionError),
            ({"min_instances": 50}, OptionError),
            ({"spawn_method": "odd"}, OptionError),
            ({"app_type": "odd"}, OptionError),
            ({"base_uri": "shop"}, OptionError),
            ({"python": "/nowhere/python"}, OptionError),
        ],
    )
    def test_what_cannot_be_begun_is_one_plain_error_and_leaves_nothing(
        self, change: dict[str, Any], error: type[PassengerError]
    ) -> None:
        async def program() -> None:
            with nothing_left():
                with pytest.raises(error) as caught:
                    async with passenger_trio.open_server(config(**change)):
                        raise AssertionError("it was begun")
            text = str(caught.value)
            assert not re.search(r"--[a-z]|(?<![\w-])-[a-zA-Z]\b|passenger-trio", text), (
                f"LI8: the command line's words: {text}"
            )
            with nothing_left():
                async with trio.open_nursery() as nursery:
                    with pytest.raises(error):
                        await nursery.start(passenger_trio.serve, config(**change))

        trio.run(program)

    @pytest.mark.parametrize(
        ("apps", "error", "part"),
        [
            ((), NothingToServe, "no application"),
            ((AppOptions(root=str(BEHAVIOURS)),) * 2, OptionError, "another application has it"),
            (
                (AppOptions(root=str(BEHAVIOURS), name="a"), AppOptions(root=str(BEHAVIOURS), name="b")),
                OptionError,
                "another application is mounted at any host/",
            ),
            ((AppOptions(root=str(BEHAVIOURS), host_name="example.com"),), OptionError, "host_name: 'example.com'"),  # type: ignore[arg-type]
            ((AppOptions(root=str(BEHAVIOURS), env={"A": "1"}),), OptionError, "env"),  # type: ignore[arg-type]
        ],
    )
    def test_applications_that_cannot_be_served_together(
        self, apps: tuple[AppOptions, ...], error: type[PassengerError], part: str
    ) -> None:
        async def program() -> None:
            with nothing_left():
                with pytest.raises(error, match=re.escape(part)):
                    async with passenger_trio.open_server(Config(server=ServerOptions(port=0), apps=apps)):
                        raise AssertionError("it was begun")

        trio.run(program)

    @METHODS
    def test_an_application_that_does_not_start_can_be_fatal(self, method: str, tmp_path: Path) -> None:
        root = write_app(tmp_path / "app", HELLO + "\nraise ValueError('the moon is full')\n")

        async def program() -> None:
            with nothing_left():
                with pytest.raises(StartupAborted) as caught:
                    async with passenger_trio.open_server(
                        config(root, spawn_method=method, server={"abort_on_startup_error": True})
                    ):
                        raise AssertionError("it was begun")
                assert "the moon is full" in caught.value.failure.traceback

        trio.run(program)


class TestTheProgramAroundIt:
    def test_its_children_are_its_own(self) -> None:
        """LI8: the library kills and reaps what it has started, and nothing else."""

        async def program() -> None:
            sleeper = await trio.lowlevel.open_process(["sleep", "600"])
            async with passenger_trio.open_server(config()) as server:
                assert (await get(server)).status == 200
                assert (await trio.run_process(["false"], check=False)).returncode == 1
            assert sleeper.poll() is None
            sleeper.terminate()
            assert await sleeper.wait() == -signal.SIGTERM

        trio.run(program)

    def test_in_a_thread_that_is_not_the_main_one(self) -> None:
        """No signal handler, no child watcher: nothing needs the main thread."""
        results: list[object] = []

        async def program() -> None:
            async with passenger_trio.open_server(config(min_instances=2)) as server:
                results.append((await get(server)).status)

        def run() -> None:
            try:
                trio.run(program)
            except BaseException as error:  # noqa: BLE001  it is the result
                results.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)
        assert results == [200]

    def test_the_example_of_the_documents(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its program as it stands there, but for the minute that it sleeps."""
        page = (APPS.parent.parent.parent / "docs" / "embedding.md").read_text()
        [source] = [block.partition("```")[0] for block in page.split("```python\n")[1:] if "trio.run(main)" in block]
        monkeypatch.chdir(APPS.parent.parent.parent)
        assert "await trio.sleep(60)" in source
        with nothing_left():
            exec(
                compile(source.replace("await trio.sleep(60)", "pass"), "embedding.md", "exec"), {"__name__": "readme"}
            )
        assert "http://127.0.0.1:" in capsys.readouterr().out


class TestAFaultOfOurs:
    """F13 and F14: what is left when there is a bug in the supervisor itself."""

    def test_in_one_connection_costs_that_connection(self, caplog: pytest.LogCaptureFixture) -> None:
        class Exploding:
            """An access log that fails for one path."""

            def record(self, record: Any) -> None:
                if record.target == b"/pid?bug":
                    raise ZeroDivisionError("planted")

        async def program() -> None:
            with nothing_left():
                async with passenger_trio.open_server(config()) as server:
                    server.front.access_log = Exploding()  # type: ignore[assignment]
                    with RawClient(_address(server)) as other:
                        assert (await trio.to_thread.run_sync(other.get, "/pid")).status == 200
                        with RawClient(_address(server)) as unlucky:
                            unlucky.send(b"GET /pid?bug HTTP/1.1\r\nHost: x\r\n\r\n")
                            await trio.to_thread.run_sync(unlucky.receive_all)
                        assert (await trio.to_thread.run_sync(other.get, "/pid")).status == 200
                    assert (await get(server)).status == 200

        trio.run(program)
        assert "ZeroDivisionError" in caplog.text


def _address(server: RunningServer) -> tuple[str, int]:
    parts = urlsplit(server.addresses[0])
    return str(parts.hostname), int(parts.port or 0)


def test_LI9_every_public_name_is_on_the_page_and_there_are_few() -> None:
    page = (APPS.parent.parent.parent / "docs" / "embedding.md").read_text()
    table = page.partition("## Public names")[2].partition("## As a test harness")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))))
    public = set(passenger_trio.__all__) - {"__version__"}
    assert named == public
    assert len(public) <= 20
    assert all(getattr(passenger_trio, name).__doc__ for name in public)
