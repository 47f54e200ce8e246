"""A group home: the task that owns the nursery of one application group, and the spawner of each of its generations.

Spawn attempts and process keepers are started here, by ``pool/perform.py`` only. An attempt that fails becomes a fact; anything else that goes wrong is
our bug and takes the tree down.

A spawner lives from the first spawn of its generation until ``end_generation``, or until the home ends; its tasks are in the nursery named *service*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from passenger_trio.core.model import AttemptId, GroupKey, ProcessId
from passenger_trio.errors import SpawnError
from passenger_trio.pool.keeper import Keeper
from passenger_trio.pool.session import Process
from passenger_trio.spawning.spawner import LiveProcess, PreloaderFacts, Spawner

__all__ = ["GroupFacts", "GroupHome", "MakeSpawner"]


MakeSpawner = Callable[[int], Spawner]
"""The spawner of a generation. What it spawns is the code as it is from then on."""


class GroupFacts(Protocol):
    """What a group home tells its pool."""

    def spawn_succeeded(self, home: GroupHome, attempt: AttemptId, live: LiveProcess) -> None: ...

    def spawn_failed(self, home: GroupHome, attempt: AttemptId, error: SpawnError | None) -> None: ...

    def process_exited(self, process: Process) -> None: ...


@attrs.define(eq=False)
class Generation:
    """A spawner while its generation lasts."""

    spawner: Spawner
    serves: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def serve(self) -> None:
        """Until its scope is cancelled."""
        with self.scope:
            async with trio.open_nursery() as keeping:
                await keeping.start(self.spawner.serve)
                self.serves.set()


@attrs.define(eq=False)
class GroupHome:
    """One application group: its spawner, its attempts, its processes."""

    key: GroupKey
    make_spawner: MakeSpawner
    shutdown_timeout: float
    facts: GroupFacts
    keepers: dict[ProcessId, Keeper] = attrs.field(factory=dict)
    attempts: dict[AttemptId, trio.CancelScope] = attrs.field(factory=dict)
    generations: dict[int, Generation] = attrs.field(factory=dict)
    ended: trio.Event = attrs.field(factory=trio.Event)
    _nursery: trio.Nursery | None = None
    _service: trio.Nursery | None = None
    _closing: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until ``close`` was called and the last process and attempt are gone."""
        async with trio.open_nursery() as service:
            self._service = service
            async with trio.open_nursery() as home:
                self._nursery = home
                task_status.started()
                await self._closing.wait()
            self._nursery = self._service = None
            service.cancel_scope.cancel()
        self.ended.set()

    def close(self) -> None:
        """No spawn comes any more."""
        self._closing.set()

    @property
    def preloaders(self) -> list[PreloaderFacts]:
        """Those that are there now, the newest generation's first."""
        found = [self.generations[number].spawner.preloader for number in sorted(self.generations, reverse=True)]
        return [facts for facts in found if facts is not None]

    def start_attempt(self, attempt: AttemptId, generation: int) -> None:
        assert self._nursery is not None
        scope = self.attempts[attempt] = trio.CancelScope()
        self._nursery.start_soon(self._attempt, attempt, generation, scope)

    def retire_preloader(self, generation: int) -> None:
        self.generations[generation].spawner.retire_preloader()

    def end_generation(self, generation: int) -> None:
        """Let go of its spawner, if it ever had one."""
        ended = self.generations.pop(generation, None)
        if ended is not None:
            ended.scope.cancel()

    def abandon_attempt(self, attempt: AttemptId) -> None:
        if attempt in self.attempts:
            self.attempts[attempt].cancel()

    def keep(self, process: Process) -> Keeper:
        """Start the keeper of a process."""
        assert self._nursery is not None
        keeper = self.keepers[process.id] = Keeper(process, self.shutdown_timeout, self._exited)
        self._nursery.start_soon(keeper.keep)
        return keeper

    async def _spawner(self, number: int) -> Spawner:
        """The spawner of a generation, which serves; made when it is wanted for the first time."""
        generation = self.generations.get(number)
        if generation is None:
            generation = self.generations[number] = Generation(self.make_spawner(number))
            assert self._service is not None
            # Not in the nursery of the attempt, which may be cancelled: others wait for it too.
            self._service.start_soon(generation.serve)
        await generation.serves.wait()
        return generation.spawner

    async def _attempt(self, attempt: AttemptId, generation: int, scope: trio.CancelScope) -> None:
        live: LiveProcess | None = None
        failure: SpawnError | None = None
        with scope:
            # A home that is being cancelled is told of exits, and to replace what exited: nothing is started only to be killed.
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                spawner = await self._spawner(generation)
                live = await spawner.spawn()
            except SpawnError as error:
                failure = error
        # No checkpoint from here on: the fact is told in the step in which the attempt ends.
        del self.attempts[attempt]
        if live is not None:
            self.facts.spawn_succeeded(self, attempt, live)
        else:
            self.facts.spawn_failed(self, attempt, failure)

    def _exited(self, process: Process) -> None:
        del self.keepers[process.id]
        self.facts.process_exited(process)
