"""DirectSpawner: a fresh program for each process. ``start_loader`` also starts preloaders.

This module knows how to start a loader: command, environment, output pipe and pending spawn. ``launch`` waits until the program
is ready. Law: a spawn that fails, or is cancelled, leaves nothing behind.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Protocol

import trio

from passenger_trio.codecs.control_protocol import Ready
from passenger_trio.codecs.http1_worker import WORKER_PROTOCOLS
from passenger_trio.core.journey import JourneyType
from passenger_trio.core.model import ErrorCategory
from passenger_trio.errors import SpawnError
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.launch import Launch
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.running_preloader import take_when_it_listens, wait_exit_status
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.spawning.spawner import SpawnedProcess, WithoutPreloader
from passenger_trio.system.children import start_program
from passenger_trio.system.pidfd import pin_child
from passenger_trio.system.unix_peers import PeerCredentials

__all__ = ["DirectSpawner", "Sink", "process_of", "start_loader"]


class Sink(Protocol):
    """The receiver of the processes' output."""

    def write(self, pid: int, lines: list[str]) -> None:
        """Take lines of one process, in order."""

    def has_room(self) -> bool:
        """Whether lines can be written now without loss."""


async def start_loader(
    launch: Launch, spawn_listener: SpawnListener, command: tuple[str, ...], role: str, sink: Sink | None
) -> Ready:
    """Start a loader and wait until it is ready.

    :raises SpawnError: the loader did not become ready. The caller must call ``launch.abandon``.
    """
    spec, output = launch.spec, launch.output
    launch.command = command
    pid = 0

    try:
        own = launch.make_environment()
    except SpawnError:
        spawn_listener.end_early()  # it runs with an environment that there is no more, and nobody would look after it
        raise
    early = spawn_listener.take_early(role, command, own, spec.umask, launch.options_for)

    with spawn_listener.expect(
        role, lambda peer: is_program(peer, pid, spec.uid), early.pending if early is not None else None
    ) as pending:
        environment = {
            **own,
            "PASSENGER_TRIO_SPAWN_SOCKET": spawn_listener.path,
            "PASSENGER_TRIO_SPAWN_TOKEN": pending.token,
        }
        launch.advance("preparation", "start_program")
        try:
            output.give_to(spec.user)
            if early is not None:
                pidfd = early.pidfd
                pid = pidfd.pid
                output.close()
                output = launch.output = early.output
                launch.socket_name = early.socket_name
            elif spec.takes(role):
                what = "preloader" if role == "preloader" else "process"
                command = launch.command = (f"the {what} on {spec.app.preloader_socket}",)
                pidfd = await take_when_it_listens(spec.app.preloader_socket, environment, output.writing_end)
                pid = pidfd.pid
                launch.ask_exit_status = partial(wait_exit_status, pidfd)
            else:
                pid = start_program(
                    command,
                    cwd=spec.detected.root,
                    env=environment,
                    output=output.writing_end,
                    user=spec.user,
                    umask=spec.umask,
                    prepare=spec.prepare,
                )
                pidfd = pin_child(pid)
            launch.pin(pidfd)
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the environment, ...
            raise _cannot_start(launch, command, exc) from exc
        output.close_writing_end()
        if sink is not None:
            output.on_lines = partial(sink.write, pid)
            output.has_room = sink.has_room
        launch.advance("start_program", "connect_back")
        if early is not None and early.control is not None:
            launch.resume(early.control)
            return await launch.wait_ready(None, spec.app.start_timeout)
        return await launch.wait_ready(pending, spec.app.start_timeout)


def is_program(peer: PeerCredentials, pid: int, uid: int) -> bool:
    """Whether the peer is the program that was started, and runs as the application's user (R47)."""
    return peer.pid == pid and peer.uid == uid


def _cannot_start(launch: Launch, command: tuple[str, ...], exc: OSError | ValueError) -> SpawnError:
    why = str(exc)
    if launch.spec.app.preloader_socket and command[0].startswith("the "):
        return launch.failure(
            ErrorCategory.OPERATING_SYSTEM,
            f"{command[0]} cannot be taken into use: {getattr(exc, 'strerror', None) or why}",
            "No program of this user waits there.",
            "Start it again, and then restart the application: its socket serves one start.",
        )
    if isinstance(exc, OSError):
        why = exc.strerror or why
        if exc.filename and exc.filename != command[0]:
            why += f" ({exc.filename})"
    if not os.path.isdir(launch.spec.detected.root):
        return launch.failure(
            ErrorCategory.CONFIGURATION,
            f"The application's directory {launch.spec.detected.root} does not exist any more",
            "It was there when the server started, and was removed or renamed since.",
            "Put it back. The next attempt finds it; `passenger-trio restart` makes one at once.",
        )
    return launch.failure(
        ErrorCategory.OPERATING_SYSTEM,
        f"The interpreter {command[0]} cannot be started{_by_whom(launch.spec)}: {why}",
        "The operating system refused to start the application's interpreter.",
        "Check that the interpreter and the application's directory exist and can be accessed. --python or --ruby chooses another interpreter."
        + (
            ""
            if launch.spec.run_as is None
            else " --app-user chooses another user; --user root runs everything as root."
        ),
    )


def _by_whom(spec: AppSpec) -> str:
    return f" as {spec.run_as.account.shown}" if spec.run_as is not None else ""


def process_of(launch: Launch, ready: Ready, spawn_time: float, remains: Remains | None) -> SpawnedProcess:
    """The process of a launch that is ready to serve. It owns everything of the launch from here on."""
    assert launch.pidfd is not None
    assert launch.control is not None
    return SpawnedProcess(
        pidfd=launch.pidfd,
        socket_path=launch.socket_path,
        concurrency=ready.sockets[0].concurrency,
        websocket=ready.sockets[0].websocket,
        worker_protocol=WORKER_PROTOCOLS[ready.sockets[0].protocol],
        control=launch.control,
        output=launch.output,
        journey=launch.journey,
        spawn_time=spawn_time,
        preloaded=False,
        remains=remains,
        grace=launch.spec.app.shutdown_timeout,
        uid=launch.spec.uid,
        ask_exit_status=None if launch.ask_exit_status is None else partial(launch.ask_exit_status, launch.pidfd.pid),
    )


class DirectSpawner(WithoutPreloader):
    """Starts a program for each process."""

    def __init__(
        self, spec: AppSpec, spawn_listener: SpawnListener, sink: Sink | None = None, remains: Remains | None = None
    ) -> None:
        self._spec = spec
        self._spawn_listener = spawn_listener
        self._sink = sink
        self._remains = remains
        self._taking = trio.Lock()
        """Held while a spawn takes a program into use that runs already: only one of them listens at a time."""

    async def spawn(self) -> SpawnedProcess:
        """See ``Spawner``."""
        if self._spec.takes("worker"):
            async with self._taking:
                return await self._spawn()
        return await self._spawn()

    async def _spawn(self) -> SpawnedProcess:
        begun = trio.current_time()
        launch = Launch.begin(self._spec, JourneyType.SPAWN_DIRECTLY)
        done = False
        try:
            ready = await start_loader(launch, self._spawn_listener, self._spec.command, "worker", self._sink)
            process = process_of(launch, ready, trio.current_time() - begun, self._remains)
            done = True
            return process
        finally:
            if not done:
                await launch.abandon()
