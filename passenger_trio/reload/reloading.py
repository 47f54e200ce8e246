"""Applies a new configuration to a running server (OP1, OP3, LI2).

``core.reload_plan`` decides what changes. This module collects the old and the new configuration, opens everything that
can fail, and then applies the plan part by part.

Laws
    * On any error nothing is changed: everything that can fail comes before the first change.
    * A reload runs to its end, even when its caller has left. One at a time, in order of arrival.
    * No request is lost (``served_apps``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import attrs
import trio

from passenger_trio.core.fronts.fronts_config import FrontsConfig
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import pool_limits, session_limit
from passenger_trio.core.processes_by_memory import most_by_files
from passenger_trio.core.reload_plan import Plan, make_plan
from passenger_trio.errors import NotFound, PassengerError, ReloadRefused
from passenger_trio.extensions import Extensions
from passenger_trio.late_classes import define
from passenger_trio.log_lines import server as lines
from passenger_trio.options import AppOptions, Config
from passenger_trio.pool.code_watcher import CodeWatcher
from passenger_trio.pool.hooks import parse_hooks
from passenger_trio.pool.pool import Pool
from passenger_trio.pool_parts import PoolParts
from passenger_trio.preflight import examine
from passenger_trio.reload.config_source import ConfigSource
from passenger_trio.reload.other_fronts import OtherFronts
from passenger_trio.reload.served_apps import ServedApps
from passenger_trio.reload.setup import descriptors_for, setup_of, watched_of
from passenger_trio.server.front import Front
from passenger_trio.server.listening.listeners import Listeners
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.logs.tee import RecordTee
from passenger_trio.server.mounts import Route
from passenger_trio.spawning.app_spec import AppSpec, group_key
from passenger_trio.spawning.detect import DetectedApp
from passenger_trio.spawning.known_apps import KnownApps
from passenger_trio.system.processor_quota import cpus
from passenger_trio.system.resource_limits import soft_limit
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["Parts", "Reloading"]


T = TypeVar("T")


@define(eq=False)
class Parts:
    """The parts of a running server that a reload changes. The tree makes them."""

    nursery: trio.Nursery
    """For reloads, and for applications on their way out."""
    pool: PoolParts
    code_watcher: CodeWatcher


class Reloading:
    """The applications and options of a running server, and how they change."""

    def __init__(
        self,
        config: Config,
        apps: list[DetectedApp],
        specs: Sequence[AppSpec],
        pool: Pool,
        front: Front,
        access_log: AccessLog | None,
        listeners: Listeners,
        make_spec: Callable[[AppOptions, DetectedApp], AppSpec],
        tell_addresses: Callable[[Sequence[str]], None],
        extensions: Extensions | None = None,
        others: OtherFronts | None = None,
    ) -> None:
        """:param apps: changed in place.
        :param tell_addresses: called with the URLs when they change.
        :param others: the front processes, if there are several.
        """
        self.config: Config = config
        self.source: ConfigSource | None = None
        """Where the configuration is read anew; None: a program made it."""
        self.is_open = False
        """Whether the server serves: before and after that, nothing is reloaded."""
        self.is_embedded = False
        """Whether a program embeds the server."""
        self.served: ServedApps = ServedApps(specs, pool, front, others, self._in_thread)
        self.addresses: list[str] = listeners.urls
        self._has_unapplied = False
        """Whether the source was read, and what it said was not taken over: a dry run, or an error."""
        self._told: dict[str, str] = {}
        """Broken files that the log has."""
        self._others = others
        self._apps = apps
        self._pool = pool
        self._front = front
        self._access_log = access_log
        self._listeners = listeners
        self._extensions = extensions or Extensions()
        self._make_spec = make_spec
        self._tell_addresses = tell_addresses
        self.last_was_done = True
        """Whether the last reload was done; the start counts as the first. A dry run is none."""
        self.last_done_at: float = time.time()
        """When the configuration that is served was taken over, in seconds since the epoch."""
        self._parts: Parts | None = None
        self._access_log_scope: trio.CancelScope | None = None
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)

    @property
    def parts(self) -> Parts:
        if self._parts is None:
            raise ReloadRefused("the server is still starting")
        return self._parts

    async def open(self, parts: Parts) -> None:
        """Add the applications of the start."""
        self._parts = parts
        self.serve_access_log()
        await self.served.add(list(self.served.specs.values()), parts.pool.spawners)

    # -- to reload ----------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> Plan:
        """Serve what ``config`` says. Raises as ``RunningServer.reload``."""
        return await self._as_own_task(lambda: self._reload(lambda: config))

    async def add_app(self, app: AppOptions) -> GroupKey:
        """Serve one more application."""
        plan = await self._as_own_task(
            lambda: self._reload(lambda: attrs.evolve(self.config, apps=(*self.config.apps, app)))
        )
        return plan.added[0]

    async def remove_app(self, key: GroupKey) -> None:
        """Serve an application no more.

        :raises NotFound: it is not served.
        """

        def without() -> Config:
            if key not in self.served.specs:
                raise NotFound(f"there is no application {str(key)!r}")
            kept = [app for app, of in zip(self.config.apps, self.served.specs, strict=True) if of != key]
            return attrs.evolve(self.config, apps=tuple(kept))

        await self._as_own_task(lambda: self._reload(without))

    async def reload_source(self, *, dry_run: bool = False, restart: bool = False, apps_only: bool = False) -> Plan:
        """Read the configuration anew, and serve what it says.

        :param dry_run: change nothing.
        :param restart: restart the applications that the plan leaves running, too.
        :param apps_only: read the files of ``--apps-dir`` only.
        :raises ReloadRefused: a program made the configuration.
        """
        source = self.source
        if source is None:
            raise ReloadRefused("the configuration was made by a program: there is no file to read anew")
        return await self._as_own_task(
            lambda: self._reload_source(source, dry_run=dry_run, restart=restart, apps_only=apps_only),
            is_told=not dry_run,
        )

    async def _reload_source(self, source: ConfigSource, *, dry_run: bool, restart: bool, apps_only: bool) -> Plan:
        if apps_only and not self._has_unapplied and not await self._in_thread(source.has_other_files):
            return Plan()
        self._has_unapplied = True
        read = await self._in_thread(partial(source.read, apps_only=apps_only))
        self.tell_broken()
        # The directories of applications that stay were looked at before.
        known = KnownApps(self._pairs() if apps_only else ())
        if source.found is not None:
            known.add_all(source.found)
        with read.naming_places():
            plan = await self._reload(lambda: read.config, dry_run=dry_run, known=known)
        if not dry_run:
            source.applied(read)
            self._has_unapplied = False
        if restart and not dry_run:
            self._pool.restart_all(tuple(self.served.specs.keys() - {*plan.restarted, *plan.added}))
        return plan

    @property
    def broken(self) -> Mapping[str, str]:
        """Files of ``--apps-dir`` that are not served as they are, and why."""
        return self.source.broken if self.source is not None else {}

    def tell_broken(self) -> None:
        """Log what is newly broken, and what is no more."""
        broken = dict(self.broken)
        for path, why in broken.items():
            if self._told.get(path) != why:
                lines.file_not_taken_over(path=path, reason=why if why.startswith(path) else f"{path}: {why}")
        for path in self._told.keys() - broken.keys():
            lines.file_well_again(path=path)
        self._told = broken

    async def _as_own_task(self, work: Callable[[], Awaitable[T]], *, is_told: bool = True) -> T:
        """Run ``work`` when it is its turn, to its end, also if the caller is cancelled meanwhile.

        :param is_told: whether the metrics tell how it has ended.
        """
        nursery, kernel = self.parts.nursery, self._front.kernel
        results: list[T] = []
        errors: list[PassengerError] = []
        done = trio.Event()

        async def run() -> None:
            try:
                with kernel.contain("a reload") as containment:
                    async with self._turn:
                        try:
                            results.append(await work())
                        except PassengerError as error:
                            errors.append(error)
                if containment.error is not None:
                    errors.append(ReloadRefused("the server met with a fault of its own; the log has it"))
            finally:
                if is_told:
                    self.last_was_done = bool(results)
                    self.last_done_at = time.time() if results else self.last_done_at
                done.set()

        nursery.start_soon(run)
        await done.wait()
        if errors:
            raise errors[0]
        if not results:
            raise ReloadRefused("the server has stopped")
        return results[0]

    async def _reload(
        self,
        make_config: Callable[[], Config],
        *,
        dry_run: bool = False,
        known: KnownApps | None = None,
    ) -> Plan:
        if not self.is_open:
            raise ReloadRefused("the server is starting or stopping")
        config = make_config()
        apps = await self._in_thread(
            partial(examine, config, may_be_empty=True, known=known, is_embedded=self.is_embedded)
        )
        stays = self._unchanged(config, apps)
        before = setup_of(self.config, [(app, found) for app, found in self._pairs() if id(app) not in stays])
        after = [(app, found) for app, found in zip(config.apps, apps, strict=True) if id(app) not in stays]
        plan = make_plan(before, setup_of(config, after))
        if self._others is not None and (lines := plan.of_listeners):
            what = (
                f"with several fronts addresses change with a new start of the server only, and not {'; '.join(lines)}"
            )
            raise ReloadRefused(f"nothing is changed: {what}", lines)
        if plan.impossible:
            lines = tuple(change.line for change in plan.impossible)
            raise ReloadRefused(f"nothing is changed: {'; '.join(lines)}", lines)
        if not dry_run and plan.changes:
            fresh = {*plan.added, *plan.restarted}
            specs = {}
            for app, found in zip(config.apps, apps, strict=True):
                if (served := stays.get(id(app))) is not None:
                    specs[served.key] = served
                    continue
                key = group_key(app, found)
                specs[key] = self._make_spec(app, found) if key in fresh else self._served(key, app)
            await self._apply(plan, config, apps, specs)
        return plan

    def _pairs(self) -> Iterator[tuple[AppOptions, DetectedApp]]:
        return zip(self.config.apps, self._apps, strict=True)

    def _unchanged(self, config: Config, apps: Sequence[DetectedApp]) -> dict[int, AppSpec]:
        """The specs of the applications of which the new configuration has the very same objects, by the identity of their
        options. Of thousands of files usually one has changed: the others need no look at their options (OP4).
        """
        served = {
            id(app): (found, spec) for (app, found), spec in zip(self._pairs(), self.served.specs.values(), strict=True)
        }
        nobody = (None, None)
        found_again = (
            (id(app), found, *served.get(id(app), nobody)) for app, found in zip(config.apps, apps, strict=True)
        )
        return {number: spec for number, now, was, spec in found_again if now is was and spec is not None}

    def _served(self, key: GroupKey, app: AppOptions) -> AppSpec:
        """The spec of an application whose processes stay, with its options of now."""
        return attrs.evolve(
            self.served.specs[key], app=attrs.evolve(app, spawn_method=self.served.specs[key].app.spawn_method)
        )

    async def _apply(
        self, plan: Plan, config: Config, apps: list[DetectedApp], new: Mapping[GroupKey, AppSpec]
    ) -> None:
        before, parts = self.config, self.parts
        limits = pool_limits(config.pool, cpus(), most_by_files(soft_limit("NOFILE")))
        descriptors = descriptors_for(config, list(new.values()), limits)
        hooks = parse_hooks(config.pool.hook)
        served = {route.key: route for route in self._front.mounts.routes}
        routes = [
            served[key] if spec is self.served.specs.get(key) and key in served else Route(spec.key, spec.app)
            for key, spec in new.items()
        ]
        log_changes = AccessLog.destination_of(before) != AccessLog.destination_of(config) or (
            before.server.access_log_format != config.server.access_log_format
        )
        with ExitStack() as undo:
            opened = self._listeners.open_new(before.server, config.server, undo) if plan.listens_elsewhere else []
            access_log = AccessLog.open(config, self._front.kernel) if log_changes else self._access_log
            watches = watched_of(list(new.values()))
            parts.code_watcher.prepare(watches)
            undo.pop_all()
        # From here on nothing can fail.
        for line in plan.lines:
            lines.reload_changes(change=line)
        spawners = parts.pool.spawners
        for key in plan.restarted:
            self.served.restart(new[key], spawners(new[key]))
        for key in plan.changed:
            self.served.change(new[key])
        await self.served.add([new[key] for key in plan.added], spawners)
        if plan.removed:
            await self.served.wait_started(plan.added)
        removed = [self.served.specs[key] for key in plan.removed]
        self.served.serve(new, restarted=frozenset(plan.restarted))
        self.config = config
        self._apps[:] = apps
        self._front.reconfigure(config.server, routes, descriptors)
        if log_changes:
            self._access_log = access_log
            on_request = self._extensions.on_request
            self._front.access_log = (
                access_log if on_request is None else RecordTee(on_request, access_log, self._front.kernel)
            )
            self.serve_access_log()
        if self._others is not None:
            sessions = session_limit([spec.concurrency for spec in new.values()], limits.max_pool_size)
            apps_of = tuple((route.key, route.app) for route in routes)
            disk = self._front.spill.quota.limit
            await self._others.reconfigure(FrontsConfig(config, apps_of, sessions, limits.max_pool_size, disk))
        self.served.see_off(removed, parts.nursery)
        if limits.memory_share:
            await parts.pool.gauges.look(even_if_fixed=True)
        self._pool.change_limits(limits)
        parts.pool.gauges.interval = config.pool.memory_check_interval
        parts.pool.hooks.change(hooks)
        parts.code_watcher.change(watches)
        parts.pool.restart_files.watch(*self.restart_files())
        if plan.listens_elsewhere:
            self._listeners.change(before.server, config.server, opened)
            self.addresses[:] = self._listeners.urls
            self._tell_addresses(self.addresses)

    # -- parts --------------------------------------------------------------------------------------------------

    def restart_files(self) -> tuple[dict[GroupKey, str], dict[GroupKey, str], float]:
        """For the restart-file poller: where each application's ``restart.txt`` and code are, and how often to look."""
        return (
            {key: os.path.join(spec.detected.root, spec.app.restart_dir) for key, spec in self.served.specs.items()},
            {key: spec.detected.root for key, spec in self.served.specs.items()},
            self.config.pool.stat_throttle_rate,
        )

    def serve_access_log(self) -> None:
        """Run the writer of the access log of now; the one before writes what it has, and ends."""
        if self._access_log_scope is not None:
            self._access_log_scope.cancel()
            self._access_log_scope = None
        log = self._access_log
        if log is not None:
            scope = self._access_log_scope = trio.CancelScope()
            self.parts.nursery.start_soon(_run_in, scope, log.run)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await in_thread(work, limiter=self._limiter)
        except NoThread:
            return work()


async def _run_in(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()
