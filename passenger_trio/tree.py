"""The nursery tree: composition, and nothing else. (The module is not named ``serve``, because it
would hide the function ``passenger_trio.serve``.)

::

    tree            starts top to bottom, stops bottom to top
     |- spawn listener   where loaders connect back
     |- pool        clock, and a group task for each application
     |- access log
     |- admin       answers until the last process is gone
     |- hooks, gauges, restart_files
     |- deadline scanner, poller
     `- clients     on drain: deadline = now + grace
         `- accept loops

The error kernel runs every task but the pool's (``error_kernel``, ARCHITECTURE.md), so their unexpected
exceptions do not reach this module.

``open_server`` is the whole life of a server as a context manager. Inside the block, the server
serves. Leaving the block normally drains it. Leaving it with an exception or a cancellation ends
everything at once. ``program`` adds what belongs to a process of its own: signals, orphans.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from passenger_trio.admin.registry import create_instance_dir
from passenger_trio.core import readiness
from passenger_trio.core.fronts.front_count import SLOTS, are_too_many, front_count
from passenger_trio.core.fronts.fronts_config import FrontsConfig
from passenger_trio.core.policy_limits import pool_limits, session_limit
from passenger_trio.core.processes_by_memory import most_by_files
from passenger_trio.core.server_stop_times import time_for_requests, time_to_ask
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import EnvironmentUnfit, OptionError, PassengerError, StartupAborted, StartupStopped
from passenger_trio.extensions import Extensions
from passenger_trio.later import build_classes, import_everything, import_for_all, import_rest
from passenger_trio.library_errors import reword
from passenger_trio.log_lines import server as lines
from passenger_trio.options import Config
from passenger_trio.pool.code_watcher import CodeWatcher
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.startup import wait_until
from passenger_trio.pool_parts import MakeSpawners, PoolParts
from passenger_trio.preflight import examine
from passenger_trio.reload.reloading import Parts, Reloading
from passenger_trio.reload.setup import descriptors_for, watched_of
from passenger_trio.running import RunningServer
from passenger_trio.server.front import Front
from passenger_trio.server.health_paths import HealthPaths
from passenger_trio.server.listening.bind import bind
from passenger_trio.server.listening.given import GivenListener, take_over
from passenger_trio.server.listening.listeners import Listeners
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.logs.tee import RecordTee
from passenger_trio.server.mounts import Route
from passenger_trio.server.tracing.spans import open_spans
from passenger_trio.spawning.app_places import AppPlaces
from passenger_trio.spawning.choose_spawner import spawners_of
from passenger_trio.spawning.known_apps import KnownApps
from passenger_trio.spawning.server_user import stays
from passenger_trio.system.cgroups import OwnCgroup
from passenger_trio.system.pidfd import why_no_processes
from passenger_trio.system.processor_quota import cpus
from passenger_trio.system.resource_limits import soft_limit

if TYPE_CHECKING:
    from passenger_trio.early_start import EarlyStart
    from passenger_trio.fronts.fronts import Fronts
    from passenger_trio.pool.lease_desk import LeaseDesk

__all__ = ["open_server", "open_tree", "serve"]

_FIRST_TURNS = 20
"""Turns of the loop in which the first processes are started, before anything is imported. It takes ten from a preloader that is ready to its first fork."""
_FRONT_TIME = 3.0
"""Seconds that fronts get beyond the time for the requests in flight. Then they are killed."""


async def serve(
    config: Config,
    *,
    listeners: Sequence[GivenListener] = (),
    extensions: Extensions | None = None,
    task_status: trio.TaskStatus[RunningServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``RunningServer.stop`` is called, or until cancelled.

    ``await nursery.start(serve, config)`` returns the running server.

    :param listeners: see ``open_server``.
    :param extensions: see ``open_server``.
    :raises NothingToServe: no application was found.
    :raises OptionError: an option has an invalid value.
    :raises BindError: cannot listen on an address.
    :raises StartupAborted: the application did not start, and ``abort_on_startup_error`` is set.
    :raises StartupStopped: an operator stopped the server during its start.
    :raises EnvironmentUnfit: there is no /proc.
    """
    async with open_server(config, listeners=listeners, extensions=extensions) as server:
        task_status.started(server)
        await server.wait_stopping()


def open_server(
    config: Config, *, listeners: Sequence[GivenListener] = (), extensions: Extensions | None = None
) -> AbstractAsyncContextManager[RunningServer]:
    """Run a server while the block runs. Raises as ``serve``.

    :param listeners: listening sockets, or Trio listeners, that the program has opened: they are used
        instead of the address in ``config``. The server takes them over and closes them when it
        stops, as ``trio.serve_listeners`` does. The file of a Unix socket stays the program's.
    :param extensions: spawners, callables, an access log and error pages of the program's own (LI7).

    Leaving the block drains the server. Leaving it with an exception ends everything at once, and
    the exception passes unchanged (LI1). Installs no signal handler and writes no global state. All its
    tasks run in the caller's task tree.
    """
    return _open_server(config, listeners, extensions)


