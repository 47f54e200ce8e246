"""KE1, the mechanism: an unexpected exception costs what its task was for."""

from __future__ import annotations

import ast
import itertools
import logging
import re
from pathlib import Path

import pytest
import trio
import trio.testing

import passenger_trio
from passenger_trio.core.task_and_front_restarts import INTENSITY
from passenger_trio.error_kernel import ErrorKernel

ERRORS = [
    OSError(24, "Too many open files"),
    RuntimeError("can't start new thread"),
    ValueError("a value"),
    BaseExceptionGroup("several", [OSError("one"), ExceptionGroup("inner", [RuntimeError("two")])]),
]
EACH_ERROR = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


@pytest.fixture
def kernel() -> ErrorKernel:
    return ErrorKernel()


def failing(times: int, error: BaseException, runs: list[float]) -> object:
    async def run() -> None:
        runs.append(trio.current_time())
        if len(runs) <= times:
            raise error
        await trio.sleep_forever()

    return run


@EACH_ERROR
async def test_a_supervised_task_is_started_again(
    kernel: ErrorKernel, error: BaseException, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[float] = []
    with caplog.at_level(logging.ERROR), trio.move_on_after(100):
        await kernel.supervise("the watch", failing(3, error, runs))  # type: ignore[arg-type]
    assert len(runs) == 4
    waits = [after - before for before, after in itertools.pairwise(runs)]
    assert waits == sorted(waits)
    assert kernel.faults["the watch"].count == kernel.total == 3
    with_traceback = [record for record in caplog.records if record.exc_info]
    assert len(with_traceback) == 1
    assert "the watch failed (it is started again)" in with_traceback[0].getMessage()


async def test_it_ends_when_it_returns(kernel: ErrorKernel) -> None:
    async def run() -> None:
        await trio.lowlevel.checkpoint()

    await kernel.supervise("a task", run)
    assert kernel.total == 0


async def test_past_the_intensity_the_operator_is_told_and_it_is_tried_on(
    kernel: ErrorKernel, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[float] = []
    with trio.move_on_after(1000):
        await kernel.supervise("gauges", failing(10**6, OSError("no"), runs))  # type: ignore[arg-type]
    assert 30 < len(runs) < 60
    assert kernel.faults["gauges"].is_failing(trio.current_time())
    told = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(told) == 1
    assert "gauges keeps failing" in told[0].getMessage()


async def test_or_its_owner_is_told_and_does_without(
    kernel: ErrorKernel, autojump_clock: trio.testing.MockClock
) -> None:
    runs: list[float] = []
    told: list[bool] = []
    await kernel.supervise("output", failing(10**6, OSError("no"), runs), escalate=lambda: told.append(True))  # type: ignore[arg-type]
    assert told == [True]
    assert len(runs) == INTENSITY + 1


async def test_a_start_that_fails_is_done_with(kernel: ErrorKernel, autojump_clock: trio.testing.MockClock) -> None:
    runs: list[float] = []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        runs.append(trio.current_time())
        if len(runs) == 1:
            raise OSError("not yet")
        task_status.started()
        if len(runs) == 2:
            raise OSError("not any more")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(kernel.supervise_started, "the watch", run)
        assert len(runs) == 1
        await trio.sleep(10)
        assert len(runs) == 3
        nursery.cancel_scope.cancel()


async def test_but_not_where_there_is_no_server_without_it(
    kernel: ErrorKernel, autojump_clock: trio.testing.MockClock
) -> None:
    runs: list[float] = []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        runs.append(trio.current_time())
        if fails_at_once or len(runs) == 2:
            task_status.started() if len(runs) == 2 else None
            raise OSError("no")
        task_status.started()
        if len(runs) == 1:
            raise OSError("later")
        await trio.sleep_forever()

    def start(nursery: trio.Nursery) -> object:
        async def with_status(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            await kernel.supervise_started("spawn_listener", run, must_start=True, task_status=task_status)

        return nursery.start(with_status)

    fails_at_once = True
    with pytest.RaisesGroup(OSError):
        async with trio.open_nursery() as nursery:
            await start(nursery)  # type: ignore[misc]
    assert kernel.total == 0, "it is not ours to tell: it goes on"
    fails_at_once = False
    runs.clear()
    async with trio.open_nursery() as nursery:
        await start(nursery)  # type: ignore[misc]
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert kernel.total == 2
    assert len(runs) == 3


@EACH_ERROR
def test_what_is_contained_ends_here(kernel: ErrorKernel, error: BaseException) -> None:
    async def main() -> None:
        with kernel.contain("a caller") as containment:
            raise error
        assert isinstance(containment.error, type(error))
        with kernel.contain("a caller"):
            pass

    trio.run(main)
    assert kernel.faults["a caller"].count == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_is_no_fault_goes_on(kernel: ErrorKernel, error: BaseException) -> None:
    with pytest.raises(type(error)), kernel.contain("a caller"):
        raise error
    assert kernel.total == 0


async def test_also_out_of_the_middle_of_a_group(kernel: ErrorKernel) -> None:
    with pytest.RaisesGroup(KeyboardInterrupt), kernel.contain("a caller") as containment:
        raise BaseExceptionGroup("both", [ValueError("ours"), KeyboardInterrupt()])
    assert isinstance(containment.error, ExceptionGroup)
    assert kernel.total == 1


async def test_a_cancellation_unwinds_through_it(kernel: ErrorKernel) -> None:
    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the clean-up")

    reached = False
    with trio.CancelScope() as scope:
        with kernel.contain("a connection"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails_when_cancelled)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await trio.lowlevel.checkpoint()
        reached = True
    assert not reached
    assert scope.cancelled_caught
    assert kernel.total == 1


async def test_the_same_fault_again_is_counted_and_told_ever_more_rarely(
    kernel: ErrorKernel, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        with kernel.contain("connection"):
            raise ValueError("always here")
    with kernel.contain("connection"):
        raise ValueError("and here")
    assert kernel.faults["connection"].count == 1001
    assert [bool(record.exc_info) for record in caplog.records].count(True) == 2
    assert len(caplog.records) < 15


async def test_what_is_remembered_is_bounded(kernel: ErrorKernel) -> None:
    for number in range(2000):
        with kernel.contain(f"task {number % 7}"):
            exec(compile(f"{chr(10) * number}raise ValueError", "made", "exec"))
    assert len(kernel._places) <= 512
    assert kernel.total == 2000


async def test_who_listens_to_faults_does_not_make_the_kernel_fail(
    kernel: ErrorKernel, caplog: pytest.LogCaptureFixture
) -> None:
    """KE1."""

    def on_logged(task: str, what: str, times: int) -> None:
        raise ValueError("full")

    kernel.on_logged = on_logged
    with kernel.contain("a hook"):
        raise OSError("no")
    assert kernel.total == 1
    assert "cannot record a fault" in caplog.text


async def test_an_exception_that_cannot_be_told_is_told(
    kernel: ErrorKernel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    with kernel.contain("hooks"):
        raise Mute
    assert kernel.faults["hooks"].last == "Mute: (it cannot say what)"


# Tasks of the whole server that are started without the kernel, and why that is right.
ALONE = {
    "listen": "contains each signal",
    "_reload": "contains a reload",
    "run": "contains a reload, and tells whoever asked for it",
    "_follow_lifeline": "supervises what waits for the lifeline",
    "_settle_memory": "calls the interpreter's collector and nothing else",
    "open_to_operators": "without an admin socket a server does not start; what serves there is supervised, and what follows is contained",
    "_run_in": "runs the access log, which supervises itself",
    "front_processes.run": "supervises each front",
    "self.remains.serve": "takes nothing but tasks that contain their faults",
    "self.pool.run": "the policy is the one that may end the server",
}


def test_KE1_each_task_of_the_whole_server_is_supervised() -> None:
    """What is started in the nursery of the program, or of the tree, goes through the kernel, or is in the table."""
    package = Path(passenger_trio.__file__).parent
    alone = set()
    for path in [*package.glob("*.py"), *package.glob("reload/*.py"), package / "admin" / "admin_tasks.py"]:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                if call.func.attr not in ("start", "start_soon") or not _is_of_the_server(ast.unparse(call.func.value)):
                    continue
                first = call.args[0]
                if isinstance(first, ast.Call):  # partial(...)
                    first = first.args[0]
                if not re.search(r"(kernel\.supervise(_started)?|^keep)$", ast.unparse(first)):
                    alone.add(ast.unparse(first))
    assert alone == ALONE.keys()


def _is_of_the_server(nursery: str) -> bool:
    return nursery in ("program", "tree", "nursery", "parts.nursery", "self.parts.nursery")
