"""The contract of a Spawner, and of the process that it makes.

``Spawner.spawn`` starts one process and returns it ready to serve, or raises ``SpawnError``.
``Spawner.serve`` is the task in which a spawner keeps what outlives one spawn (a preloader).
``direct``, ``smart_forking``, ``generic``, ``warm_up`` and ``dummy`` (the verified fake) implement this
contract.

The pool knows a process only as a ``LiveProcess``: it connects to the process, watches it, asks it
to stop and kills it. ``SpawnedProcess`` is the real one.

Law: ``close`` is called only after the exit was seen, and nothing is signalled after that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio

from passenger_trio.codecs.control_protocol import AppEvent, encode_shutdown
from passenger_trio.codecs.worker_protocol import SESSION, WorkerProtocol
from passenger_trio.core.fork_safety import Forking
from passenger_trio.core.journey import Journey
from passenger_trio.errors import SpawnServerError
from passenger_trio.late_classes import define, frozen
from passenger_trio.log_lines import processes as lines
from passenger_trio.spawning.backtraces import take_backtrace
from passenger_trio.spawning.launch import EXIT_STATUS_TIME
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.spawning.spawn_listener import ControlConnection
from passenger_trio.system.crash_check import CrashCheck
from passenger_trio.system.listen import remove_unix_socket
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials, connect_unix_nowait

__all__ = [
    "LiveProcess",
    "PreloaderFacts",
    "ServingProcess",
    "SpawnedProcess",
    "Spawner",
    "WithoutPreloader",
    "leave_behind",
    "warn_of_stranger",
]


class ServingProcess(Protocol):
    """What a session needs of the process that it borrows."""

    @property
    def pid(self) -> int: ...
    @property
    def concurrency(self) -> int:
        """Sessions that the process serves at the same time; 0: any number."""

    @property
    def websocket(self) -> bool:
        """Whether the process takes WebSocket sessions."""

    @property
    def worker_protocol(self) -> WorkerProtocol:
        """The protocol of its sessions."""

    @property
    def crash_check(self) -> CrashCheck | None:
        """For protocols in which a response may end with its stream: tells a complete response from a crash."""

    def connect_nowait(self) -> RawStream:
        """Open a stream to the process.

        :raises BlockingIOError: its listen queue is full.
        :raises OSError: the process no longer listens.
        """


class LiveProcess(ServingProcess, Protocol):
    """A process that serves sessions, as its pool keeps it."""

    @property
    def address(self) -> str:
        """Where it listens: ``unix:/path``, or ``tcp://host:port``."""

    @property
    def journey(self) -> Journey: ...
    @property
    def spawn_time(self) -> float:
        """Seconds from the order until the process was ready."""

    @property
    def preloaded(self) -> bool: ...
    @property
    def output_tail(self) -> tuple[str, ...]:
        """The last lines that the process wrote, oldest first."""

    async def wait_exit(self) -> None:
        """Return when the process has ended."""

    async def wait_exit_status(self) -> int | None:
        """After the exit: the status as of ``subprocess.Popen.returncode``, or None if it is
        unknown. Takes ``EXIT_STATUS_TIME`` at most.
        """

    def ask_to_stop(self, within: float | None = None) -> bool:
        """Ask the process to finish its sessions and exit. False: it cannot be asked.

        :param within: seconds that it has, if they are fewer than it was told at its start.
        """

    def signal_group(self, number: int) -> bool:
        """Signal the process and its group. False: no process is left."""

    async def backtrace(self) -> str:
        """What the process is doing, for people (``backtraces``). Takes 4 seconds at most."""

    async def read_output(self) -> None:
        """Read the output and the events of the process until both end. If the process breaks the
        contract, its control connection is closed, which ends it. May be cancelled and called
        again: the warm-up reads first, then the pool.
        """

    def close(self) -> None:
        """Close everything that belongs to the process."""


def leave_behind(remains: Remains | None, output: OutputPipe, pidfd: PidFd, grace: float) -> None:
    """A process has ended: hand its output and its process group to ``remains``, or end both now."""
    if remains is not None:
        remains.adopt_output(output)
        remains.adopt_group(pidfd, grace)
    else:
        output.close()
        pidfd.signal_group(signal.SIGKILL)
        pidfd.close()


def warn_of_stranger(pid: int, listener: PeerCredentials) -> None:
    """Log that another process listens on the socket of a worker."""
    lines.stranger_listens(pid=pid, stranger=listener.pid, uid=listener.uid)


