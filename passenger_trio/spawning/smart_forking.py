"""SmartSpawner: forks processes from a preloader, which has loaded the application once and shares
its memory with them.

The spawner knows which preloader is in use, and starts one when there is none. ``preloader`` runs the
preloader itself; ``core.fork_safety`` decides whether forking is safe.

Laws:

* At most one preloader is in use. It starts with the first spawn, and again when it is gone. Spawns
  that arrive meanwhile wait for that one start and share its failure.
* If forking is not safe (``--spawn-method auto``), the preloader goes on as the first process, so
  that nothing is loaded twice. Every other process is started directly.
* A preloader is stuck if its process does not connect within ``_FORK_TIME`` (F10): it is killed,
  and this one process is started directly. A process that has connected has the application's start
  timeout.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import trio

from passenger_trio.codecs.control_protocol import SocketSpec, encode_serve
from passenger_trio.codecs.http1_worker import WORKER_PROTOCOLS
from passenger_trio.core.fork_safety import DIRECT, Forking, judge
from passenger_trio.core.journey import JourneyType
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import SpawnError
from passenger_trio.log_lines import processes as lines
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.direct import DirectSpawner, Sink, process_of, start_loader
from passenger_trio.spawning.launch import Launch
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.preloader import Preloader
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.spawning.spawner import PreloaderFacts, SpawnedProcess
from passenger_trio.system.pidfd import PidFd, parent_of
from passenger_trio.system.unix_peers import PeerCredentials

__all__ = ["SmartSpawner"]

_FORK_TIME = 15.0
_SETTLE_TIME = 1.0
"""Seconds for which an abandoned spawn waits for the preloader's report on the fork."""

_OUTLASTING = ("exit_hook", "process")
"""Kinds of hazards for which a preloader must outlive the processes that it forked."""


