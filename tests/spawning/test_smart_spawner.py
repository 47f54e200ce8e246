"""SmartSpawner: one preloader, shared and replaced; whatever becomes of it, spawns end well or with evidence, and leave nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from real_apps import (
    FAKE_LOADER,
    HELLO,
    SOON,
    ask,
    end,
    hello_spec,
    open_spawn_listener,
    request,
    wait_exit,
    written_spec,
)
from trio.testing import wait_all_tasks_blocked

from passenger_trio.codecs.control_protocol import ChildExited
from passenger_trio.core.journey import JourneyType, StepState
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.errors import SpawnError
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.preloader import Preloader
from passenger_trio.spawning.smart_forking import SmartSpawner
from passenger_trio.spawning.spawner import SpawnedProcess
from passenger_trio.system.pidfd import PidFd, parent_of

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("nothing_left")]


class Watched(SmartSpawner):
    """Notes what it is told of its preloaders, and lets a test wait for that."""

    changes: list[bool]
    changed: trio.Event

    @property
    def current(self) -> Preloader:
        assert self._preloader is not None
        return self._preloader

    async def until(self, changes: list[bool]) -> None:
        with trio.fail_after(SOON):
            while self.changes != changes:
                await self.changed.wait()


@asynccontextmanager
async def smart(spec: AppSpec, **how: float) -> AsyncIterator[Watched]:
    changes: list[bool] = []
    lives: set[int] = set()

    def on_preloader(number: int, started: bool) -> None:
        changes.append(started)
        (lives.add if started else lives.remove)(number)
        old, spawner.changed = spawner.changed, trio.Event()
        old.set()

    async with open_spawn_listener(Path(spec.socket_dir)) as spawn_listener:
        spawner = Watched(spec, spawn_listener, on_preloader=on_preloader, **how)  # type: ignore[arg-type]
        spawner.changes, spawner.changed = changes, trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(spawner.serve)
            yield spawner
            nursery.cancel_scope.cancel()
    assert changes.count(True) == changes.count(False)
    assert not lives, "each end is told of the one that has ended"


async def spawn(spawner: SmartSpawner, seconds: float = SOON * 2) -> SpawnedProcess:
    with trio.fail_after(seconds):
        return await spawner.spawn()


async def failure_of(spawner: SmartSpawner) -> SpawnFailure:
    with pytest.raises(SpawnError) as caught:
        await spawn(spawner)
    return caught.value.failure


def fake_preloader(behaviour: str, directory: Path, **options: object) -> AppSpec:
    """A preloader that does not keep its contract; direct spawns are well."""
    return attrs.evolve(
        hello_spec(directory, **options), preloader_command=(sys.executable, str(FAKE_LOADER), behaviour)
    )


# --- one preloader ----------------------------------------------------------------------------------------------------


async def test_processes_are_forked_from_one_preloader(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        assert spawner.changes == []
        processes = [await spawn(spawner) for _ in range(2)]
        assert spawner.preloader is not None
        assert {parent_of(process.pid) for process in processes} == {spawner.preloader.pid}
        assert spawner.preloader.forks == 2
        assert spawner.changes == [True]
        for process in processes:
            assert await ask(process) == b"hello"
        await end(*processes)


async def test_spawns_that_come_together_share_one_start(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        processes: list[SpawnedProcess] = []
        async with trio.open_nursery() as nursery:
            for _ in range(4):

                @nursery.start_soon
                async def one() -> None:
                    processes.append(await spawn(spawner))

        assert spawner.changes == [True]
        await end(*processes)


async def test_spawns_that_come_together_share_one_failure(nothing_left: Path, tmp_path: Path) -> None:
    source = f"open('count', 'a').write('x')\nraise ValueError\n{HELLO}"
    async with smart(written_spec(tmp_path, source, nothing_left)) as spawner:
        failures: list[SpawnFailure] = []
        async with trio.open_nursery() as nursery:
            for _ in range(4):

                @nursery.start_soon
                async def one() -> None:
                    failures.append(await failure_of(spawner))

        assert len({failure.error_id for failure in failures}) == 1
        assert (tmp_path / "count").read_text() == "x"
        assert (await failure_of(spawner)).error_id != failures[0].error_id, "one that comes later tries anew"
        assert (tmp_path / "count").read_text() == "xx"
        assert spawner.changes == []
        assert spawner.preloader is None


async def test_a_spawn_that_comes_while_the_preloader_starts_shares_its_failure(
    nothing_left: Path, tmp_path: Path
) -> None:
    """Those who wait would else wait for as long once more, for the same news."""
    source = f"open('count', 'a').write('x')\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nraise ValueError\n{HELLO}"
    async with smart(written_spec(tmp_path, source, nothing_left)) as spawner:
        failures: list[SpawnFailure] = []

        async def one() -> None:
            failures.append(await failure_of(spawner))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            with trio.fail_after(SOON):
                while not (tmp_path / "count").exists():
                    await trio.lowlevel.checkpoint()
            nursery.start_soon(one)
            await wait_all_tasks_blocked()
            (tmp_path / "go").touch()
        assert len({failure.error_id for failure in failures}) == 1
        assert (tmp_path / "count").read_text() == "x"


async def test_a_start_that_is_cancelled_is_taken_over_by_who_waits_for_it(nothing_left: Path, tmp_path: Path) -> None:
    spec = written_spec(tmp_path, "open('count', 'a').write('x')\nimport time; time.sleep(0.2)\n" + HELLO, nothing_left)
    async with smart(spec) as spawner:
        first = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def begin() -> None:
                with first:
                    await spawner.spawn()

            @nursery.start_soon
            async def wait() -> None:
                await wait_all_tasks_blocked(0.05)
                process = await spawn(spawner)
                assert await ask(process) == b"hello"
                await end(process)

            await wait_all_tasks_blocked(0.1)
            first.cancel()
        assert first.cancelled_caught


# --- a preloader that goes --------------------------------------------------------------------------------------------


async def test_a_preloader_that_was_killed_is_replaced_by_the_next_spawn(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        first = await spawn(spawner)
        assert spawner.preloader is not None
        old = spawner.preloader.pid
        os.kill(old, signal.SIGKILL)
        await spawner.until([True, False])
        assert spawner.preloader is None
        assert await ask(first) == b"hello", "what it forked lives on"
        second = await spawn(spawner)
        assert spawner.preloader.pid != old
        assert await ask(second) == b"hello"
        await end(first, second)


async def test_a_preloader_that_was_killed_a_moment_ago(nothing_left: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has noticed yet: the spawn finds it out, at whatever point, and a new one gets one chance."""
    async with smart(hello_spec(nothing_left)) as spawner:
        for _ in range(5):
            process = await spawn(spawner)
            spawner.current.pidfd.send_signal(signal.SIGKILL)
            other = await spawn(spawner)
            assert await ask(other) == b"hello"
            await end(process, other)
        assert "ended by itself: killed by signal 9" in caplog.text


