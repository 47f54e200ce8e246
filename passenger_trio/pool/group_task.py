"""A group task: the task that owns the nursery of one application group, and the spawner of each
generation.

Only ``pool/perform.py`` starts spawn attempts and process keepers here. A failed attempt becomes a
fact. An unexpected exception in an attempt does so too (KE1): it costs this one attempt, and the
policy waits before the next one.

Law: the task stays open until the pool calls ``close``, also while it is being cancelled. Another
group's process may end late, and the policy may order a spawn here before it has learned of the
cancellation (fault 5). A spawn or keeper that is started in a task that is being cancelled ends at
once, and its end is reported.

The task runs from the first spawn on: an application without a request yet has no task (OP5).

A spawner lives from the first spawn of its generation until ``end_generation``, or until the task
ends. Its tasks run in the nursery named *service*.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from passenger_trio.core.fork_safety import Forking
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import AttemptId, ErrorCategory, GroupKey, ProcessId, SpawnFailure
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import SpawnError
from passenger_trio.late_classes import define
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.oob_work import run_oob_work
from passenger_trio.pool.process_keeper import Keeper
from passenger_trio.pool.session import Process
from passenger_trio.spawning.choose_spawner import MakeSpawner
from passenger_trio.spawning.spawner import LiveProcess, PreloaderFacts, Spawner

__all__ = ["GroupFacts", "GroupTask"]


_SPAWNER_TIME = 30.0
"""Seconds that an attempt waits for its spawner to serve. This takes a moment, unless the spawner
fails again and again.
"""


_TELL_EVERY = 5.0
"""Seconds between two lines in the log while an application loads."""


class GroupFacts(Protocol):
    """The facts that a group task reports to its pool."""

    def spawn_succeeded(self, task: GroupTask, attempt: AttemptId, live: LiveProcess) -> None: ...

    def spawn_failed(self, task: GroupTask, attempt: AttemptId, error: SpawnError | None) -> None: ...

    def oob_work_ended(self, process: Process[LiveProcess], trouble: str) -> None: ...

    def process_exited(self, process: Process[LiveProcess]) -> None:
        """Called at the moment of the exit."""

    def process_ended(self, process: Process[LiveProcess], status: int | None, reason: str) -> None:
        """Called soon after the exit, with the exit status, and the reason if the server ended the
        process.
        """


@define(eq=False)
class Generation:
    """A spawner while its generation lasts."""

    spawner: Spawner
    kernel: ErrorKernel
    serves: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def serve(self) -> None:
        """Run the spawner until the scope is cancelled."""
        with self.scope:
            await self.kernel.supervise("a spawner", self._serve)

    async def _serve(self) -> None:
        async with trio.open_nursery() as keeping:
            await keeping.start(self.spawner.serve)
            self.serves.set()


@define(eq=False)
class GroupTask:
    """One application group: its spawners, its attempts, its processes."""

    key: GroupKey
    make_spawner: MakeSpawner
    shutdown_timeout: float
    facts: GroupFacts
    kernel: ErrorKernel
    pool: trio.Nursery
    """The pool's nursery, in which the task runs."""
    keepers: dict[ProcessId, Keeper] = attrs.field(factory=dict)
    attempts: dict[AttemptId, trio.CancelScope] = attrs.field(factory=dict)
    generations: dict[int, Generation] = attrs.field(factory=dict)
    _nursery: trio.Nursery | None = None
    _service: trio.Nursery | None = None
    _runs: bool = False
    _first: list[Callable[[trio.Nursery], None]] = attrs.field(factory=list)
    """Functions to call with the nursery as soon as the task runs."""
    _close_wanted: bool = False
    # Made when a task waits for it: most of thousands of groups never run (OP5).
    _closing: trio.Event | None = None
    _ended: trio.Event | None = None
    _is_over: bool = False

    async def _run(self) -> None:
        """Run until ``close`` was called and the last process and attempt are gone."""
        self._closing = trio.Event()
        if self._close_wanted:
            self._closing.set()
        async with trio.open_nursery() as service:
            self._service = service
            async with trio.open_nursery() as task:
                self._nursery = task
                for start in self._first:
                    start(task)
                self._first.clear()
                with trio.CancelScope(shield=True):  # bounded: a cancelled pool calls close() in the same step
                    await self._closing.wait()
            self._nursery = self._service = None
            service.cancel_scope.cancel()
        self._over()

    @property
    def ended(self) -> trio.Event:
        """Set once the task is over."""
        if self._ended is None:
            self._ended = trio.Event()
            if self._is_over:
                self._ended.set()
        return self._ended

    def _over(self) -> None:
        self._is_over = True
        if self._ended is not None:
            self._ended.set()

    def hasten(self, seconds: float) -> None:
        """See ``Pool.hasten``."""
        self.shutdown_timeout = min(self.shutdown_timeout, seconds)
        for keeper in self.keepers.values():
            keeper.hasten(seconds)

    def close(self) -> None:
        """Let the task end: no spawn follows."""
        self._close_wanted = True
        if self._closing is not None:
            self._closing.set()
        if not self._runs:
            self._over()

    @property
    def preloaders(self) -> list[PreloaderFacts]:
        """The running preloaders, the newest generation's first."""
        found = [self.generations[number].spawner.preloader for number in sorted(self.generations, reverse=True)]
        return [facts for facts in found if facts is not None]

    @property
    def forking(self) -> Forking | None:
        """How processes are made, in the newest generation whose fork safety is known."""
        found = [self.generations[number].spawner.forking for number in sorted(self.generations, reverse=True)]
        return next((forking for forking in found if forking is not None), None)

    def start_attempt(self, attempt: AttemptId, generation: int) -> None:
        scope = self.attempts[attempt] = trio.CancelScope()
        if self._nursery is not None:
            self._nursery.start_soon(self._attempt, attempt, generation, scope)
            return
        self._first.append(lambda nursery: nursery.start_soon(self._attempt, attempt, generation, scope))
        if not self._runs:
            self._runs = True
            self.pool.start_soon(self._run, name=f"group {self.key}")

    def retire_preloader(self, generation: int) -> None:
        self.generations[generation].spawner.retire_preloader()

    def end_generation(self, generation: int) -> None:
        """End the generation's spawner, if it has one."""
        ended = self.generations.pop(generation, None)
        if ended is not None:
            ended.scope.cancel()

    def abandon_attempt(self, attempt: AttemptId) -> None:
        if attempt in self.attempts:
            self.attempts[attempt].cancel()

    def keep(self, process: Process[LiveProcess]) -> Keeper:
        """Start the keeper of a process."""
        assert self._nursery is not None
        keeper = self.keepers[process.id] = Keeper(
            process, self.shutdown_timeout, self._exited, self.facts.process_ended, self.kernel
        )
        self._nursery.start_soon(keeper.keep)
        return keeper

    def run_oob_work(self, process: Process[LiveProcess], seconds: float) -> None:
        """Let a process do its out-of-band work."""
        assert self._nursery is not None
        self._nursery.start_soon(self._oob_work, process, seconds)

    async def _oob_work(self, process: Process[LiveProcess], seconds: float) -> None:
        trouble = "it was cut off"
        try:
            with self.kernel.contain("out-of-band work", "its process is replaced"):
                trouble = await run_oob_work(process, seconds)
        finally:
            with self.kernel.contain("out-of-band work"):
                self.facts.oob_work_ended(process, trouble)

    async def _spawner(self, number: int) -> Spawner:
        """Return the generation's spawner, once it serves. The first call makes it.

        :raises SpawnError: the spawner did not serve in time. (It is supervised, so it is started
            again meanwhile.)
        """
        generation = self.generations.get(number)
        if generation is None:
            generation = self.generations[number] = Generation(self.make_spawner(number), self.kernel)
            assert self._service is not None
            # Not in the attempt's nursery: the attempt may be cancelled, and other attempts wait for this spawner too.
            self._service.start_soon(generation.serve)
        with trio.move_on_after(_SPAWNER_TIME):
            await generation.serves.wait()
        if not generation.serves.is_set():
            raise SpawnError(_unforeseen(TimeoutError("what keeps the preloader does not start")))
        return generation.spawner

    async def _attempt(self, attempt: AttemptId, generation: int, scope: trio.CancelScope) -> None:
        live: LiveProcess | None = None
        failure: SpawnError | None = None
        telling = trio.CancelScope()
        assert self._nursery is not None
        self._nursery.start_soon(self._tell_loading, telling)
        try:
            with scope, self.kernel.contain("a spawn attempt", "it counts as one that failed") as containment:
                # While the task is being cancelled, processes exit and the policy orders replacements.
                # Do not start them: they would be killed at once.
                await trio.lowlevel.checkpoint_if_cancelled()
                try:
                    spawner = await self._spawner(generation)
                    live = await spawner.spawn()
                except SpawnError as error:
                    failure = error
            if containment.error is not None:
                failure = SpawnError(_unforeseen(containment.error))
        finally:
            # No checkpoint from here on: the attempt reports its result in the step in which it ends,
            # also when the task is cancelled.
            del self.attempts[attempt]
            telling.cancel()
            with self.kernel.contain("a spawn attempt"):  # if the policy raises, the pool has already recorded that
                if live is not None:
                    self.facts.spawn_succeeded(self, attempt, live)
                else:
                    self.facts.spawn_failed(self, attempt, failure)

    async def _tell_loading(self, while_it_loads: trio.CancelScope) -> None:
        """Tell people every few seconds that an attempt goes on (OP18)."""
        seconds = 0.0
        with while_it_loads, self.kernel.contain("a spawn attempt"):
            while True:
                await trio.sleep(_TELL_EVERY)
                seconds += _TELL_EVERY
                lines.spawn_lasts(group=self.key, seconds=seconds)

    def _exited(self, process: Process[LiveProcess]) -> None:
        del self.keepers[process.id]
        self.facts.process_exited(process)


def _unforeseen(error: Exception) -> SpawnFailure:
    """The failure for an exception that no spawner reports."""
    return SpawnFailure(
        error_id=secrets.token_hex(4),
        category=ErrorCategory.LOADER,
        summary="No process can be started: the server met with an error that it did not foresee",
        problem=f"It was {type(error).__name__}: {error}",
        solution="It is tried again. The log has where it happened: please report it.",
        journey=Journey.begin(JourneyType.SPAWN_DIRECTLY),
    )