@define(eq=False)
class SpawnedProcess:
    """A real process; see ``LiveProcess``."""

    pidfd: PidFd
    socket_path: str
    concurrency: int
    control: ControlConnection
    output: OutputPipe
    journey: Journey
    spawn_time: float
    preloaded: bool
    ask_exit_status: Callable[[], Awaitable[int]] | None = None
    """For a process that is not our child: waits until its parent reports the exit status. The
    parent reports it once.
    """
    websocket: bool = False
    worker_protocol: WorkerProtocol = SESSION
    remains: Remains | None = None
    """Takes what the process leaves behind."""
    grace: float = 0.0
    """Seconds until what it leaves behind is killed."""
    uid: int = attrs.field(factory=os.getuid)
    """The application's user."""
    crash_check: CrashCheck | None = attrs.field(init=False)
    _told: int | None = None

    @crash_check.default
    def _(self) -> CrashCheck | None:
        return CrashCheck(self.pidfd) if self.worker_protocol.name == "http" else None

    @property
    def pid(self) -> int:
        return self.pidfd.pid

    @property
    def address(self) -> str:
        return f"unix:{self.socket_path}"

    @property
    def output_tail(self) -> tuple[str, ...]:
        self.output.drain()
        return self.output.tail

    def connect_nowait(self) -> RawStream:
        return connect_unix_nowait(self.socket_path, self._is_listener)

    def _is_listener(self, listener: PeerCredentials) -> bool:
        """Whether the worker itself listens (KE5). Any process of our user could bind another
        socket to its path.
        """
        believed = listener.pid == self.pid and listener.uid == self.uid
        if not believed:
            warn_of_stranger(self.pid, listener)
        return believed

    async def wait_exit(self) -> None:
        await self.pidfd.wait_exit()

    async def wait_exit_status(self) -> int | None:
        await trio.lowlevel.checkpoint()
        if self.pidfd.exit_status is None and self._told is None and self.ask_exit_status is not None:
            with trio.move_on_after(EXIT_STATUS_TIME):
                self._told = await self.ask_exit_status()
        return self._told if self.pidfd.exit_status is None else self.pidfd.exit_status

    def ask_to_stop(self, within: float | None = None) -> bool:
        return self.control.send_nowait(encode_shutdown(within))

    def signal_group(self, number: int) -> bool:
        return self.pidfd.signal_group(number)

    async def backtrace(self) -> str:
        return await take_backtrace(self.control, self.pidfd, self.output)

    async def read_output(self) -> None:
        async with trio.open_nursery() as readers:
            readers.start_soon(self.output.run)
            try:
                while (message := await self.control.receive()) is not None:
                    if not isinstance(message, AppEvent):
                        raise SpawnServerError(f"a worker sent {type(message).__name__} after it was ready")
                    lines.process_event(pid=self.pid, name_of_event=message.name, members=str(dict(message.fields)))
            except SpawnServerError as exc:
                # A loader ends within a second after its control connection. Its output is read
                # until then: a program that waits for room in a pipe does not end.
                lines.loader_broke_protocol(pid=self.pid, reason=str(exc))
                self.control.close()

    def close(self) -> None:
        self.control.close()
        leave_behind(self.remains, self.output, self.pidfd, self.grace)
        remove_unix_socket(self.socket_path)


@frozen
class PreloaderFacts:
    """A spawner's preloader, for ``status``."""

    pid: int
    started: float
    """Monotonic seconds."""
    forks: int


class Spawner(Protocol):
    """Makes processes of one application."""

    async def spawn(self) -> LiveProcess:
        """Make a process that is ready to serve. When cancelled, it ends what it started before it returns.

        :raises SpawnError: with the evidence.
        """

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what outlives one spawn. Runs until cancelled, and then ends what it kept."""

    def retire_preloader(self) -> None:
        """End the preloader, if there is one. Processes that it forked live on."""

    @property
    def preloader(self) -> PreloaderFacts | None:
        """The preloader in use."""

    @property
    def forking(self) -> Forking | None:
        """How processes are made. None: unknown yet, or this spawner never forks."""


class WithoutPreloader:
    """The part of ``Spawner`` that is the same for spawners that keep nothing between two spawns."""

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sleep until cancelled."""
        task_status.started()
        await trio.sleep_forever()

    def retire_preloader(self) -> None:
        """This spawner has no preloader."""

    @property
    def preloader(self) -> PreloaderFacts | None:
        return None

    @property
    def forking(self) -> Forking | None:
        return None
