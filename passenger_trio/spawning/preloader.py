"""A Preloader: one program that has loaded the application and forks processes of it on request.

The ``Preloader`` object owns the program from ``ready`` to its end. The forked processes are the server's grandchildren: each connects by
itself, is then pinned by a pidfd, and may outlive the preloader. The preloader reaps them and
reports their exit statuses.

Laws:

* When ``keep`` returns, the program is gone, ``gone`` is set, and every order for a fork has
  its answer.
* A process that was forked for an abandoned order is killed as soon as it is reported.
* An unexpected error here costs this preloader. Its processes live on (KE1).
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import attrs
import trio

from passenger_trio.codecs.control_protocol import (
    AppEvent,
    ChildExited,
    Forked,
    ForkFailed,
    encode_fork,
    encode_shutdown,
)
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import SpawnServerError
from passenger_trio.late_classes import define
from passenger_trio.log_lines import processes as lines
from passenger_trio.spawning.exit_status import describe_exit, exit_fields
from passenger_trio.spawning.launch import Launch
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.spawner import PreloaderFacts
from passenger_trio.system.pidfd import PidFd, parent_of

__all__ = ["ForkOrder", "Preloader"]

_SHUTDOWN_TIME = 5.0
_KILL_TIME = 5.0
_REMEMBERED_EXITS = 256

_TASK = "a preloader keeper"


@define(eq=False)
class ForkOrder:
    """An order for a process."""

    token: str
    on_forked: Callable[[PidFd], None]
    """Called with the process, which the caller then owns."""
    settled: trio.Event = attrs.field(factory=trio.Event)
    """The process exists, or never will."""
    refused: trio.Event = attrs.field(factory=trio.Event)
    """The process will never exist, or its parent, the preloader, is gone."""
    problem: str = ""
    """The preloader's reason for a refusal, if it gave one."""