@asynccontextmanager
async def _open_server(
    config: Config, listeners: Sequence[GivenListener], extensions: Extensions | None
) -> AsyncIterator[RunningServer]:
    async with AsyncExitStack() as stack:
        tree = open_tree(config, ErrorKernel(), listeners=listeners, extensions=extensions)
        try:
            server = await stack.enter_async_context(tree)
        except PassengerError as error:
            reword(error)
            raise
        yield server


@asynccontextmanager
async def open_tree(
    config: Config,
    kernel: ErrorKernel,
    *,
    listeners: Sequence[GivenListener] = (),
    extensions: Extensions | None = None,
    make_spawners: MakeSpawners = spawners_of,
    become_user: Callable[[str], None] | None = None,
    begun: Callable[[RunningServer], None] = lambda server: None,
    own_cgroup: OwnCgroup | None = None,
    known: KnownApps | None = None,
    early: EarlyStart | None = None,
) -> AsyncIterator[RunningServer]:
    """``open_server`` with the caller's error kernel.

    :param become_user: makes the process the user of ``--user``, once the addresses are bound. None: a
        program embeds the server, and decides for itself as whom it runs.
    :param begun: called with the server when it has all applications: from then on it can be told to stop. That is before it is ready.
    :param own_cgroup: the cgroup that the process has made for itself; None: it has none.
    :param known: applications whose directories were looked at just now.
    :param early: what was begun before this module was imported. The tree owns it.
    :param make_spawners: makes the spawners of an application; tests replace the real ones.
    """
    with ExitStack() as resources:
        if early is not None:
            resources.callback(early.close)
        given = take_over(listeners, resources)
        if missing := why_no_processes():
            raise EnvironmentUnfit(f"passenger_trio needs /proc: {missing}")
        apps = early.apps if early is not None else examine(config, known=known, is_embedded=become_user is None)
        if become_user is None and config.server.user:
            raise OptionError(
                "user", config.server.user, "a program that embeds the server becomes another user itself"
            )
        if early is not None:
            early.let_load()
            sockets = early.sockets
        else:
            sockets = given or bind(config.server, resources)
        scraped: list[socket.socket] = []
        if config.server.metrics_listen:
            from passenger_trio.admin.metrics_listener import bind_metrics

            scraped = bind_metrics(config.server.metrics_listen, resources)
        if become_user is not None and not stays(config.server.user):
            import_everything()  # that user may not be able to read our interpreter's modules
            become_user(config.server.user)
        if early is not None:
            instance, places, specs = early.instance, early.places, early.specs
        else:
            instance = create_instance_dir(config.server.instance_dir)
            resources.callback(instance.remove)
            places = AppPlaces(
                config,
                os.environ,
                instance.path,
                instance.spawn_socket,
                is_embedded=become_user is None,
                own_cgroup=own_cgroup,
            )
            resources.callback(places.close)
            specs = places.make_specs(config.apps, apps)
        limits = pool_limits(config.pool, cpus(), most_by_files(soft_limit("NOFILE")))
        pool = Pool(limits, kernel)
        code_watcher = CodeWatcher(pool, watched_of(specs), kernel)
        routes = [Route(spec.key, spec.app) for spec in specs]
        access_log = AccessLog.open(config, kernel)
        if access_log is not None:
            resources.callback(access_log.close)
        sessions = session_limit([spec.concurrency for spec in specs], limits.max_pool_size)
        own = extensions or Extensions()
        records = access_log if own.on_request is None else RecordTee(own.on_request, access_log, kernel)
        front = Front(config.server, pool, routes, records, descriptors_for(config, specs, limits), kernel)
        front.error_page = own.error_page
        spans = open_spans(kernel) if config.server.tracing == "spans" else None
        if spans is not None:
            front.tracing = spans
            pool.tally.spawn_heard = spans.spawned
        front_processes: Fronts | None = None
        desk: LeaseDesk | None = None
        count = front_count(config.server.fronts, cpus())
        if count > 1:
            if own.on_request is not None or own.error_page is not None:
                raise OptionError(
                    "--fronts",
                    config.server.fronts,
                    "on_request and error_page run in the process of the program: with one front only",
                )
            from passenger_trio.fronts.fronts import Fronts
            from passenger_trio.pool.lease_desk import LeaseDesk

            # Our own front serves this program's requests only.
            desk = LeaseDesk(pool, kernel)
            front_processes = Fronts(
                count,
                FrontsConfig(
                    config,
                    tuple((spec.key, spec.app) for spec in specs),
                    sessions,
                    limits.max_pool_size,
                    front.spill.quota.limit,
                ),
                sockets,
                instance.admin_socket,
                desk,
                kernel,
            )
            resources.callback(front_processes.close)
            if are_too_many(count, [spec.concurrency for spec in specs], limits.max_pool_size):
                lines.fronts_too_many(fronts=count, places=SLOTS)
        listening = Listeners(sockets, front, are_given=bool(given))
        resources.callback(listening.close)
        reloading = Reloading(
            config,
            apps,
            specs,
            pool,
            front,
            access_log,
            listening,
            places.make_spec,
            instance.write,
            own,
            front_processes,
        )
        reloading.is_embedded = become_user is None
        server = RunningServer(instance.admin_socket, apps, pool, front, reloading)
        server.fronts = front_processes
        if config.server.health_path:
            from passenger_trio.admin.health import public_health

            front.health = HealthPaths(config.server.health_path, partial(public_health, server))
        operators = instance.listen()
        resources.callback(operators.close)
        instance.write(server.addresses)
        wait = partial(
            wait_until,
            pool,
            all_or_nothing=config.server.abort_on_startup_error,
            stopping=lambda: server.stopping,
        )

        def refuse_waiting() -> None:
            """Nobody waits for an application that still loads."""
            pool.hasten(time_to_ask(server.config.server.shutdown_timeout))
            pool.shut_down()

        failure: BaseException | None = None
        end: float | None = None
        keep = kernel.supervise_started
        async with trio.open_nursery() as tree:
            parts = PoolParts.make(
                pool,
                config.pool,
                places,
                kernel,
                reloading.restart_files(),
                own,
                make_spawners,
                early.loader if early is not None else None,
            )
            await parts.start_pool(tree)
            started = trio.current_time()
            if spans is not None:
                tree.start_soon(kernel.supervise, "tracing", spans.run)
            if front_processes is not None:
                parts.gauges.others = front_processes.pids
            await parts.start_watches(tree)
            tree.start_soon(kernel.supervise, "the code watcher", code_watcher.run)
            await reloading.open(Parts(tree, parts, code_watcher))
            begun(server)
            if desk is not None and front_processes is not None:
                tree.start_soon(kernel.supervise, "the lease desk", desk.run)
                tree.start_soon(front_processes.run)
            accepts, is_operated = trio.Event(), trio.Event()

            async def open_to_operators() -> None:
                for _ in range(_FIRST_TURNS):
                    await trio.lowlevel.checkpoint()
                await import_for_all(accepts, partial(trio.lowlevel.wait_readable, operators))
                from passenger_trio.admin.admin_tasks import serve_operators

                await serve_operators(server, tree, operators, scraped, started)
                with kernel.contain("the import of what is used later", "it is imported when it is used"):
                    await import_rest(accepts=accepts)
                is_operated.set()
                with kernel.contain("the building of classes", "each is built when it is used"):
                    await build_classes()

            # The first processes are on their way: meanwhile the rest is imported, and operators are served.
            tree.start_soon(open_to_operators)
            try:
                try:
                    await wait(readiness.may_accept)
                except StartupStopped:  # those who have come by now are told so: the next wait is over at once, too
                    refuse_waiting()
                accepts.set()
                tree.start_soon(kernel.supervise, "the deadline scanner", front.deadline_scanner.run)
                await tree.start(partial(keep, "the poller", front.poller.run, must_start=True))
                async with trio.open_nursery() as clients:
                    server.clients = clients
                    async with trio.open_nursery() as accepting:
                        if front_processes is None:
                            listening.accept(accepting, clients)
                        elif not server.stopping:
                            await front_processes.wait_tried()
                            front_processes.accept()
                        try:
                            await wait(readiness.is_ready)
                            await is_operated.wait()
                            for group in readiness.late(pool.active_statistics()):
                                lines.start_not_awaited(group=group.key)
                            for place, (found, spec) in enumerate(zip(apps, specs, strict=True)):
                                if found.app_type != spec.app_type:
                                    apps[place] = attrs.evolve(found, app_type=spec.app_type)
                            server.started = reloading.is_open = True
                            yield server
                        except trio.Cancelled:
                            raise
                        except StartupStopped as error:
                            failure = error  # requests that a process has are finished
                            refuse_waiting()
                        except BaseException as error:  # noqa: BLE001  raised below, outside of the nurseries' groups
                            failure = error
                            tree.cancel_scope.cancel()
                        accepting.cancel_scope.cancel()
                    reloading.is_open = False
                    lines.draining(requests=server.active)
                    total = server.config.server.shutdown_timeout
                    end = trio.current_time() + total
                    grace = time_for_requests(total, [task.shutdown_timeout for task in pool.group_tasks.values()])
                    if front_processes is not None:
                        front_processes.stop(grace)
                    listening.drain()
                    front.drain()
                    server.clients = None
                    clients.cancel_scope.deadline = drained = trio.current_time() + grace
                if front_processes is not None:
                    with trio.move_on_at(min(drained + _FRONT_TIME, end)):
                        await front_processes.wait_ended()
            except (StartupAborted, StartupStopped) as error:
                failure = error
            if end is None:
                end = trio.current_time() + config.server.shutdown_timeout
            pool.hasten(time_to_ask(end - trio.current_time()))
            await parts.end(end)
            tree.cancel_scope.cancel()
        if failure is not None:
            raise failure
