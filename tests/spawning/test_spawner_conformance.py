"""What every spawner promises, the verified fake and the real ones alike: a process that serves, that is watched, that ends, and no trace."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from real_apps import HELLO, SOON, ask, command_spec, end, hello_spec, open_spawn_listener, wait_exit, written_spec

from passenger_trio.codecs.session_protocol import BODY_END
from passenger_trio.core.journey import StepState
from passenger_trio.core.model import ErrorCategory, GroupKey, ProcessId
from passenger_trio.errors import SpawnError
from passenger_trio.pool.process_keeper import Keeper
from passenger_trio.pool.session import Process
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner, dummy_failure
from passenger_trio.spawning.generic import GenericSpawner
from passenger_trio.spawning.smart_forking import SmartSpawner
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.spawning.spawner import LiveProcess, Spawner
from passenger_trio.system.ports import Ports
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.testing.conformance import ConformanceFailure
from passenger_trio.testing.spawners import check_spawner

KINDS = ["dummy", *(pytest.param(kind, marks=pytest.mark.os) for kind in ("direct", "smart", "generic"))]
every_spawner = pytest.mark.parametrize("kind", KINDS)


async def serve_hello(process: DummyProcess, stream: RawStream) -> None:
    """The worker's side of the session protocol, for the fake."""
    head = b"200\0OK\0Content-Type\0text/plain\0"
    while data := await stream.recv():
        assert data.endswith(BODY_END)
        await stream.send_all(b"R" + len(head).to_bytes(4, "big") + head + b"D\0\0\0\5helloE\0\0\0\0")


def make(kind: str, spec: AppSpec, spawn_listener: SpawnListener, works: bool = True) -> Spawner:
    if kind == "dummy":
        return DummySpawner(serve=serve_hello, failures=(None if works else dummy_failure(),))
    if kind == "generic":
        return GenericSpawner(spec, Ports())
    return DirectSpawner(spec, spawn_listener) if kind == "direct" else SmartSpawner(spec, spawn_listener)


@asynccontextmanager
async def running(spawner: Spawner) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(spawner.serve)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def spawner_of(
    kind: str, directory: Path, spec: AppSpec | None = None, works: bool = True
) -> AsyncIterator[Spawner]:
    async with open_spawn_listener(directory) as spawn_listener:
        if kind == "generic":
            program = "{python} {program} --socket $SOCKET" if works else "echo about to fail; exit 3"
            spec = command_spec(directory, program, max_concurrent_requests_per_process=1)
        spawner = make(kind, spec or hello_spec(directory), spawn_listener, works)
        async with running(spawner):
            yield spawner


async def spawn(spawner: Spawner) -> LiveProcess:
    with trio.fail_after(SOON * 2):
        return await spawner.spawn()


