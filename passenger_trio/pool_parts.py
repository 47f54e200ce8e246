"""The parts around every pool, in a server (``tree``) and without one (``pool_tree``): made, started and ended in one place.

::

    the nursery of the owner
     |- remains, spawn listener     where loaders connect back
     |- pool                        clock, and a group task for each application
     |- hooks, on_event             get the pool's events
     `- gauges, restart files       give the pool facts from outside

This module decides nothing. The owner starts the two halves separately: a server begins to answer its operators between the two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from passenger_trio.core.model import GroupKey
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.extensions import Extensions
from passenger_trio.late_classes import define, frozen
from passenger_trio.options import PoolOptions
from passenger_trio.pool.callables import Callables
from passenger_trio.pool.gauges import Gauges
from passenger_trio.pool.hooks import LAST, Hooks, parse_hooks
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.restart_file_poller import RestartFilePoller
from passenger_trio.spawning.app_places import AppPlaces
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.choose_spawner import MakeSpawner, SpawnerFacts, SpawnerParts, spawners_of
from passenger_trio.spawning.early_loader import EarlyLoader
from passenger_trio.spawning.leftover_processes import Remains
from passenger_trio.spawning.spawn_listener import SpawnListener
from passenger_trio.spawning.spawner import Spawner
from passenger_trio.system.ports import Ports

__all__ = ["MakeSpawners", "PoolParts", "RestartFiles"]

MakeSpawners = Callable[[AppSpec, SpawnerParts, SpawnerFacts], MakeSpawner]
"""Makes, for an application, the function that makes the spawner of each generation."""
RestartFiles = tuple[dict[GroupKey, str], dict[GroupKey, str], float]
"""Where each application's ``restart.txt`` and code are, and the seconds between two looks; 0: do not look."""


@frozen(eq=False)
class PoolParts:
    """The tasks beside a pool. ``make`` makes it."""

    pool: Pool
    kernel: ErrorKernel
    extensions: Extensions
    make_spawners: MakeSpawners
    spawn_listener: SpawnListener
    remains: Remains
    spawner_parts: SpawnerParts
    hooks: Hooks
    gauges: Gauges
    restart_files: RestartFilePoller
    told: Callables | None
    """``on_event``, if there is one."""

    @classmethod
    def make(
        cls,
        pool: Pool,
        options: PoolOptions,
        places: AppPlaces,
        kernel: ErrorKernel,
        restart_files: RestartFiles,
        extensions: Extensions,
        make_spawners: MakeSpawners = spawners_of,
        early: EarlyLoader | None = None,
    ) -> PoolParts:
        """Must be called within a Trio run.

        :param early: a loader that was started before, for the first spawn.
        """
        spawn_listener = SpawnListener(places.spawn_socket, kernel, mode=places.spawn_mode, early=early)
        remains = Remains(kernel)
        return cls(
            pool,
            kernel,
            extensions,
            make_spawners,
            spawn_listener,
            remains,
            SpawnerParts(spawn_listener, Ports(), remains, kernel),
            Hooks(pool.events, parse_hooks(options.hook), kernel),
            Gauges(pool, options.memory_check_interval),
            RestartFilePoller(pool, *restart_files),
            Callables(pool.events, extensions.on_event, kernel) if extensions.on_event is not None else None,
        )

    async def start_pool(self, nursery: trio.Nursery) -> None:
        """Start the pool, and the tasks that its spawners need. The pool has no group yet."""
        await nursery.start(self.remains.serve)
        keep = self.kernel.supervise_started
        await nursery.start(partial(keep, "the spawn listener", self.spawn_listener.serve, must_start=True))
        await nursery.start(self.pool.run)

    async def start_watches(self, nursery: trio.Nursery) -> None:
        """Start the tasks that listen to the pool, and those that report facts to it. Groups may be added afterwards."""
        keep = self.kernel.supervise_started
        await nursery.start(keep, "the hooks", self.hooks.run)
        if self.told is not None:
            await nursery.start(keep, "on_event", self.told.run)
        await self.gauges.look()
        nursery.start_soon(self.kernel.supervise, "the memory gauges", self.gauges.run)
        await nursery.start(keep, "the restart-file poller", self.restart_files.run)

    def spawners(self, spec: AppSpec) -> MakeSpawner:
        """A function that makes the spawner of each generation of an application."""
        return _Spawners(self, spec)

    def _make_spawners(self, spec: AppSpec) -> MakeSpawner:
        facts = SpawnerFacts(partial(self.pool.preloader_changed, spec.key), partial(self.pool.found_unsafe, spec.key))
        made = self.make_spawners(spec, self.spawner_parts, facts)
        return self.extensions.spawners(spec.app, made, self.kernel)

    async def end(self, deadline: float) -> None:
        """Shut the pool down. Returns when all processes and what they left behind are gone, or at the deadline."""
        self.pool.shut_down()
        with trio.move_on_at(deadline):
            await self.pool.empty.wait()
            await self.remains.wait_no_groups()
            if self.told is not None:
                await self.told.ended.wait()  # the exits at the end are events, too
            with trio.move_on_after(LAST):
                await self.hooks.ended.wait()


@define(eq=False)
class _Spawners:
    """A ``MakeSpawner``, made with the first spawner: most of thousands of applications never have one (OP5)."""

    parts: PoolParts
    spec: AppSpec
    made: MakeSpawner | None = None

    def __call__(self, generation: int) -> Spawner:
        if self.made is None:
            self.made = self.parts._make_spawners(self.spec)
        return self.made(generation)
