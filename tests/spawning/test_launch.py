"""From "started" to "ready": every way in which that can fail ends with the right evidence, in time, and with nothing left."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import attrs
import pytest
import trio
from real_apps import HELLO, SOON, ask, end, fake_spec, hello_spec, open_spawn_listener, wait_exit, written_spec
from test_spawn_listener import descriptors_left

from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.errors import SpawnError
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.exit_status import describe_exit
from passenger_trio.spawning.spawner import SpawnedProcess

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("nothing_left")]


@attrs.frozen
class Lines:
    """Keeps what processes write."""

    lines: list[tuple[int, str]]

    def write(self, pid: int, lines: list[str]) -> None:
        self.lines.extend((pid, line) for line in lines)

    def has_room(self) -> bool:
        return True


async def spawn(spec: AppSpec, lines: list[tuple[int, str]] | None = None) -> SpawnedProcess:
    failure: SpawnError | None = None
    async with open_spawn_listener(Path(spec.socket_dir)) as spawn_listener:
        sink = Lines(lines) if lines is not None else None
        with trio.fail_after(SOON * 2):
            try:
                return await DirectSpawner(spec, spawn_listener, sink).spawn()
            except SpawnError as error:
                failure = error
    assert failure is not None
    raise failure


async def failure_of(spec: AppSpec, lines: list[tuple[int, str]] | None = None) -> SpawnFailure:
    with pytest.raises(SpawnError) as caught:
        await spawn(spec, lines)
    return caught.value.failure


def step_of(failure: SpawnFailure) -> str:
    assert failure.journey.failed_step is not None
    return failure.journey.failed_step.name


# --- the application's doing ------------------------------------------------------------------------------------------


async def test_an_application_that_exits_while_it_is_loaded(nothing_left: Path, tmp_path: Path) -> None:
    spec = written_spec(tmp_path, f"import os\nprint('good', 'bye', flush=True)\nos._exit(3)\n{HELLO}", nothing_left)
    lines: list[tuple[int, str]] = []
    failure = await failure_of(spec, lines)
    assert failure.category is ErrorCategory.EXITED
    assert "(exit status 3)" in failure.summary
    assert failure.exit_status == "exit status 3"
    assert failure.output == ("good bye",)
    assert [line for _, line in lines] == ["good bye"]
    assert step_of(failure) == "load_application"


async def test_an_application_that_is_killed_while_it_is_loaded(nothing_left: Path, tmp_path: Path) -> None:
    spec = written_spec(tmp_path, f"import os\nos.kill(os.getpid(), 9)\n{HELLO}", nothing_left)
    failure = await failure_of(spec)
    assert failure.category is ErrorCategory.EXITED
    assert failure.exit_status == "killed by signal 9 (SIGKILL)"


async def test_an_application_that_hangs_is_killed_with_what_it_started(nothing_left: Path, tmp_path: Path) -> None:
    source = f"import subprocess, time\nsubprocess.Popen(['sleep', '600'])\nprint('zzz', flush=True)\ntime.sleep(600)\n{HELLO}"
    spec = written_spec(tmp_path, source, nothing_left, start_timeout=2.0)
    begun = trio.current_time()
    failure = await failure_of(spec)
    assert 2.0 <= trio.current_time() - begun < 4.0
    assert failure.category is ErrorCategory.TIMEOUT
    assert failure.summary == "The application was not ready within 2 seconds"
    assert "Load the application" in failure.problem
    assert step_of(failure) == "load_application"
    assert failure.output == ("zzz",)
    assert failure.exit_status == ""


async def test_the_evidence_shows_no_secrets(nothing_left: Path, tmp_path: Path) -> None:
    env = (("SECRET_KEY", "hunter2"), ("PLAIN", "shown"))
    spec = written_spec(tmp_path, "raise ValueError\n" + HELLO, nothing_left, env=env)
    failure = await failure_of(spec)
    assert ("PLAIN", "shown") in failure.environment
    assert "hunter2" not in str(failure)


# --- the operating system's doing -------------------------------------------------------------------------------------


async def test_an_interpreter_that_is_not_there(nothing_left: Path) -> None:
    spec = attrs.evolve(hello_spec(nothing_left), command=("/no/such/python", "x"))
    failure = await failure_of(spec)
    assert failure.category is ErrorCategory.OPERATING_SYSTEM
    assert failure.summary == "The interpreter /no/such/python cannot be started: No such file or directory"
    assert step_of(failure) == "start_program"
    assert failure.command == ("/no/such/python", "x")


async def test_a_directory_that_went_away_is_not_blamed_on_the_interpreter(nothing_left: Path, tmp_path: Path) -> None:
    spec = written_spec(tmp_path / "app", HELLO, nothing_left)
    (tmp_path / "app" / "passenger_wsgi.py").unlink()
    (tmp_path / "app").rmdir()
    failure = await failure_of(spec)
    assert failure.category is ErrorCategory.CONFIGURATION
    assert str(tmp_path / "app") in failure.summary


async def test_an_environment_that_no_program_can_have(nothing_left: Path) -> None:
    spec = hello_spec(nothing_left, env=(("NAME", "a\0b"),))
    failure = await failure_of(spec)
    assert failure.category is ErrorCategory.OPERATING_SYSTEM
    assert "null byte" in failure.summary


@pytest.mark.parametrize("left", range(12))
async def test_without_descriptors_a_spawn_fails_and_nothing_else(nothing_left: Path, left: int) -> None:
    """F32, at each place where one is wanted: the pipe, the program, its pidfd, its connection."""
    spec = hello_spec(nothing_left, start_timeout=SOON)
    async with open_spawn_listener(nothing_left) as spawn_listener:
        spawner = DirectSpawner(spec, spawn_listener)
        process: SpawnedProcess | None = None
        failure: SpawnFailure | None = None
        with descriptors_left(left):
            try:
                with trio.fail_after(SOON):
                    process = await spawner.spawn()
            except SpawnError as error:
                failure = error.failure
        if process is not None:
            assert left > 3
            await end(process)
        else:
            assert failure is not None
            assert failure.category in (ErrorCategory.OPERATING_SYSTEM, ErrorCategory.EXITED, ErrorCategory.TIMEOUT)
        process = await spawner.spawn()
        assert await ask(process) == b"hello"
        await end(process)


# --- the loader's doing -----------------------------------------------------------------------------------------------

BROKEN = {
    "says_garbage": "not JSON",
    "floods": "more than 256 messages",
    "is_ready_without_a_socket": "exactly one socket",
    "is_ready_with_two_sockets": "exactly one socket",
    "speaks_gopher": "exactly one socket with a known protocol",
    "listens_elsewhere": "instead of unix:",
    "lies_about_its_socket": "cannot be found",
    "puts_a_link_there": "is not a Unix socket of the application's user",
}


@pytest.mark.parametrize(("behaviour", "problem"), BROKEN.items())
async def test_a_loader_that_breaks_its_contract_is_ended(behaviour: str, problem: str, nothing_left: Path) -> None:
    failure = await failure_of(fake_spec(behaviour, nothing_left))
    assert failure.category is ErrorCategory.LOADER
    assert problem in failure.problem


async def test_a_loader_that_never_connects(nothing_left: Path) -> None:
    failure = await failure_of(fake_spec("never_connects", nothing_left))
    assert failure.category is ErrorCategory.EXITED
    assert failure.exit_status == "exit status 4"
    assert failure.output == ("nothing to say",)
    assert step_of(failure) == "connect_back"


async def test_a_loader_that_never_does_anything(nothing_left: Path) -> None:
    failure = await failure_of(fake_spec("never_does_anything", nothing_left, start_timeout=0.4))
    assert failure.category is ErrorCategory.TIMEOUT
    assert step_of(failure) == "connect_back"


async def test_a_loader_of_another_contract_is_hung_up_on(nothing_left: Path, caplog: pytest.LogCaptureFixture) -> None:
    failure = await failure_of(fake_spec("is_of_another_contract", nothing_left))
    assert failure.category is ErrorCategory.EXITED
    assert "contract version 2" in caplog.text


async def test_a_loader_that_hangs_up_and_lives_is_waited_for_a_moment_and_ended(nothing_left: Path) -> None:
    begun = trio.current_time()
    failure = await failure_of(fake_spec("hangs_up_and_lives", nothing_left))
    assert failure.category is ErrorCategory.EXITED
    assert 1.0 <= trio.current_time() - begun < 3.0


async def test_a_loader_that_hangs_up_and_exits_is_told_by_its_exit(nothing_left: Path) -> None:
    begun = trio.current_time()
    failure = await failure_of(fake_spec("hangs_up_and_exits", nothing_left))
    assert failure.exit_status == "exit status 5"
    assert trio.current_time() - begun < 1.0


async def test_a_token_that_comes_from_another_process_is_refused(nothing_left: Path) -> None:
    failure = await failure_of(fake_spec("sends_a_grandchild", nothing_left))
    assert failure.exit_status == "exit status 6"


@pytest.mark.parametrize("behaviour", ["reports_and_exits", "reports_and_stays", "says_much_and_exits"])
async def test_a_report_is_read_whatever_happens_to_its_sender(behaviour: str, nothing_left: Path) -> None:
    failure = await failure_of(fake_spec(behaviour, nothing_left))
    assert failure.summary in ("it is broken", "the last word")
    assert failure.category is (
        ErrorCategory.CONFIGURATION if behaviour == "reports_and_stays" else ErrorCategory.APPLICATION
    )


async def test_what_a_loader_reports_is_logged(
    nothing_left: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "passenger_trio")
    await failure_of(fake_spec("says_much_and_exits", nothing_left))
    assert "event from the loader of hello: 99 {}" in caplog.text


async def test_one_that_was_ready_and_died_is_a_process_whose_end_is_seen(nothing_left: Path) -> None:
    try:
        process = await spawn(fake_spec("is_ready_and_dies", nothing_left))
    except SpawnError as error:
        assert error.failure.exit_status == "exit status 8"  # noqa: PT017
    else:
        assert await wait_exit(process) == 8
        process.close()


# --- after it was ready -----------------------------------------------------------------------------------------------


async def test_when_our_end_of_the_control_connection_closes_the_process_is_gone_within_a_second(
    nothing_left: Path,
) -> None:
    process = await spawn(hello_spec(nothing_left))
    assert await ask(process) == b"hello"
    process.control.close()
    await wait_exit(process, 1.0)
    process.close()


async def test_a_worker_that_breaks_the_contract_is_hung_up_on_and_heard_to_its_end(
    nothing_left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = await spawn(fake_spec("breaks_the_contract_later", nothing_left))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.read_output)
        assert await wait_exit(process) == 0
        nursery.cancel_scope.cancel()
    assert "a type that the contract does not have" in caplog.text
    assert not process.ask_to_stop()
    process.close()
    assert any(line.startswith("last line") for line in process.output.tail)


async def test_a_worker_that_was_hung_up_on_is_attended_to_by_who_has_it_next(
    nothing_left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It breaks the contract while it is warmed up, and passes: the pool has it then."""
    process = await spawn(fake_spec("breaks_the_contract_later", nothing_left))
    async with trio.open_nursery() as warm_up:
        warm_up.start_soon(process.read_output)
        with trio.fail_after(SOON):
            while "a type that the contract does not have" not in caplog.text:
                await trio.lowlevel.checkpoint()
        warm_up.cancel_scope.cancel()
    with trio.fail_after(SOON):
        await process.read_output()
    assert any(line.startswith("last line") for line in process.output.tail)
    assert await wait_exit(process) == 0
    process.close()


