"""What an embedding program brings along: a spawner, callables at events, an access log, error pages (LI7)."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
import trio
from faces_tools import HELLO, write_app
from test_library_face import config, get, nothing_left

import passenger_trio
from passenger_trio import AppOptions, Extensions
from passenger_trio.errors import OptionError, SpawnError
from passenger_trio.events import Event
from passenger_trio.extensions import AccessRecord, FailedRequest, LiveProcess, Page, Spawner
from passenger_trio.testing import eventually

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("runtime")]


class Registers:
    """A spawner that wraps another, and writes down which processes it made: for a service registry."""

    made: list[int]

    def __init__(self, usual: Spawner, made: list[int]) -> None:
        self._usual = usual
        self.made = made

    async def spawn(self) -> LiveProcess:
        process = await self._usual.spawn()
        self.made.append(process.pid)
        return process

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._usual.serve(task_status=task_status)

    def __getattr__(self, name: str) -> object:
        return getattr(self._usual, name)


def test_each_point_of_extension_is_used(tmp_path: Path) -> None:
    """LI7."""
    root = write_app(tmp_path / "shop", HELLO + "\nimport os\nif os.path.exists('broken'): raise ValueError('moon')\n")
    made: list[int] = []
    heard: Counter[str] = Counter()
    records: list[AccessRecord] = []
    generations: list[int] = []

    def wrap(app: AppOptions, generation: int, usual: Spawner) -> Spawner:
        assert app.root == str(root)
        generations.append(generation)
        return Registers(usual, made)  # type: ignore[return-value]  # the rest by __getattr__

    def on_event(event: Event) -> None:
        heard[event.name] += 1
        if event.name == "spawn_failed":
            raise LookupError("a fault of the program's own")

    def page(request: FailedRequest) -> Page | None:
        assert (request.app, request.path) == ("shop", "/x")
        return Page(b"text/plain", f"sorry: {request.code}".encode()) if request.status == 500 else None

    extensions = Extensions(wrap_spawner=wrap, on_event=on_event, on_request=records.append, error_page=page)

    async def program() -> None:
        async with passenger_trio.open_server(config(root), extensions=extensions) as server:
            assert (await get(server, "/a?b")).text == "hello"
            assert made == [process.pid for process in server.app().processes]
            (root / "broken").touch()
            server.app().processes  # noqa: B018  what is there may be asked for at any time
            server.app().restart(hard=True)
            answer = await get(server, "/x")
            assert (answer.status, answer.text) == (500, "sorry: spawn_failed")
            assert generations == [1, 2]
            await trio.to_thread.run_sync(eventually, lambda: heard["process_exited"])
            assert [(record.target, record.status) for record in records] == [(b"/a?b", 200), (b"/x", 500)]
            assert server.front.kernel.faults["on_event"].last == "LookupError: a fault of the program's own"
        assert heard["process_attached"] == 1
        assert heard["process_exited"] == 1
        assert heard["spawn_failed"] >= 1

    with nothing_left():
        trio.run(program)


def test_a_program_that_fails_in_them_costs_what_they_were_called_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LI7, KE1."""
    root = write_app(tmp_path / "shop", HELLO)

    def fails(*_: object) -> None:
        raise LookupError("mine")

    async def program() -> None:
        broken = Extensions(on_request=fails, error_page=fails, on_event=fails)
        async with passenger_trio.open_server(config(root, max_instances=1), extensions=broken) as server:
            assert (await get(server)).status == 200
            await trio.to_thread.run_sync(eventually, lambda: "on_request" in server.front.kernel.faults)
            write_app(root, HELLO + "\nraise ValueError('moon')\n")
            server.app().restart(hard=True)
            assert "The application raised ValueError: moon" in (await get(server)).text
        async with passenger_trio.open_server(config(root), extensions=Extensions(wrap_spawner=fails)) as server:  # type: ignore[arg-type]
            with pytest.raises(SpawnError, match="could not make the spawner"):
                await server.app().wait_ready()
            assert (await get(server)).status == 500

    with nothing_left(), caplog.at_level(logging.ERROR):
        trio.run(program)
    assert "wrap_spawner failed (the application does not start): LookupError: mine" in caplog.text


def test_a_pool_without_a_server_takes_spawners_and_callables(tmp_path: Path) -> None:
    """LI5, LI7: as a server does. What is for clients is refused, and not left unused."""
    root = write_app(tmp_path / "shop", HELLO)
    made: list[int] = []
    heard: list[str] = []

    def wrap(app: AppOptions, generation: int, usual: Spawner) -> Spawner:
        return Registers(usual, made)  # type: ignore[return-value]  # the rest by __getattr__

    async def program() -> None:
        extensions = Extensions(wrap_spawner=wrap, on_event=lambda event: heard.append(event.name))
        async with passenger_trio.open_pool(config(root), extensions=extensions) as pool:
            async with pool.checkout() as process:
                assert made == [process.pid]
        assert "process_attached" in heard
        assert "process_exited" in heard
        for refused in (Extensions(on_request=lambda record: None), Extensions(error_page=lambda request: None)):
            with pytest.raises(OptionError, match="has no clients"):
                async with passenger_trio.open_pool(config(root), extensions=refused):
                    raise AssertionError("it was begun")

    with nothing_left():
        trio.run(program)