class Preloader:
    """Made of a ``Launch`` that became ready."""

    def __init__(
        self,
        launch: Launch,
        kernel: ErrorKernel | None = None,
        *,
        outlasts: bool = False,
        remains: Remains | None = None,
    ) -> None:
        """:param outlasts: the preloader has exit hooks or processes that its forks use: when
        retired, it stays until the last fork has ended.
        :param remains: takes over the output pipe, to which programs that the preloader started may
            still write.
        """
        self._kernel = kernel or ErrorKernel()
        assert launch.pidfd is not None
        assert launch.control is not None
        self.pidfd = launch.pidfd
        """Outlives ``keep``; its caller closes it, because the process group may have other members."""
        self._control = launch.control
        self._output = launch.output
        self.journey = launch.journey
        self.name = launch.spec.key.name
        self.started = trio.current_time()
        self.forks = 0
        self.gone = trio.Event()
        self._outlasts = outlasts
        self._remains = remains
        self._forks: set[int] = set()
        self._fewer_forks = trio.Event()
        self._retired = trio.Event()
        self._retiring = False
        self._orders: dict[str, ForkOrder] = {}
        self._exits: dict[int, int] = {}
        self._exit_seen = trio.Event()

    @property
    def pid(self) -> int:
        return self.pidfd.pid

    @property
    def facts(self) -> PreloaderFacts:
        return PreloaderFacts(self.pid, self.started, self.forks)

    @property
    def lives(self) -> bool:
        """Whether its exit has not been seen. After that its pid may belong to another process."""
        return not self.pidfd.exited and not self.gone.is_set()

    @property
    def has_forks(self) -> bool:
        """Whether a process that it forked still lives, as far as it has reported."""
        return bool(self._forks)

    @property
    def usable(self) -> bool:
        return self.lives and not self._retired.is_set()

    def ask_to_fork(self, token: str, output: int, on_forked: Callable[[PidFd], None]) -> ForkOrder | None:
        """Order a process that connects with ``token`` and writes to the descriptor ``output``.
        None: the preloader cannot be asked, and is retired.

        The order is settled when the preloader reports the fork or its failure. A caller that gives
        up before that, and has no process, must call ``forget``. (A process may connect before the
        preloader has reported it.)
        """
        if not self.usable:
            return None
        if not self._control.send_nowait(encode_fork(token), (output,)):
            self.retire()
            return None
        self.forks += 1
        # Registered in this step: the answer may come before the caller waits for it.
        order = self._orders[token] = ForkOrder(token, on_forked)
        return order

    def forget(self, order: ForkOrder) -> None:
        """The order was given up: kill the process if it is reported later."""
        self._orders.pop(order.token, None)

    async def wait_exit_status(self, pid: int) -> int:
        """Wait until the preloader reports the exit status of a process that it forked; as of
        ``subprocess.Popen.returncode``.
        """
        while pid not in self._exits:
            await self._exit_seen.wait()
        return self._exits.pop(pid)

    def retire(self) -> None:
        """Request its end; ``keep`` carries it out."""
        self._retiring = True
        self._retired.set()

    async def keep(self) -> None:
        """The preloader keeper. Runs until the program is gone: it ended by itself, was retired, or
        this task was cancelled.
        """
        kernel = self._kernel
        try:
            async with trio.open_nursery() as watchers:
                watchers.start_soon(kernel.supervise, "a reader of an application's output", self._output.run)
                watchers.start_soon(self._listen)
                watchers.start_soon(self._end_when_retired)
                await self.pidfd.wait_exit()
                if not self._retiring:
                    how = describe_exit(self.pidfd.exit_status)
                    status, name = exit_fields(self.pidfd.exit_status)
                    lines.preloader_died(group=self.name, pid=self.pid, how=how, status=status, signal=name)
                watchers.cancel_scope.cancel()
        finally:
            with kernel.contain(_TASK), trio.move_on_after(_KILL_TIME, shield=True):
                if not self.pidfd.exited:
                    self.pidfd.signal_group(signal.SIGKILL)
                    await self.pidfd.wait_exit()
            with kernel.contain(_TASK):
                self._read_remaining()
            self.gone.set()
            for order in self._orders.values():
                if not order.refused.is_set():
                    self._refuse(order)
            with kernel.contain(_TASK):
                self._control.close()
            with kernel.contain(_TASK):
                if self._remains is not None:
                    self._remains.adopt_output(self._output)
                else:
                    self._output.close()

    async def _listen(self) -> None:
        with self._kernel.contain(_TASK, "the preloader is retired"):
            await self._handle_messages()
        # Without a control connection it takes no orders and reports nothing.
        self._outlasts = False
        self._fewer_forks.set()
        self._retired.set()

    async def _handle_messages(self) -> None:
        try:
            while (message := await self._control.receive()) is not None:
                if isinstance(message, Forked):
                    self._forked(message)
                elif isinstance(message, ForkFailed):
                    if (order := self._orders.get(message.token)) is not None:
                        self._refuse(order, message.problem or "It did not say why.")
                elif isinstance(message, ChildExited):
                    self._remember_exit(message)
                elif isinstance(message, AppEvent):
                    lines.preloader_event(
                        group=self.name, pid=self.pid, name_of_event=message.name, members=str(dict(message.fields))
                    )
                else:
                    raise SpawnServerError(f"a preloader sent {type(message).__name__}")
        except SpawnServerError as exc:
            lines.preloader_broke_protocol(group=self.name, pid=self.pid, reason=str(exc))

    async def _end_when_retired(self) -> None:
        await self._retired.wait()
        with self._kernel.contain(_TASK, "the preloader is killed"):
            self._control.send_nowait(encode_shutdown())
            while self._outlasts and self._forks:
                await self._fewer_forks.wait()
            await trio.sleep(_SHUTDOWN_TIME)
        self.pidfd.signal_group(signal.SIGKILL)

    def _forked(self, message: Forked) -> None:
        # An exit status under this pid belongs to an earlier process.
        self._exits.pop(message.pid, None)
        self._forks.add(message.pid)
        order = self._orders.pop(message.token, None)
        pidfd, problem = None, "The new process ended at once."
        try:
            pidfd = self._pin(message.pid)
        except OSError as exc:
            # Without a pidfd it is not signalled. Its token is no longer valid, so it ends by itself.
            problem = f"The new process cannot be watched: {exc.strerror}."
        if order is None:
            if pidfd is not None:
                pidfd.signal_group(signal.SIGKILL)
                pidfd.close()
        elif pidfd is not None:
            order.on_forked(pidfd)
            order.settled.set()
        else:
            self._refuse(order, problem)

    def _pin(self, pid: int) -> PidFd | None:
        """None: the process has ended.

        :raises OSError: no descriptor is left.
        """
        try:
            pidfd = PidFd.open(pid)
        except ProcessLookupError:
            return None
        is_its_child = False
        try:
            # R47: the pid is pinned now. If it is not a child of the preloader, the child has
            # ended, or the report is false.
            is_its_child = parent_of(pid) == self.pid
        finally:
            if not is_its_child:
                pidfd.close()
        return pidfd if is_its_child else None

    @staticmethod
    def _refuse(order: ForkOrder, problem: str = "") -> None:
        order.problem = problem
        order.settled.set()
        order.refused.set()

    def _read_remaining(self) -> None:
        """Read the last exit statuses that the preloader reported. A process that it forked last
        connects by itself, or ends.
        """
        try:
            for message in self._control.remaining_messages():
                if isinstance(message, ChildExited):
                    self._remember_exit(message)
        except SpawnServerError:
            pass  # the preloader has ended anyway

    def _remember_exit(self, message: ChildExited) -> None:
        self._forks.discard(message.pid)
        fewer, self._fewer_forks = self._fewer_forks, trio.Event()
        fewer.set()
        if len(self._exits) >= _REMEMBERED_EXITS:
            del self._exits[next(iter(self._exits))]
        code = message.status
        self._exits[message.pid] = -(code & 0x7F) if code & 0x7F else (code >> 8) & 0xFF
        seen, self._exit_seen = self._exit_seen, trio.Event()
        seen.set()
