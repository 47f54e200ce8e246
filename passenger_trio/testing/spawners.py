"""Checks of a ``Spawner``: whoever passes them can start processes for a pool (LI7).

``check_spawner(spawner)`` runs all; ``SPAWNER_CHECKS`` has them one by one, for a test that names what broke. The spawner must
make processes that answer ``GET /`` with status 200. Its ``serve`` is run by the check.

    async def test_my_spawner() -> None:
        await check_spawner(MySpawner())
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.request_id import make_id_pairs
from passenger_trio.spawning.spawner import LiveProcess, Spawner
from passenger_trio.spawning.worker_client import WorkerExchange
from passenger_trio.testing.conformance.basis import ConformanceFailure, expect

__all__ = ["SPAWNER_CHECKS", "ask_process", "check_spawner"]

_TIME = 30.0
"""Seconds for each check."""
_PAIRS = (
    b"REQUEST_SCHEME\0http\0SERVER_NAME\0localhost\0SERVER_PORT\x0080\0"
    b"REMOTE_ADDR\x00127.0.0.1\0REMOTE_PORT\x001\0SERVER_SOCKET\0\0"
)

SpawnerCheck = Callable[[Spawner], Awaitable[None]]


async def check_spawner(spawner: Spawner) -> None:
    """Run every check with one spawner. It must leave nothing, which the caller checks by its own means.

    :raises ConformanceFailure: at least one failed; the text names all that did.
    """
    failures = []
    async with trio.open_nursery() as serving:
        await serving.start(spawner.serve)
        for check in SPAWNER_CHECKS:
            try:
                with trio.fail_after(_TIME):
                    await check(spawner)
            except Exception as failure:  # noqa: BLE001  a spawner of somebody's own may raise anything: it is the finding
                name = check.__name__.replace("_", " ")
                what = f"not done within {_TIME:g} s" if isinstance(failure, trio.TooSlowError) else str(failure)
                kind = (
                    "" if isinstance(failure, ConformanceFailure | trio.TooSlowError) else type(failure).__name__ + " "
                )
                failures.append(f"{name}: {kind}{what}")
        serving.cancel_scope.cancel()
    if failures:
        raise ConformanceFailure("\n".join(failures))


async def ask_process(process: LiveProcess) -> bytes:
    """The body of the response to ``GET /``, on a stream of its own.

    :raises ConformanceFailure: the status is not 200.
    """
    stream = process.connect_nowait()
    try:
        exchange = WorkerExchange(stream, process.worker_protocol)
        head = Head(b"GET", b"/", b"/", b"", b"1.1", b"localhost", [(b"Host", b"localhost")])
        await exchange.send(head, _PAIRS, b"", make_id_pairs(b"check", b""), b"")
        status = (await exchange.head()).status
        body = b""
        while (piece := await exchange.piece()) is not None:
            body += piece
        expect(status == 200, f"GET / is answered with {status}")
        return body
    finally:
        stream.close()


async def _end(process: LiveProcess) -> None:
    process.signal_group(signal.SIGKILL)
    await process.wait_exit()
    process.close()


async def a_process_that_is_ready_answers(spawner: Spawner) -> None:
    """Twice, on two streams."""
    process = await spawner.spawn()
    try:
        expect(process.pid > 0, f"its pid is {process.pid}")
        expect(process.concurrency >= 0, f"its concurrency is {process.concurrency}")
        expect(process.spawn_time >= 0, f"its spawn time is {process.spawn_time}")
        for _ in range(2):
            await ask_process(process)
    finally:
        await _end(process)


async def several_spawned_at_once_are_several(spawner: Spawner) -> None:
    processes: list[LiveProcess] = []

    async def one() -> None:
        processes.append(await spawner.spawn())

    try:
        async with trio.open_nursery() as spawning:
            for _ in range(3):
                spawning.start_soon(one)
        pids = {process.pid for process in processes}
        expect(len(pids) == 3, f"three spawns made the processes {sorted(pids)}")
    finally:
        for process in {process.pid: process for process in processes}.values():
            await _end(process)


async def the_end_of_a_process_is_seen_and_not_before(spawner: Spawner) -> None:
    process = await spawner.spawn()
    with trio.move_on_after(0.1) as early:
        await process.wait_exit()
    expect(early.cancelled_caught, "wait_exit returned while the process ran")
    expect(process.signal_group(signal.SIGKILL), "a running process cannot be signalled")
    await process.wait_exit()
    status = await process.wait_exit_status()
    expect(status in (None, -signal.SIGKILL), f"the exit status after SIGKILL is {status}")
    try:
        process.connect_nowait().close()
    except OSError:
        pass
    else:
        raise ConformanceFailure("a stream was opened to a process that has ended")
    expect(not process.ask_to_stop(), "ask_to_stop is True for a process that has ended")
    process.close()


async def who_is_asked_to_stop_ends(spawner: Spawner) -> None:
    """``ask_to_stop`` may be False (nobody can be asked); then SIGTERM has to do."""
    process = await spawner.spawn()
    if not process.ask_to_stop():
        process.signal_group(signal.SIGTERM)
    await process.wait_exit()
    process.close()


async def reading_output_may_be_cancelled_and_begun_again(spawner: Spawner) -> None:
    process = await spawner.spawn()
    try:
        for _ in range(2):
            with trio.move_on_after(0.05):
                await process.read_output()
        await ask_process(process)
    finally:
        await _end(process)


async def a_cancelled_spawn_ends_what_it_started(spawner: Spawner) -> None:
    """At several moments. (What is left is for the caller to look for.)"""
    for seconds in (0.0, 0.001, 0.01, 0.05):
        process: LiveProcess | None = None
        with trio.move_on_after(seconds):
            process = await spawner.spawn()
        if process is not None:
            await _end(process)


async def a_retired_preloader_leaves_its_processes(spawner: Spawner) -> None:
    process = await spawner.spawn()
    try:
        spawner.retire_preloader()
        await ask_process(process)
    finally:
        await _end(process)
    again = await spawner.spawn()
    await _end(again)


SPAWNER_CHECKS: tuple[SpawnerCheck, ...] = (
    a_process_that_is_ready_answers,
    several_spawned_at_once_are_several,
    the_end_of_a_process_is_seen_and_not_before,
    who_is_asked_to_stop_ends,
    reading_output_may_be_cancelled_and_begun_again,
    a_cancelled_spawn_ends_what_it_started,
    a_retired_preloader_leaves_its_processes,
)
