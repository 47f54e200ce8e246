"""A Preloader: one program that has loaded the application and forks processes of it when asked.

It owns the program from ``ready`` to its end. Its processes are grandchildren of ours: they connect back by themselves, are pinned by pidfd
then, and live on when the preloader goes. The preloader reaps them and tells their exit statuses.

Laws: when ``keep`` returns the program is gone and ``gone`` is set; every order for a fork is settled; a process that was forked when nobody
waited for it any more is killed as soon as it is told of. That holds whatever goes wrong here: it costs this preloader, whose processes live on (KE1).
"""

from __future__ import annotations

import logging
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
from passenger_trio.errors import SpawnServerError
from passenger_trio.kernel import ErrorKernel
from passenger_trio.spawning.handshake import Launch, describe_exit
from passenger_trio.spawning.remains import Remains
from passenger_trio.spawning.spawner import PreloaderFacts
from passenger_trio.system.pidfd import PidFd, parent_of

__all__ = ["ForkOrder", "Preloader"]

_SHUTDOWN_TIME = 5.0
_KILL_TIME = 5.0
_REMEMBERED_EXITS = 256

_TASK = "a preloader keeper"

_log = logging.getLogger("passenger_trio.spawning")


@attrs.define(eq=False)
class ForkOrder:
    """A process that was ordered."""

    token: str
    on_forked: Callable[[PidFd], None]
    """Told when there is one; the pidfd is then the caller's."""
    settled: trio.Event = attrs.field(factory=trio.Event)
    """There is a process, or there will be none."""
    refused: trio.Event = attrs.field(factory=trio.Event)
    """There will be none, or the preloader, which is its parent, is gone."""
    problem: str = ""
    """Why it was refused, if the preloader said so."""


class Preloader:
    """Made of a ``Launch`` that ended in ready."""

    def __init__(
        self,
        launch: Launch,
        kernel: ErrorKernel | None = None,
        *,
        outlasts: bool = False,
        remains: Remains | None = None,
    ) -> None:
        """:param remains: who reads on what programs write that it had started. :param outlasts: it has exit hooks, or processes, which its forks use: when it is let go it stays until the last of them has ended."""
        self._kernel = kernel or ErrorKernel()
        assert launch.pidfd is not None
        assert launch.control is not None
        self.pidfd = launch.pidfd
        """Outlives ``keep``, and is its caller's to close: the process group may have other members."""
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
        self._let_go = False
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
        """Whether its end has not been seen: from there its pid may be somebody else's, also while ``keep`` still tidies up."""
        return not self.pidfd.exited and not self.gone.is_set()

    @property
    def has_forks(self) -> bool:
        """Whether a process that it forked has not ended, as far as it has told."""
        return bool(self._forks)

    @property
    def usable(self) -> bool:
        return self.lives and not self._retired.is_set()

    def ask_to_fork(self, token: str, output: int, on_forked: Callable[[PidFd], None]) -> ForkOrder | None:
        """Ask for a process that will connect with ``token`` and writes to the descriptor ``output``. None: it cannot be asked, and is let go.

        It is settled when the preloader says that it has forked, or cannot. Until then ``forget`` is the caller's to call, if it has no process:
        one that was quicker than its preloader, and has connected, is still to be told of.
        """
        if not self.usable:
            return None
        if not self._control.send_nowait(encode_fork(token), (output,)):
            self.retire()
            return None
        self.forks += 1
        # Noted in the same step: the answer may be quicker than the task that is to wait for it.
        order = self._orders[token] = ForkOrder(token, on_forked)
        return order

    def forget(self, order: ForkOrder) -> None:
        """Nobody waits for it any more, nor has its process: what is forked for it from now on is killed."""
        self._orders.pop(order.token, None)

    async def wait_exit_status(self, pid: int) -> int:
        """The exit status of a process that it forked, as of ``subprocess.Popen.returncode``, when it comes to be known."""
        while pid not in self._exits:
            await self._exit_seen.wait()
        return self._exits.pop(pid)

    def retire(self) -> None:
        """Let it go; ``keep`` sees to it."""
        self._let_go = True
        self._retired.set()

    async def keep(self) -> None:
        """The preloader keeper: until the program is gone, by itself, retired, or because we are cancelled."""
        kernel = self._kernel
        try:
            async with trio.open_nursery() as watchers:
                watchers.start_soon(kernel.supervise, "a reader of an application's output", self._output.run)
                watchers.start_soon(self._listen)
                watchers.start_soon(self._see_out)
                await self.pidfd.wait_exit()
                if not self._let_go:
                    _log.warning(
                        "the preloader of %s (pid %d) ended by itself: %s",
                        self.name,
                        self.pid,
                        describe_exit(self.pidfd.exit_status),
                    )
                watchers.cancel_scope.cancel()
        finally:
            with kernel.contain(_TASK), trio.move_on_after(_KILL_TIME, shield=True):
                if not self.pidfd.exited:
                    self.pidfd.signal_group(signal.SIGKILL)
                    await self.pidfd.wait_exit()
            with kernel.contain(_TASK):
                self._hear_last_words()
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
        with self._kernel.contain(_TASK, "the preloader is let go"):
            await self._hear()
        # Without a control connection it cannot be asked for anything, and tells of nothing.
        self._outlasts = False
        self._fewer_forks.set()
        self._retired.set()

    async def _hear(self) -> None:
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
                    _log.info("event from the preloader of %s: %s %s", self.name, message.name, dict(message.fields))
                else:
                    raise SpawnServerError(f"a preloader sent {type(message).__name__}")
        except SpawnServerError as exc:
            _log.warning("the preloader of %s (pid %d) is ended: %s", self.name, self.pid, exc)

    async def _see_out(self) -> None:
        await self._retired.wait()
        with self._kernel.contain(_TASK, "the preloader is killed"):
            self._control.send_nowait(encode_shutdown())
            while self._outlasts and self._forks:
                await self._fewer_forks.wait()
            await trio.sleep(_SHUTDOWN_TIME)
        self.pidfd.signal_group(signal.SIGKILL)

    def _forked(self, message: Forked) -> None:
        # What is remembered under this number is of another process, which had it before.
        self._exits.pop(message.pid, None)
        self._forks.add(message.pid)
        order = self._orders.pop(message.token, None)
        pidfd, problem = None, "The new process ended at once."
        try:
            pidfd = self._pin(message.pid)
        except OSError as exc:
            # It cannot be watched, and nobody may be signalled by a number: it finds that it is not expected any more, and ends.
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
        """None: it has ended.

        :raises OSError: no descriptor is left.
        """
        try:
            pidfd = PidFd.open(pid)
        except ProcessLookupError:
            return None
        is_its_child = False
        try:
            # R47: it is pinned now. If it is no child of the preloader, that one has ended, or the preloader lies.
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

    def _hear_last_words(self) -> None:
        """How its processes had ended. What it had forked last is not to be found by its number any more: it connects, or ends."""
        try:
            for message in self._control.last_words():
                if isinstance(message, ChildExited):
                    self._remember_exit(message)
        except SpawnServerError:
            pass  # it has ended

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
