"""Programs that know nothing of us: found where they listen, explained when they do not, and gone when nobody holds their death_pipe."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import attrs
import pytest
import trio
from real_apps import SOON, ask, command_spec, end, wait_exit

from passenger_trio.codecs.http1_worker import HTTP
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.errors import SpawnError
from passenger_trio.spawning.generic import GenericSpawner, ListeningProcess
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.system.ports import Ports
from passenger_trio.testing.harness import is_running

pytestmark = pytest.mark.os


async def spawn(directory: Path, command: str, **options: object) -> ListeningProcess:
    with trio.fail_after(SOON * 2):
        return await GenericSpawner(command_spec(directory, command, **options), Ports()).spawn()


async def failure_of(directory: Path, command: str, **options: object) -> SpawnFailure:
    with pytest.raises(SpawnError) as caught:
        await spawn(directory, command, **options)
    return caught.value.failure


@pytest.mark.parametrize(
    ("command", "forked"),
    [
        ("{python} {program} --port $PORT", False),
        ("{python} {program} --port ${{PORT}}", False),
        ("{python} {program} --socket $SOCKET", False),
        ("cd /tmp && {python} {program} --port $PORT", True),
        ("X=y {python} {program} --port $PORT; echo over", True),
        ("{python} {program} --port $PORT --fork", True),
    ],
)
async def test_a_program_is_found_where_it_listens(nothing_left: Path, command: str, forked: bool) -> None:
    process = await spawn(nothing_left, command)
    assert (process.worker_protocol, process.concurrency, process.preloaded) == (HTTP, 0, False)
    assert await ask(process) == b"hello"
    pid, group = map(int, (await ask(process, "/pid")).split())
    assert group == process.pid
    assert (pid == process.pid) != forked
    await end(process)


async def test_ports_are_released_and_no_two_are_the_same(nothing_left: Path) -> None:
    ports = Ports()
    spawner = GenericSpawner(command_spec(nothing_left, "{python} {program} --port $PORT"), ports)
    processes: list[ListeningProcess] = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):

            @nursery.start_soon
            async def one() -> None:
                processes.append(await spawner.spawn())

    assert len({process.port for process in processes}) == 3
    await end(*processes)
    assert not ports._taken


async def test_a_program_is_asked_to_stop_by_sigterm_also_behind_a_shell(nothing_left: Path) -> None:
    for command in ("{python} {program} --port $PORT", "cd /tmp && {python} {program} --port $PORT"):
        process = await spawn(nothing_left, command)
        assert process.ask_to_stop()
        assert await wait_exit(process) in (0, 143)
        assert "it ends in good order" in process.output_tail
        process.signal_group(signal.SIGKILL)
        process.close()


async def test_who_loses_the_death_pipe_dies_with_all_that_it_has_started(nothing_left: Path) -> None:
    """What a supervisor that was killed does not do any more; the end of the pipe is all that is left of it."""
    process = await spawn(nothing_left, "cd /tmp && {python} {program} --port $PORT --fork")
    pid = int((await ask(process, "/pid")).split()[0])
    process._death_pipe.close()
    assert await wait_exit(process, 1.0) == -signal.SIGKILL
    with trio.fail_after(1.0):
        while is_running(pid):  # noqa: ASYNC110 - it is nobody's child
            await trio.sleep(0.01)
    process.close()


async def test_a_program_that_is_not_there(nothing_left: Path) -> None:
    failure = await failure_of(nothing_left, "no-such-program --port $PORT")
    assert failure.category is ErrorCategory.EXITED
    assert failure.summary == "The program of --app-start-command was not found"
    assert any("no-such-program" in line for line in failure.output)
    assert failure.command == ("no-such-program --port $PORT",)
    assert failure.journey.failed_step is not None
    assert failure.journey.failed_step.name == "probe"


async def test_a_program_that_ends_before_it_listens(nothing_left: Path) -> None:
    failure = await failure_of(nothing_left, "echo it was so short; exit 3")
    assert failure.summary == "The program of --app-start-command ended before it listened (exit status 3)"
    assert failure.output == ("it was so short",)


async def test_a_program_that_never_listens(nothing_left: Path) -> None:
    failure = await failure_of(nothing_left, "echo well; sleep 60", start_timeout=0.3)
    assert failure.category is ErrorCategory.TIMEOUT
    assert "did not listen within 0.3 seconds" in failure.summary
    assert "It does not listen at all" in failure.problem
    assert failure.output == ("well",)


async def test_a_program_that_listens_elsewhere_is_told_so(nothing_left: Path) -> None:
    port = Ports().take()
    failure = await failure_of(nothing_left, f"{{python}} {{program}} --port {port}", start_timeout=1.0)
    assert f"It listens on 127.0.0.1:{port} instead of on $PORT" in failure.problem


async def test_a_directory_that_is_gone(nothing_left: Path, tmp_path: Path) -> None:
    spec = command_spec(nothing_left, "{python} {program} --port $PORT")
    gone = attrs.evolve(spec, detected=attrs.evolve(spec.detected, root=str(tmp_path / "gone")))
    with pytest.raises(SpawnError) as caught:
        await GenericSpawner(gone, Ports()).spawn()
    assert caught.value.failure.category is ErrorCategory.OPERATING_SYSTEM


async def test_its_standard_input_is_empty_and_no_descriptor_is_passed_on(nothing_left: Path) -> None:
    code = "import os,sys; print(sys.stdin.read() == '', sorted(os.listdir('/proc/self/fd')))"
    failure = await failure_of(nothing_left, f'{sys.executable} -c "{code}"')
    assert failure.output == ("True ['0', '1', '2', '3']",)  # 3 is the directory's, just now


async def test_KE14_what_a_program_has_left_gets_TERM_and_its_time(nothing_left: Path) -> None:
    """The death_pipe kills the whole group; it is for the death of the server, and not for the end of the program."""
    job = 'trap "sleep 0.3; echo told; exit" TERM; echo ready; while :; do sleep 0.05; done'
    lines: list[str] = []
    remains = Remains()
    async with trio.open_nursery() as nursery:
        await nursery.start(remains.serve)
        spec = command_spec(nothing_left, f"({job}) & exec {{python}} {{program}} --port $PORT", shutdown_timeout=60.0)
        with trio.fail_after(SOON * 2):
            process = await GenericSpawner(spec, Ports(), remains=remains).spawn()
        process.output.on_lines = lines.extend
        with trio.fail_after(SOON * 2):
            while "ready" not in (*process.output_tail, *lines):  # noqa: ASYNC110
                await trio.sleep(0.01)
            process.pidfd.send_signal(signal.SIGKILL)
            await process.wait_exit()
            process.close()
            await remains.wait_no_groups()
            while remains.pipes:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert "told" in lines


async def test_KE14_before_Linux_6_9_what_a_program_has_left_is_killed_by_its_death_pipe(
    nothing_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that does not know the flag refuses it, as this one refuses another that it does not know."""
    monkeypatch.setattr("passenger_trio.system.pidfd._PIDFD_SIGNAL_PROCESS_GROUP", 1 << 20)
    process = await spawn(nothing_left, "sleep 600 & echo job $!; exec {python} {program} --port $PORT")
    job = next(int(line.split()[1]) for line in process.output_tail if line.startswith("job "))
    assert is_running(job)
    process.pidfd.send_signal(signal.SIGKILL)
    await process.wait_exit()
    process.close()
    with trio.fail_after(SOON):
        while is_running(job):  # noqa: ASYNC110 - it is nobody's child
            await trio.sleep(0.01)