async def test_what_an_application_puts_in_place_of_its_socket_does_not_hold_us_up(
    nothing_left: Path,
) -> None:
    process = await spawn(fake_spec("replaces_its_socket_by_a_directory", nothing_left))
    stream = process.connect_nowait()
    assert await stream.recv() == b""
    stream.close()
    with pytest.raises(ConnectionRefusedError):
        process.connect_nowait()
    await end(process)
    os.rmdir(process.socket_path)


async def test_output_comes_with_the_pid_of_its_writer(nothing_left: Path, tmp_path: Path) -> None:
    spec = written_spec(
        tmp_path,
        "print('loading')\n" + HELLO.replace("start_response(", "print('asked'); start_response(", 1),
        nothing_left,
    )
    lines: list[tuple[int, str]] = []
    process = await spawn(spec, lines)
    await ask(process)
    process.signal_group(signal.SIGTERM)
    await wait_exit(process)
    process.close()
    assert lines == [(process.pid, "loading"), (process.pid, "asked")]
    assert process.output_tail == ("loading", "asked")


def test_exits_in_words() -> None:
    assert describe_exit(0) == "exit status 0"
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(-9) == "killed by signal 9 (SIGKILL)"
    assert describe_exit(-24) == "killed by signal 24 (SIGXCPU: its processor time is used up)"
    assert describe_exit(-63) == "killed by signal 63"
    assert describe_exit(None) == "its exit status is unknown"


def test_the_interpreter_is_this_one(nothing_left: Path) -> None:
    assert hello_spec(nothing_left).command[0] == sys.executable
