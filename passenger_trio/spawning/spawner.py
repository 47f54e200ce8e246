"""The contract of a Spawner, and of the process that it makes.

``Spawner.spawn`` starts one process and returns it ready to serve, or raises ``SpawnError``. ``Spawner.serve`` is the task in which a
spawner keeps what outlives one spawn (a preloader). Three spawners keep this contract: ``direct``, ``smart``, and ``dummy``, the verified fake.

A ``LiveProcess`` is all that the pool knows of a process: it can be connected to, watched, asked to stop and killed. ``SpawnedProcess`` is the real
one. Laws: ``close`` only after the exit was seen; nothing is signalled after that.
"""

from __future__ import annotations

import logging
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
from passenger_trio.spawning.handshake import EXIT_STATUS_TIME
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.spawning.reception import ControlConnection
from passenger_trio.spawning.remains import Remains
from passenger_trio.system.endings import Endings
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.sockets import PeerCredentials, RawStream, connect_unix_nowait, remove_unix_socket

__all__ = ["LiveProcess", "PreloaderFacts", "SpawnedProcess", "Spawner", "leave_behind", "warn_of_stranger"]

_log = logging.getLogger("passenger_trio.spawning")


class LiveProcess(Protocol):
    """A process that serves sessions."""

    @property
    def pid(self) -> int: ...
    @property
    def concurrency(self) -> int:
        """Sessions that it serves at the same time; 0: any number."""

    @property
    def websocket(self) -> bool:
        """Whether it takes WebSocket sessions."""

    @property
    def worker_protocol(self) -> WorkerProtocol:
        """How its sessions are spoken."""

    @property
    def journey(self) -> Journey: ...
    @property
    def spawn_time(self) -> float:
        """Seconds from the order until it was ready."""

    @property
    def preloaded(self) -> bool: ...
    @property
    def endings(self) -> Endings | None:
        """Where a response may end with its stream: what tells whether that was a good end."""

    @property
    def output_tail(self) -> tuple[str, ...]:
        """The last lines that it wrote, oldest first."""

    def connect_nowait(self) -> RawStream:
        """A new stream to it.

        :raises BlockingIOError: its queue of connections is full.
        :raises OSError: it does not listen any more.
        """

    async def wait_exit(self) -> None:
        """Return when it has ended."""

    async def wait_exit_status(self) -> int | None:
        """After its exit: the status as of ``subprocess.Popen.returncode``, or None when nobody can tell. Takes a moment at most."""

    def ask_to_stop(self) -> bool:
        """Ask it to finish its sessions and end. False: it cannot be asked."""

    def signal_group(self, number: int) -> bool:
        """Signal it and its process group. False: nobody is there."""

    async def attend(self) -> None:
        """Read its output and what it reports, for as long as there is any. When it breaks the contract it is hung up on, which ends it.
        May be cancelled and called again, by whoever has it next (the warm-up, then the pool).
        """

    def close(self) -> None:
        """Let go of everything that belongs to it."""


def leave_behind(remains: Remains | None, output: OutputPipe, pidfd: PidFd, grace: float) -> None:
    """A process has ended: hand over its output and its process group, or end both now where nobody takes them."""
    if remains is not None:
        remains.adopt_output(output)
        remains.adopt_group(pidfd, grace)
    else:
        output.close()
        pidfd.signal_group(signal.SIGKILL)
        pidfd.close()


def warn_of_stranger(pid: int, listener: PeerCredentials) -> None:
    """Somebody else listens on a process's socket."""
    _log.warning(
        "pid %d (user %d) listens on the socket of pid %d: it gets no request, and pid %d is replaced",
        *(listener.pid, listener.uid, pid, pid),
    )


@attrs.define(eq=False)
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
    told_exit_status: Callable[[], Awaitable[int]] | None = None
    """Of a process that is not our child: waits until its parent tells, which it does once."""
    websocket: bool = False
    worker_protocol: WorkerProtocol = SESSION
    remains: Remains | None = None
    """Who has what it leaves behind."""
    grace: float = 0.0
    """Seconds for that to end."""
    endings: Endings | None = attrs.field(init=False)
    _told: int | None = None

    @endings.default
    def _(self) -> Endings | None:
        return Endings(self.pidfd) if self.worker_protocol.name == "http" else None

    @property
    def pid(self) -> int:
        return self.pidfd.pid

    @property
    def output_tail(self) -> tuple[str, ...]:
        self.output.drain()
        return self.output.tail

    def connect_nowait(self) -> RawStream:
        return connect_unix_nowait(self.socket_path, self._is_listener)

    def _is_listener(self, listener: PeerCredentials) -> bool:
        """Whether the worker itself listens (KE5): whoever runs as our user can bind another socket to its path."""
        believed = listener.pid == self.pid and listener.uid == os.getuid()
        if not believed:
            warn_of_stranger(self.pid, listener)
        return believed

    async def wait_exit(self) -> None:
        await self.pidfd.wait_exit()

    async def wait_exit_status(self) -> int | None:
        await trio.lowlevel.checkpoint()
        if self.pidfd.exit_status is None and self._told is None and self.told_exit_status is not None:
            with trio.move_on_after(EXIT_STATUS_TIME):
                self._told = await self.told_exit_status()
        return self._told if self.pidfd.exit_status is None else self.pidfd.exit_status

    def ask_to_stop(self) -> bool:
        return self.control.send_nowait(encode_shutdown())

    def signal_group(self, number: int) -> bool:
        return self.pidfd.signal_group(number)

    async def attend(self) -> None:
        async with trio.open_nursery() as readers:
            readers.start_soon(self.output.run)
            try:
                while (message := await self.control.receive()) is not None:
                    if not isinstance(message, AppEvent):
                        raise SpawnServerError(f"a worker sent {type(message).__name__} after it was ready")
                    _log.info("event from pid %d: %s %s", self.pid, message.name, dict(message.fields))
            except SpawnServerError as exc:
                # A loader whose control connection ends is gone within a second. Its output is read for as long as it lives: nobody
                # else does, and a program that waits for room in a pipe does not end.
                _log.warning("pid %d: %s", self.pid, exc)
                self.control.close()

    def close(self) -> None:
        self.control.close()
        leave_behind(self.remains, self.output, self.pidfd, self.grace)
        remove_unix_socket(self.socket_path)


@attrs.frozen
class PreloaderFacts:
    """What there is to know of a spawner's preloader, for ``status``."""

    pid: int
    started: float
    """Monotonic seconds."""
    forks: int


class Spawner(Protocol):
    """Makes processes of one application."""

    async def spawn(self) -> LiveProcess:
        """A new process, ready to serve. When cancelled, what it started is gone before it returns.

        :raises SpawnError: with the evidence.
        """

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what outlives one spawn. Runs until cancelled; whatever it kept is gone then."""

    def retire_preloader(self) -> None:
        """Let the preloader go, if there is one. Processes that it forked live on."""

    @property
    def preloader(self) -> PreloaderFacts | None:
        """The preloader that is there now."""

    @property
    def forking(self) -> Forking | None:
        """How its processes are made; None while that is not known, or where nothing could be forked."""