class SmartSpawner:
    """Forks processes from a preloader. ``serve`` must be running before ``spawn`` is called."""

    def __init__(
        self,
        spec: AppSpec,
        spawn_listener: SpawnListener,
        sink: Sink | None = None,
        *,
        on_preloader: Callable[[int, bool], None] = lambda number, started: None,
        on_unsafe: Callable[[], None] = lambda: None,
        fork_time: float = _FORK_TIME,
        kernel: ErrorKernel | None = None,
        remains: Remains | None = None,
    ) -> None:
        """:param on_preloader: called with the preloader's number when it has started (True) and
        when it has ended (False).
        :param on_unsafe: called once, when the application is found unsafe to fork, before waiting
            spawns go on.
        """
        self._kernel = kernel or ErrorKernel()
        self._spec = spec
        self._spawn_listener = spawn_listener
        self._sink = sink
        self._remains = remains
        self._on_preloader = on_preloader
        self._on_unsafe = on_unsafe
        self._fork_time = fork_time
        self._direct = DirectSpawner(spec, spawn_listener, sink, remains)
        self._starting = trio.Lock()
        self._start_failure: SpawnFailure | None = None
        self._failed_starts = 0
        self._started = 0
        """Number of the newest preloader."""
        self._preloader: Preloader | None = None
        self._forking: Forking | None = None
        """Known from the first preloader on: a spawner belongs to one generation."""
        self._keepers: trio.Nursery | None = None
        self._left_groups: list[PidFd] = []
        """Process groups that outlived their preloaders. The application started them while it was
        loaded, and its processes may use them.
        """

    @property
    def preloader(self) -> PreloaderFacts | None:
        return self._preloader.facts if self._preloader is not None and self._preloader.lives else None

    @property
    def forking(self) -> Forking | None:
        return self._forking

    @property
    def _forks(self) -> bool:
        return self._forking is None or self._forking.method != DIRECT

    def retire_preloader(self) -> None:
        if self._preloader is not None:
            self._preloader.retire()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The preloader keepers run here; see ``Spawner``."""
        try:
            async with trio.open_nursery() as keepers:
                self._keepers = keepers
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._keepers = None
            for group in self._left_groups:
                self._end_group(group)
            self._left_groups.clear()

    def _end_group(self, group: PidFd) -> None:
        if self._remains is not None:
            self._remains.adopt_group(group, self._spec.app.shutdown_timeout)
        else:
            group.signal_group(signal.SIGKILL)
            group.close()

    async def spawn(self) -> SpawnedProcess:
        """See ``Spawner``."""
        begun = trio.current_time()
        for last_try in (False, True):
            preloader = await self._usable_preloader()
            if isinstance(preloader, Launch):
                return await self._serve_in_preloader(preloader, begun)
            if preloader is None:
                break
            try:
                return await self._spawn_through(preloader, begun)
            except SpawnError as error:
                if not preloader.usable and not last_try:
                    continue  # it crashed, perhaps long ago: try once with a new one
                if error.failure.category is not ErrorCategory.TIMEOUT or not _never_connected(error.failure):
                    raise
            lines.preloader_stuck(group=self._spec.key.name, pid=preloader.pid)
            preloader.retire()
            break
        return await self._direct.spawn()

    async def _usable_preloader(self) -> Preloader | Launch | None:
        """The preloader in use; starts one if there is none. None: forking is not safe, so there is
        no preloader.

        A ``Launch`` is a preloader that was started just now and is not safe to fork: the caller
        must call ``_serve_in_preloader``.
        """
        seen = self._failed_starts
        async with self._starting:
            if not self._forks:
                return None
            if self._preloader is not None and self._preloader.usable:
                return self._preloader
            if self._start_failure is not None and self._failed_starts > seen:
                raise SpawnError(self._start_failure)
            try:
                started = await self._start_preloader()
            except SpawnError as error:
                self._failed_starts += 1
                self._start_failure = error.failure
                raise
            if isinstance(started, Preloader):
                self._preloader = started
            return started

    async def _start_preloader(self) -> Preloader | Launch:
        launch = Launch.begin(self._spec, JourneyType.START_PRELOADER)
        done = False
        try:
            ready = await start_loader(
                launch, self._spawn_listener, self._spec.preloader_command, "preloader", self._sink
            )
            if self._keepers is None:
                raise launch.failure(
                    ErrorCategory.OPERATING_SYSTEM,
                    "The preloader is no longer needed",
                    "Its generation ended, or the server stopped, while it became ready.",
                    "There is nothing to do.",
                )
            self._judge(launch, judge(self._spec.app.spawn_method, ready.hazards))
            if not self._forks:
                done = True
                return launch
            outlasts = any(hazard.kind in _OUTLASTING for hazard in ready.hazards)
            preloader = Preloader(launch, self._kernel, outlasts=outlasts, remains=self._remains)
            # In this step, so that the pool learns of the preloader before it learns how this spawn ended.
            self._started += 1
            self._on_preloader(self._started, True)
            self._keepers.start_soon(self._keep, preloader, self._started)
            done = True
            return preloader
        finally:
            if not done:
                await launch.abandon()

    def _judge(self, launch: Launch, forking: Forking) -> None:
        if forking.warning and forking != self._forking:
            pid = launch.pidfd.pid if launch.pidfd is not None else 0
            lines.unsafe_to_fork(group=self._spec.key.name, pid=pid, reason=forking.warning)
        self._forking = forking
        if not self._forks:
            self._on_unsafe()

    async def _serve_in_preloader(self, launch: Launch, begun: float) -> SpawnedProcess:
        """Let a preloader that is not safe to fork go on as a worker."""
        done = False
        try:
            assert launch.control is not None
            launch.journey = launch.journey.gone_on()
            launch.control.send_nowait(encode_serve())
            ready = await launch.wait_ready(None, self._spec.app.start_timeout)
            process = process_of(launch, ready, trio.current_time() - begun, self._remains)
            done = True
            return process
        finally:
            if not done:
                await launch.abandon()

    async def _keep(self, preloader: Preloader, number: int) -> None:
        try:
            with self._kernel.contain("a preloader keeper", "the preloader is ended"):
                await preloader.keep()
        finally:
            with self._kernel.contain("a preloader keeper"):
                self._on_preloader(number, False)
            with self._kernel.contain("a preloader keeper"):
                groups = [*self._left_groups, preloader.pidfd]
                if not preloader.has_forks:
                    self._end_group(groups.pop())  # no process is left that could use the group's members
                self._left_groups = [group for group in groups if group.signal_group(0)]
                for group in groups:
                    if group not in self._left_groups:
                        group.close()

    async def _spawn_through(self, preloader: Preloader, begun: float) -> SpawnedProcess:
        launch = Launch.begin(self._spec, JourneyType.SPAWN_THROUGH_PRELOADER)
        launch.command = (f"fork of the preloader (pid {preloader.pid})",)
        launch.ask_exit_status = preloader.wait_exit_status
        done = False
        try:
            socket = await self._fork(launch, preloader)
            assert launch.pidfd is not None
            assert launch.control is not None
            process = SpawnedProcess(
                pidfd=launch.pidfd,
                socket_path=launch.socket_path,
                concurrency=socket.concurrency,
                websocket=socket.websocket,
                worker_protocol=WORKER_PROTOCOLS[socket.protocol],
                control=launch.control,
                output=launch.output,
                journey=launch.journey,
                spawn_time=trio.current_time() - begun,
                preloaded=True,
                uid=self._spec.uid,
                ask_exit_status=partial(preloader.wait_exit_status, launch.pidfd.pid),
                remains=self._remains,
                grace=self._spec.app.shutdown_timeout,
            )
            done = True
            return process
        finally:
            if not done:
                await launch.abandon()

    async def _fork(self, launch: Launch, preloader: Preloader) -> SocketSpec:
        """Order a process and wait until it is ready. Returns the socket on which it serves."""

        def accepts(peer: PeerCredentials) -> bool:
            return is_fork(peer, launch.pidfd.pid if launch.pidfd is not None else None, preloader.pid, self._spec.uid)

        with self._spawn_listener.expect("worker", accepts) as pending:
            launch.advance("preparation", "ask_preloader")
            launch.output.give_to(self._spec.user)
            order = preloader.ask_to_fork(pending.token, launch.output.writing_end, launch.pin)
            if order is None:
                raise self._preloader_gone(launch)
            launch.output.close_writing_end()
            launch.advance("ask_preloader", "connect_back")
            sink = self._sink
            if sink is not None:
                launch.output.on_lines = lambda lines: sink.write(
                    launch.pidfd.pid if launch.pidfd else preloader.pid, lines
                )
                launch.output.has_room = sink.has_room

            async def refusal() -> SpawnError:
                await order.refused.wait()
                return self._refused(launch, order.problem) if order.problem else self._preloader_gone(launch)

            try:
                ready = await launch.wait_ready(
                    pending, self._spec.app.start_timeout, refusal, connect_time=self._fork_time
                )
            finally:
                if launch.pidfd is None:
                    # A process may exist that was not reported yet. It must not outlive this spawn.
                    with trio.move_on_after(_SETTLE_TIME, shield=True):
                        await order.settled.wait()
                    preloader.forget(order)
            return ready.sockets[0]

    def _preloader_gone(self, launch: Launch) -> SpawnError:
        return launch.failure(
            ErrorCategory.EXITED,
            "The preloader ended while it was asked for a process",
            "The program that holds the loaded application, from which processes are forked, has ended.",
            "The next attempt starts a new one. If it happens again, try --spawn-method direct.",
        )

    def _refused(self, launch: Launch, problem: str) -> SpawnError:
        return launch.failure(
            ErrorCategory.OPERATING_SYSTEM,
            "No process could be forked from the preloader",
            problem,
            "Check the limits on processes and memory of the account under which the server runs.",
        )


def is_fork(peer: PeerCredentials, pid: int | None, preloader: int, uid: int) -> bool:
    """Whether the peer is the process that was ordered, and runs as the application's user (R47).

    :param pid: its pid, if the preloader has reported it; until then any child of the preloader is accepted.
    """
    if peer.uid != uid:
        return False
    return peer.pid == pid if pid is not None else parent_of(peer.pid) == preloader


def _never_connected(failure: SpawnFailure) -> bool:
    step = failure.journey.failed_step
    return step is not None and step.name == "connect_back"