@every_spawner
async def test_a_process_that_is_ready_answers_sessions(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        assert process.pid > 0
        assert process.concurrency == 1
        assert process.spawn_time >= 0
        assert process.preloaded == (kind == "smart")
        for _ in range(2):
            assert await ask(process) == b"hello"
        await end(process)


@every_spawner
async def test_several_can_be_spawned_at_once_and_are_several(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        processes: list[LiveProcess] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):

                @nursery.start_soon
                async def one() -> None:
                    processes.append(await spawn(spawner))

        assert len({process.pid for process in processes}) == 3
        for process in processes:
            assert await ask(process) == b"hello"
        await end(*processes)


@every_spawner
async def test_the_end_of_a_process_is_seen(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        with trio.move_on_after(0.05) as scope:
            await process.wait_exit()
        assert scope.cancelled_caught
        assert process.signal_group(signal.SIGKILL)
        assert await wait_exit(process) == -signal.SIGKILL
        await process.wait_exit()
        process.close()


@every_spawner
async def test_who_is_asked_to_stop_stops_with_status_0(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        assert process.ask_to_stop()
        assert await wait_exit(process) == 0
        process.close()


@every_spawner
async def test_sigterm_is_enough(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        assert process.signal_group(signal.SIGTERM)
        assert await wait_exit(process) in (0, -signal.SIGTERM)
        process.close()


@every_spawner
async def test_a_process_that_has_ended_is_neither_reached_nor_asked_nor_signalled(
    kind: str, nothing_left: Path
) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        stream = process.connect_nowait()
        process.signal_group(signal.SIGKILL)
        await wait_exit(process)
        with pytest.raises(OSError, match="refused"):
            process.connect_nowait()
        assert not process.ask_to_stop()
        # The shell that waited at a death pipe is nobody's child: whether it has been reaped from the group by now is for others to say.
        assert kind == "generic" or not process.signal_group(signal.SIGTERM)
        try:
            assert await stream.recv() == b""
        except trio.BrokenResourceError:
            pass
        stream.close()
        process.close()


@every_spawner
async def test_attending_can_be_cancelled_and_begun_again(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        for _ in range(2):
            with trio.move_on_after(0.02) as scope:
                await process.read_output()
            assert scope.cancelled_caught
        assert await ask(process) == b"hello"
        await end(process)


@every_spawner
async def test_a_spawn_that_is_cancelled_at_any_moment_leaves_nothing(kind: str, nothing_left: Path) -> None:
    """Cancelled before it begins, and after so many milliseconds; the fixture looks for what is left."""
    async with spawner_of(kind, nothing_left) as spawner:
        for seconds in (0.0, 0.001, 0.01, 0.03, 0.05, 0.07, 0.09, 0.12):
            process: LiveProcess | None = None
            with trio.move_on_after(seconds):
                process = await spawner.spawn()
            if process is not None:
                await end(process)
        process = await spawn(spawner)
        assert await ask(process) == b"hello"
        await end(process)


@every_spawner
async def test_a_spawn_that_fails_says_why_and_leaves_nothing(kind: str, nothing_left: Path, tmp_path: Path) -> None:
    source = "print('about to fail', flush=True)\nraise ValueError('not today')\n" + HELLO
    spec = written_spec(tmp_path / "app", source, nothing_left)
    async with spawner_of(kind, nothing_left, spec, works=False) as spawner:
        failures = []
        for _ in range(2):
            with pytest.raises(SpawnError) as caught:
                await spawn(spawner)
            failures.append(caught.value.failure)
    for failure in failures:
        assert failure.category is (ErrorCategory.EXITED if kind == "generic" else ErrorCategory.APPLICATION)
        assert failure.summary
        assert failure.problem
        assert failure.solution
        assert failure.error_id
        assert failure.journey.failed_step is not None
        assert failure.journey.failed_step.state is StepState.ERRORED
    if kind == "dummy":
        return
    assert failures[0].error_id != failures[1].error_id
    failure = failures[0]
    assert "about to fail" in failure.output
    assert ("IN_PASSENGER", "1") in failure.environment
    if kind == "generic":
        return
    assert failure.journey.failed_step is not None
    assert failure.journey.failed_step.name == "load_application"
    assert failure.summary == "The application raised ValueError: not today"
    assert "passenger_wsgi.py" in failure.traceback
    assert failure.command[0].endswith("python")


@every_spawner
async def test_a_preloader_is_told_of_where_there_is_one(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        assert spawner.preloader is None
        process = await spawn(spawner)
        facts = spawner.preloader
        assert (facts is not None) == (kind == "smart")
        if facts is not None:
            assert (facts.forks, facts.pid != process.pid) == (1, True)
        spawner.retire_preloader()
        assert await ask(process) == b"hello"
        await end(process)
    assert spawner.preloader is None


@every_spawner
async def test_a_keeper_walks_it_down(kind: str, nothing_left: Path) -> None:
    """The real ladder, with each of them."""
    async with spawner_of(kind, nothing_left) as spawner:
        process = Process(ProcessId(1), GroupKey("a", "b"), await spawn(spawner), attached=0.0)
        gone: list[Process] = []
        keeper = Keeper(process, 5.0, gone.append)
        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeper.keep)
                assert await ask(process.live) == b"hello"
                keeper.retire("a test wants it so")
        assert gone == [process]


@every_spawner
async def test_a_keeper_that_is_cancelled_kills_it(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = Process(ProcessId(1), GroupKey("a", "b"), await spawn(spawner), attached=0.0)
        gone: list[Process] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Keeper(process, 5.0, gone.append).keep)
            assert await ask(process.live) == b"hello"
            nursery.cancel_scope.cancel()
        assert gone == [process]
        assert await process.live.wait_exit_status() == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["generic", "smart"])
@pytest.mark.os
async def test_LI7_our_own_keep_what_others_are_checked_for(kind: str, nothing_left: Path) -> None:
    async with open_spawn_listener(nothing_left) as spawn_listener:
        program = "{python} {program} --socket $SOCKET"
        spec = command_spec(nothing_left, program) if kind == "generic" else hello_spec(nothing_left)
        await check_spawner(make(kind, spec, spawn_listener))


async def test_LI7_one_that_does_not_is_told_what_broke() -> None:
    class Broken(DummySpawner):
        """As long as one process lives it makes no other."""

        one: DummyProcess | None = None
        turn = trio.Lock()

        async def spawn(self) -> DummyProcess:
            async with self.turn:
                if self.one is None or self.one.closed:
                    self.one = await super().spawn()
                return self.one

    with pytest.raises(ConformanceFailure) as caught:
        await check_spawner(Broken(serve=serve_hello))
    assert "several spawned at once are several: three spawns made the processes" in str(caught.value)


def sockets_in(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name != "spawn.sock"]


@every_spawner
async def test_the_socket_is_private_and_named_by_us(kind: str, nothing_left: Path) -> None:
    async with spawner_of(kind, nothing_left) as spawner:
        process = await spawn(spawner)
        sockets = sockets_in(nothing_left)
        assert len(sockets) == (0 if kind == "dummy" else 1)
        assert all(path.is_socket() and path.stat().st_uid == os.getuid() for path in sockets)
        await end(process)