async def test_a_preloader_that_was_retired_ends_well_and_is_replaced(
    nothing_left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        first = await spawn(spawner)
        spawner.retire_preloader()
        await spawner.until([True, False])
        assert "by itself" not in caplog.text
        assert await ask(first) == b"hello"
        second = await spawn(spawner)
        spawner.retire_preloader()
        third = await spawn(spawner)
        assert parent_of(third.pid) == spawner.current.pid
        await end(first, second, third)


async def serves_all_the_same(spawner: SmartSpawner, seconds: float, happens: Callable[[], object]) -> None:
    """Something happens so many seconds after a spawn has begun, and its process serves."""
    process: SpawnedProcess | None = None
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def one() -> None:
            nonlocal process
            process = await spawn(spawner)

        await trio.sleep(seconds)
        happens()
    assert process is not None
    assert await ask(process) == b"hello"
    await end(process)


async def test_a_preloader_that_is_retired_while_it_forks(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        for moment in range(6):
            await serves_all_the_same(spawner, moment * 0.004, spawner.retire_preloader)


async def test_a_preloader_that_is_killed_while_it_forks(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        await end(await spawn(spawner))
        for moment in range(6):
            await serves_all_the_same(
                spawner, moment * 0.002, lambda: spawner.current.pidfd.send_signal(signal.SIGKILL)
            )


async def test_a_preloader_that_is_stopped_is_gone_round_and_ended(nothing_left: Path) -> None:
    """F10, R44: "fork request to connected" has a deadline of its own; the preloader is killed, and this one process is started directly."""
    async with smart(hello_spec(nothing_left), fork_time=0.4) as spawner:
        first = await spawn(spawner)
        stuck = PidFd.open(spawner.current.pid)
        stuck.send_signal(signal.SIGSTOP)
        second = await spawn(spawner, 3.0)
        assert not second.preloaded
        assert await ask(second) == b"hello"
        third = await spawn(spawner)
        assert third.preloaded
        assert parent_of(third.pid) != stuck.pid
        assert await ask(first) == b"hello"
        with trio.fail_after(SOON * 2):
            while parent_of(stuck.pid) is not None:
                await spawner.changed.wait()
        stuck.close()
        await end(first, second, third)


async def test_a_process_that_is_slow_to_start_up_does_not_make_its_preloader_stuck(nothing_left: Path) -> None:
    """An ASGI application loads its model in its lifespan: that is longer than a fork may take."""
    spec = fake_preloader("forks_a_worker_that_is_slow", nothing_left, env=(("DELAY", "0.8"),))
    async with smart(spec, fork_time=0.4) as spawner:
        process = await spawn(spawner)
        assert process.preloaded
        assert spawner.changes == [True]
        await end(process)


async def test_a_process_that_does_not_start_up_in_time_is_told_of_and_its_preloader_stays(nothing_left: Path) -> None:
    slow = (("DELAY", "600"),)
    spec = fake_preloader("forks_a_worker_that_is_slow", nothing_left, env=slow, start_timeout=1.0)
    async with smart(spec, fork_time=0.6) as spawner:
        failure = await failure_of(spawner)
        assert failure.category is ErrorCategory.TIMEOUT
        assert failure.summary == "The application was not ready within 1 seconds"
        assert failure.journey.failed_step is not None
        assert failure.journey.failed_step.name == "start_up"
        assert not forked_by(spawner)
        assert spawner.changes == [True]


async def test_a_preloader_that_dies_of_every_fork(nothing_left: Path) -> None:
    async with smart(fake_preloader("dies_of_a_fork", nothing_left)) as spawner:
        failure = await failure_of(spawner)
        assert failure.category is ErrorCategory.EXITED
        assert failure.summary == "The preloader ended while it was asked for a process"
        assert spawner.changes.count(True) == 2, "a new one got one chance"


async def test_a_preloader_that_breaks_the_contract_is_ended(
    nothing_left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with smart(fake_preloader("says_garbage_when_asked", nothing_left), fork_time=2.0) as spawner:
        failure = await failure_of(spawner)
        assert failure.category is ErrorCategory.EXITED
    assert "a control message is not JSON" in caplog.text


async def test_a_preloader_that_cannot_fork_says_so_and_lives_on(nothing_left: Path) -> None:
    async with smart(fake_preloader("refuses_to_fork", nothing_left)) as spawner:
        for _ in range(2):
            failure = await failure_of(spawner)
            assert failure.category is ErrorCategory.OPERATING_SYSTEM
            assert failure.problem == "no, thanks"
        assert spawner.changes == [True]


async def test_what_the_application_started_while_it_was_loaded_lives_as_long_as_the_last_fork(
    nothing_left: Path, tmp_path: Path
) -> None:
    """R40, KE14. The processes may use it: a cache, the manager of a multiprocessing program."""
    source = "import subprocess\nopen('helper', 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n" + HELLO
    async with smart(written_spec(tmp_path, source, nothing_left, spawn_method="smart")) as spawner:
        process = await spawn(spawner)
        helper = PidFd.open(int((tmp_path / "helper").read_text()))
        spawner.retire_preloader()
        assert await ask(process) == b"hello"
        assert spawner.changes == [True], "it has a process of its own, and stays for as long as its forks use that"
        assert not helper.poll()
        await end(process)
        await spawner.until([True, False])
        with trio.fail_after(SOON):
            await helper.wait_exit()
    helper.close()


async def test_the_end_of_the_spawner_ends_the_preloader(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        process = await spawn(spawner)
        pid = spawner.current.pid
    assert spawner.changes == [True, False]
    assert parent_of(pid) is None
    assert await ask(process) == b"hello", "what it forked lives on"
    await end(process)


# --- OP15: what is not safe to fork -----------------------------------------------------------------------------------

THREAD = "import threading\nopen('loads', 'a').write('x')\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


async def test_a_preloader_that_is_not_safe_to_fork_is_the_first_process(nothing_left: Path, tmp_path: Path) -> None:
    """OP15: spawns that come together load the application as often as there are processes, and the pool hears of no preloader."""
    async with smart(written_spec(tmp_path, THREAD + HELLO, nothing_left)) as spawner:
        assert spawner.forking is None, "nothing is known yet"
        processes: list[SpawnedProcess] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):

                @nursery.start_soon
                async def one() -> None:
                    processes.append(await spawn(spawner))

        assert (tmp_path / "loads").read_text() == "xxx"
        assert spawner.forking is not None
        assert spawner.forking.method == "direct"
        assert [hazard.kind for hazard in spawner.forking.hazards] == ["thread"]
        assert (spawner.preloader, spawner.changes) == (None, [])
        assert {parent_of(process.pid) for process in processes} == {os.getpid()}
        for process in processes:
            assert not process.preloaded
            assert process.journey.type is JourneyType.SPAWN_DIRECTLY
            assert {step.state for step in process.journey.steps} == {StepState.PERFORMED}
            assert await ask(process) == b"hello"
        await end(*processes)


async def test_smart_forks_what_is_not_safe_to_fork(nothing_left: Path, tmp_path: Path) -> None:
    async with smart(written_spec(tmp_path, THREAD + HELLO, nothing_left, spawn_method="smart")) as spawner:
        processes = [await spawn(spawner) for _ in range(2)]
        assert (tmp_path / "loads").read_text() == "x"
        assert spawner.forking is not None
        assert spawner.forking.method == "smart"
        assert spawner.forking.hazards
        await end(*processes)


async def test_a_preloader_that_does_not_come_to_serve(nothing_left: Path, tmp_path: Path) -> None:
    """It is not safe to fork, and its start as a process fails: evidence, nothing is left, and the next spawn is a direct one."""
    source = THREAD + (
        "import os\nfrom passenger_trio_events import on_event\n"
        "@on_event('starting_worker_process')\ndef start(forked):\n"
        "    if not os.path.exists('well'): raise ValueError('not yet')\n"
    )
    async with smart(written_spec(tmp_path, source + HELLO, nothing_left)) as spawner:
        failure = await failure_of(spawner)
        assert "not yet" in failure.summary
        assert failure.journey.type is JourneyType.SPAWN_DIRECTLY
        (tmp_path / "well").touch()
        process = await spawn(spawner)
        assert await ask(process) == b"hello"
        await end(process)


# --- R47: whom it says that it has forked -----------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["the supervisor", "init", "another child of the supervisor", "nobody"])
async def test_a_preloader_cannot_have_strangers_killed(nothing_left: Path, who: str) -> None:
    """CVE-2018-12028: an application names another's process as its own, and the server ends it."""
    sleeper = await trio.lowlevel.open_process(["sleep", "600"])
    pid = {
        "the supervisor": os.getpid(),
        "init": 1,
        "another child of the supervisor": sleeper.pid,
        "nobody": 2**22 - 1,
    }
    spec = fake_preloader("forks_strangers", nothing_left, env=(("STRANGER", str(pid[who])),))
    async with smart(spec) as spawner:
        failure = await failure_of(spawner)
        assert failure.category is ErrorCategory.OPERATING_SYSTEM
    assert sleeper.poll() is None
    sleeper.kill()
    await sleeper.wait()


# --- what is forked ---------------------------------------------------------------------------------------------------

AFTER_FORK = """
import os, time

def after_fork():
    {}

os.register_at_fork(after_in_child=after_fork)
"""


@pytest.mark.parametrize(
    ("death", "words"),
    [("os._exit(9)", "exit status 9"), ("os.kill(os.getpid(), 11)", "killed by signal 11 (SIGSEGV)")],
)
async def test_a_process_that_dies_before_it_connects_is_noticed_at_once(
    nothing_left: Path, tmp_path: Path, death: str, words: str
) -> None:
    async with smart(written_spec(tmp_path, AFTER_FORK.format(death) + HELLO, nothing_left)) as spawner:
        begun = trio.current_time()
        failure = await failure_of(spawner)
        assert trio.current_time() - begun < 2.0
        assert failure.category in (ErrorCategory.EXITED, ErrorCategory.OPERATING_SYSTEM)
        if failure.category is ErrorCategory.EXITED:
            assert failure.exit_status == words
        assert spawner.changes == [True], "the preloader is not to blame"


async def test_a_process_that_hangs_before_it_connects_is_killed(nothing_left: Path, tmp_path: Path) -> None:
    spec = written_spec(tmp_path, AFTER_FORK.format("time.sleep(600)") + HELLO, nothing_left)
    async with smart(spec, fork_time=0.4) as spawner:
        process = await spawn(spawner)
        assert not process.preloaded
        await end(process)


async def test_a_fork_that_is_cancelled_leaves_no_process(nothing_left: Path, tmp_path: Path) -> None:
    """At every moment; also when the process does not get as far as to connect."""
    hang = "os.path.exists('hang') and time.sleep(600)"
    spec = written_spec(tmp_path, AFTER_FORK.format(hang) + HELLO, nothing_left)
    async with smart(spec, fork_time=30.0) as spawner:
        await end(await spawn(spawner))
        (tmp_path / "hang").touch()
        for moment in range(12):
            with trio.move_on_after(moment * 0.001) as scope:
                await spawner.spawn()
            assert scope.cancelled_caught
            assert not forked_by(spawner), "it is gone before the spawn has returned"


def forked_by(spawner: Watched) -> list[int]:
    """Living processes that were forked by the preloader."""
    pid = spawner.current.pid
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(word) for word in file.read().split()]
    return [child for child in children if not is_dead(child)]


def is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True  # reaped in this moment


async def test_a_process_that_comes_when_nobody_waits_any_more_is_killed(nothing_left: Path) -> None:
    spec = fake_preloader("forks_a_sleeper_late", nothing_left, env=(("DELAY", "1.5"),))
    async with smart(spec) as spawner:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawner.spawn)
            await spawner.until([True])
            await wait_all_tasks_blocked(0.05)
            assert spawner.current.forks == 1
            nursery.cancel_scope.cancel()
        preloader = spawner.current.pid
        with trio.fail_after(SOON):
            # It has forked when it has a child, and the child is a zombie when it was killed.
            while True:
                with open(f"/proc/{preloader}/task/{preloader}/children") as file:
                    children = [int(word) for word in file.read().split()]
                if children and is_dead(children[0]):
                    break
                await trio.sleep(0.01)


async def test_a_process_that_is_ready_before_its_preloader_tells_of_it_lives(nothing_left: Path) -> None:
    """Parent and child run at the same time after a fork: the scheduler says who is heard first."""
    async with smart(fake_preloader("forks_a_worker_and_tells_late", nothing_left)) as spawner:
        first = await spawn(spawner)
        second = await spawn(spawner)  # the preloader tells of the first before it forks
        await wait_all_tasks_blocked()
        assert await ask(first) == b"hello"
        await end(first, second)


async def test_the_exit_status_of_a_forked_process_is_told(nothing_left: Path, tmp_path: Path) -> None:
    source = "import os\ndef application(environ, start_response):\n    os._exit(7)\n"
    async with smart(written_spec(tmp_path, source, nothing_left)) as spawner:
        process = await spawn(spawner)
        stream = process.connect_nowait()
        stream.send_nowait(request())
        assert await wait_exit(process) == 7
        assert await process.wait_exit_status() == 7
        stream.close()
        process.close()
        process = await spawn(spawner)
        process.signal_group(signal.SIGKILL)
        assert await wait_exit(process) == -9
        process.close()


async def test_without_its_preloader_nobody_can_tell_but_nobody_waits_for_long(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        process = await spawn(spawner)
        spawner.retire_preloader()
        await spawner.until([True, False])
        process.signal_group(signal.SIGKILL)
        await process.wait_exit()
        begun = trio.current_time()
        assert await process.wait_exit_status() is None
        assert trio.current_time() - begun < 1.0
        process.close()


async def test_exit_statuses_that_nobody_asks_for_are_forgotten(nothing_left: Path) -> None:
    async with smart(hello_spec(nothing_left)) as spawner:
        await end(await spawn(spawner))
        preloader = spawner.current
        for pid in range(1000, 2000):
            preloader._remember_exit(ChildExited(pid, 256))
        assert len(preloader._exits) <= 256
        assert await preloader.wait_exit_status(1999) == 1
