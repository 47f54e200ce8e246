"""The applications of a running server: their groups come, change, and go.

Law: requests are routed to an application only when its group is there, and a group is removed only when no request is
on its way to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

import trio

from passenger_trio.core import readiness
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import group_limits
from passenger_trio.pool.pool import Pool
from passenger_trio.reload.other_fronts import OtherFronts
from passenger_trio.server.front import Front
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.choose_spawner import MakeSpawner
from passenger_trio.system.cgroups import remove_cgroup

__all__ = ["ServedApps"]

_AT_A_TIME = 50
_LOOK = 0.02
"""Seconds between two looks at the requests that are on their way to a removed application."""
_LOOK_AT_OTHERS = 0.2
"""The same, where other processes have to be asked."""


class ServedApps:
    """The specs of the applications, and the steps in which their groups change."""

    def __init__(
        self,
        specs: Sequence[AppSpec],
        pool: Pool,
        front: Front,
        others: OtherFronts | None,
        in_thread: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        self.specs: dict[GroupKey, AppSpec] = {spec.key: spec for spec in specs}
        """The applications that are served, in the order of the configuration."""
        self._coming: dict[GroupKey, AppSpec] = {}
        self._leaving: dict[GroupKey, AppSpec] = {}
        self._pool = pool
        self._front = front
        self._others = others
        self._in_thread = in_thread

    @property
    def every_spec(self) -> list[AppSpec]:
        """The spec of every group of the pool: of applications that are served, are being removed, or are being added."""
        return [*self._leaving.values(), *self._coming.values(), *self.specs.values()]

    async def add(self, specs: Sequence[AppSpec], spawners: Callable[[AppSpec], MakeSpawner]) -> None:
        """Add the groups of applications that are to be served (``serve``), a few at a time: there may be thousands, and
        others have their turn meanwhile.
        """
        self._coming = {spec.key: spec for spec in specs if self.specs.get(spec.key) is not spec}
        for start in range(0, len(specs), _AT_A_TIME):
            await trio.lowlevel.checkpoint()
            for spec in specs[start : start + _AT_A_TIME]:
                if self._pool.has(spec.key):
                    # One of this name may be on its way out: it comes back, with other processes.
                    self._pool.remove_group(spec.key)
                limits = group_limits(spec.app, preloads=spec.uses_preloader)
                self._pool.add_group_nowait(spec.key, limits, spawners(spec), spec.app.shutdown_timeout)
            self._pool.notify_changed()

    def restart(self, spec: AppSpec, make_spawner: MakeSpawner) -> None:
        """Restart an application, with other options."""
        spec.programs.update(self.specs[spec.key].programs)
        limits = group_limits(spec.app, preloads=spec.uses_preloader)
        self._pool.change_group(spec.key, limits, make_spawner, spec.app.shutdown_timeout)
        self._pool.restart(spec.key)

    def change(self, spec: AppSpec) -> None:
        """Change the options of an application whose processes stay."""
        served = self.specs[spec.key]
        served.change(spec.app)  # its spawners see the new times, too
        limits = group_limits(spec.app, preloads=spec.uses_preloader)
        self._pool.change_group(spec.key, limits, None, spec.app.shutdown_timeout)

    async def wait_started(self, keys: Sequence[GroupKey]) -> None:
        """New applications may take the place of removed ones: let their first processes start before requests go
        to them, unless they do not start.
        """
        longest = max((self._start_time(key) for key in keys), default=0.0)
        with trio.move_on_after(longest):
            for key in keys:
                while True:
                    changed = self._pool.changed
                    group = self._pool.group_statistics(key)
                    if not group.attempts or readiness.is_settled(self._pool.active_statistics(), group):
                        break
                    await changed.wait()

    def _start_time(self, key: GroupKey) -> float:
        group = self._pool.group_statistics(key)
        return 90.0 if group.limits.min_instances else 0.0

    def serve(self, new: Mapping[GroupKey, AppSpec], restarted: Collection[GroupKey]) -> None:
        """From now on these are the applications. Those that were not restarted keep their specs."""
        kept = {key: self.specs[key] for key in new if key in self.specs and key not in restarted}
        self.specs = {key: kept.get(key, spec) for key, spec in new.items()}
        self._coming = {}

    def see_off(self, specs: Sequence[AppSpec], nursery: trio.Nursery) -> None:
        """Remove applications that get no more requests."""
        for spec in specs:
            self._leaving[spec.key] = spec
            kernel = self._front.kernel
            nursery.start_soon(kernel.supervise, "the end of a removed application", self._see_off, spec)

    async def _see_off(self, spec: AppSpec) -> None:
        with trio.move_on_after(spec.app.max_drain_time or 300.0):
            while await self._is_asked_for(spec.key):  # noqa: ASYNC110  many places end what is looked for
                await trio.sleep(_LOOK if self._others is None else _LOOK_AT_OTHERS)
        if spec.key not in self.specs:
            self._pool.remove_group(spec.key)
            task = self._pool.group_tasks.get(spec.key)
            if task is not None:
                await task.ended.wait()
            if spec.cgroups is not None and not self._pool.has(spec.key):
                left = spec.cgroups.kill(str(spec.key))
                if left:
                    await self._in_thread(partial(remove_cgroup, left))
        if self._leaving.get(spec.key) is spec:
            del self._leaving[spec.key]

    async def _is_asked_for(self, key: GroupKey) -> bool:
        if self._front.is_asked_for(key):
            return True
        return self._others is not None and await self._others.is_asked_for(key)
