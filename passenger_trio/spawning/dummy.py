"""DummySpawner: a verified fake of a Spawner, for tests of the layers above.

Its processes are tasks, not programs: a test lets a ``DummyProcess`` exit, and serves its streams with a function of its own.
``tests/spawning/test_spawner_conformance.py`` holds the fake and the real spawners to the same promises.
"""

from __future__ import annotations

import itertools
import signal
import socket
from collections.abc import Awaitable, Callable

import trio

from passenger_trio.codecs.worker_protocol import SESSION, WorkerProtocol
from passenger_trio.core.fork_safety import Forking
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.errors import SpawnError
from passenger_trio.spawning.spawner import PreloaderFacts
from passenger_trio.system.crash_check import CrashCheck
from passenger_trio.system.raw_stream import RawStream

__all__ = ["DummyProcess", "DummySpawner", "dummy_failure"]

Serve = Callable[["DummyProcess", RawStream], Awaitable[None]]
"""Serves one stream of a process: the worker's side of the protocol."""


def dummy_failure(summary: str = "the dummy was told to fail") -> SpawnFailure:
    """Evidence of a spawn that failed."""
    return SpawnFailure(
        error_id="00000000",
        category=ErrorCategory.APPLICATION,
        summary=summary,
        problem="A test wants it so.",
        solution="None is needed.",
        journey=Journey.begin(JourneyType.SPAWN_DIRECTLY).failed(0.0),
    )


class DummyProcess:
    """A process without a program."""

    def __init__(
        self,
        pid: int,
        concurrency: int,
        streams: trio.Nursery,
        serve: Serve | None,
        worker_protocol: WorkerProtocol = SESSION,
    ) -> None:
        self.pid = pid
        self.address = "unix:/nonexistent"
        self.concurrency = concurrency
        self.websocket = False
        self.crash_check: CrashCheck | None = None
        self.worker_protocol = worker_protocol
        self.journey = Journey.begin(JourneyType.SPAWN_DIRECTLY)
        self.spawn_time = 0.0
        self.preloaded = False
        self.output_tail: tuple[str, ...] = ()
        self.signals: list[int] = []
        self.asked_to_stop = 0
        self.obeys = True
        """Whether it ends when it is asked to, and when it gets SIGTERM."""
        self.can_be_asked = True
        """Whether it has a control connection that it reads."""
        self.closed = False
        self.exit_status: int | None = None
        self._exited = trio.Event()
        self._streams = streams
        self._serve = serve

    def connect_nowait(self) -> RawStream:
        if self._exited.is_set():
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._streams.start_soon(self._serve_stream, RawStream(theirs))
        return RawStream(ours)

    async def _serve_stream(self, stream: RawStream) -> None:
        try:
            if self._serve is not None:
                # A process outlives its spawner, so its streams do, too. They end when the process ends, which its owner always ensures.
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as nursery:

                        async def end_with_process() -> None:
                            await self._exited.wait()
                            nursery.cancel_scope.cancel()

                        nursery.start_soon(end_with_process)
                        await self._serve(self, stream)
                        nursery.cancel_scope.cancel()
        finally:
            stream.close()

    def exit(self, status: int = 0) -> None:
        """Let the process end now."""
        if not self._exited.is_set():
            self.exit_status = status
            self._exited.set()

    async def wait_exit(self) -> None:
        await self._exited.wait()

    async def wait_exit_status(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return self.exit_status

    def ask_to_stop(self, within: float | None = None) -> bool:
        if self._exited.is_set() or not self.can_be_asked:
            return False
        self.asked_to_stop += 1
        if self.obeys:
            self.exit(0)
        return True

    def signal_group(self, number: int) -> bool:
        assert not self.closed, "a signal after close"
        if self._exited.is_set():
            return False
        self.signals.append(number)
        if number == signal.SIGKILL or (number == signal.SIGTERM and self.obeys):
            self.exit(-number)
        return True

    async def backtrace(self) -> str:
        await trio.lowlevel.checkpoint()
        return "the process has ended" if self._exited.is_set() else f"dummy process {self.pid}"

    async def read_output(self) -> None:
        await trio.sleep_forever()

    def close(self) -> None:
        assert self._exited.is_set(), "closed before its exit was seen"
        self.closed = True


class DummySpawner:
    """Spawns by a script: each spawn takes the next of ``delays`` and of ``failures``. The last one of each repeats."""

    def __init__(
        self,
        *,
        concurrency: int = 1,
        serve: Serve | None = None,
        websocket: bool = False,
        worker_protocol: WorkerProtocol = SESSION,
        delays: tuple[float, ...] = (0.0,),
        failures: tuple[SpawnFailure | None, ...] = (None,),
    ) -> None:
        self.processes: list[DummyProcess] = []
        self.spawns = 0
        self.cancelled = 0
        self.preloaders_retired = 0
        self._concurrency = concurrency
        self._serve = serve
        self._websocket = websocket
        self._worker_protocol = worker_protocol
        self._delays = itertools.chain(delays, itertools.repeat(delays[-1]))
        self._failures = itertools.chain(failures, itertools.repeat(failures[-1]))
        self._pids = itertools.count(1001)
        self._streams: trio.Nursery | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._streams:
            task_status.started()
            await trio.sleep_forever()

    async def spawn(self) -> DummyProcess:
        self.spawns += 1
        try:
            await trio.sleep(next(self._delays))
        except trio.Cancelled:
            self.cancelled += 1
            raise
        failure = next(self._failures)
        if failure is not None:
            raise SpawnError(failure)
        assert self._streams is not None, "serve() is not running"
        process = DummyProcess(next(self._pids), self._concurrency, self._streams, self._serve, self._worker_protocol)
        process.websocket = self._websocket
        self.processes.append(process)
        return process

    def retire_preloader(self) -> None:
        """Count the call: there is no preloader."""
        self.preloaders_retired += 1

    @property
    def preloader(self) -> PreloaderFacts | None:
        return None

    @property
    def forking(self) -> Forking | None:
        return None
