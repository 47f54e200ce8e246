"""The nursery tree: composition, and nothing else. (The function ``serve`` is the face; a module of that name would hide it.)

::

    tree            starts top to bottom, stops bottom to top
     |- reception   where loaders connect back
     |- pool        clock, and a group home for each application
     |- access log
     |- admin       answers until the last process is gone
     |- hooks, gauges, watch
     |- timekeeper, switchboard
     `- clients     on drain: deadline = now + grace
         `- accept loops

Every task but the pool's is in the error kernel (``kernel``, ARCHITECTURE.md): what goes wrong in it by mistake does not come here.

``open_server`` is the whole life of a server as a context: inside, it serves; leaving it normally drains it, leaving it with an exception or a
cancellation ends everything at once. ``program`` adds what belongs to a process of its own: signals, orphans.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial

import attrs
import trio

from passenger_trio.admin.registry import create_instance_dir
from passenger_trio.admin.server import serve_admin
from passenger_trio.core import readiness
from passenger_trio.core.descriptors import Descriptors
from passenger_trio.core.model import GroupLimits, PoolLimits
from passenger_trio.errors import (
    BindError,
    EnvironmentUnfit,
    NothingToServe,
    OptionError,
    StartupAborted,
)
from passenger_trio.kernel import ErrorKernel
from passenger_trio.options import Config, check, parse_mode
from passenger_trio.pool.gauges import Gauges
from passenger_trio.pool.hooks import Hooks, parse_hooks
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.watch import Watch
from passenger_trio.running import RunningServer
from passenger_trio.server.access_log import AccessLog
from passenger_trio.server.front import Front, trusted_networks
from passenger_trio.server.listen import Listener
from passenger_trio.server.mounts import Route, check_apart
from passenger_trio.spawning.app_spec import AppSpec, group_key, make_app_spec
from passenger_trio.spawning.detect import DetectedApp, detect
from passenger_trio.spawning.direct import DirectSpawner
from passenger_trio.spawning.generic import GenericSpawner
from passenger_trio.spawning.reception import Reception
from passenger_trio.spawning.remains import Remains
from passenger_trio.spawning.smart import SmartSpawner
from passenger_trio.spawning.spawner import Spawner
from passenger_trio.spawning.warm_up import WarmSpawner
from passenger_trio.system import tempfiles
from passenger_trio.system.logs import AppOutput
from passenger_trio.system.pidfd import why_no_processes
from passenger_trio.system.ports import Ports
from passenger_trio.system.sockets import holder_of_port, listen_tcp, listen_unix
from passenger_trio.system.syscalls import cpus

__all__ = ["examine", "open_server", "open_tree", "serve"]

_POOL_TIME = 5.0
"""Seconds, beyond the longest shutdown timeout of an application, for the pool to become empty before it is cut off."""

MakeSpawners = Callable[[AppSpec, Reception, Pool, Ports, ErrorKernel, Remains], Callable[[int], Spawner]]
"""For an application: what makes the spawner of each of its generations."""

_log = logging.getLogger("passenger_trio")


async def serve(config: Config, *, task_status: trio.TaskStatus[RunningServer] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve until ``RunningServer.stop`` is called, or until cancelled. ``await nursery.start(serve, config)`` gives the running server.

    :raises NothingToServe: no application was found.
    :raises OptionError: an option has a value that cannot be used.
    :raises BindError: an address cannot be listened on.
    :raises StartupAborted: the application did not start, and that is to be fatal.
    :raises EnvironmentUnfit: there is no /proc.
    """
    async with open_server(config) as server:
        task_status.started(server)
        await server.wait_stopping()


def open_server(config: Config) -> AbstractAsyncContextManager[RunningServer]:
    """A server, for as long as the block lasts. Raises as ``serve``.

    Leaving the block drains the server; leaving it with an exception ends everything at once, and the exception goes on as it is. Installs no
    signal handler and writes no global state; all its tasks are the caller's.
    """
    return open_tree(config, ErrorKernel())


@asynccontextmanager
async def open_tree(
    config: Config, kernel: ErrorKernel, *, make_spawners: MakeSpawners | None = None
) -> AsyncIterator[RunningServer]:
    """``open_server`` in an error kernel of the caller's.

    :param make_spawners: what makes the processes of an application, if they are not to be real ones.
    """
    make_spawners = make_spawners or _spawners
    with ExitStack() as resources:
        if missing := why_no_processes():
            raise EnvironmentUnfit(f"passenger_trio needs /proc: {missing}")
        apps = examine(config)
        sockets = _listen(config, resources)
        instance = create_instance_dir(config.server.instance_dir)
        resources.callback(instance.remove)
        hooks = parse_hooks(config.pool.hook)
        limits = _pool_limits(config)
        pool = Pool(limits, kernel)
        specs = [
            make_app_spec(app, found, os.environ, str(instance.path))
            for app, found in zip(config.apps, apps, strict=True)
        ]
        routes = [Route(spec.key, spec.app) for spec in specs]
        access_log = AccessLog.open(config, kernel)
        if access_log is not None:
            resources.callback(access_log.close)
        concurrencies = [spec.concurrency for spec in specs]
        sessions = limits.max_pool_size * max(concurrencies) if all(concurrencies) else 0
        descriptors = Descriptors.measured(
            resource.getrlimit(resource.RLIMIT_NOFILE)[0], config.server.max_connections, sessions, limits.max_pool_size
        )
        front = Front(config.server, pool, routes, access_log, descriptors, kernel)
        listeners = [Listener(sock, front) for sock in sockets]
        for listener in listeners:
            resources.callback(listener.close)
        server = RunningServer(
            config, [listener.url for listener in listeners], instance.admin_socket, apps, pool, front
        )
        instance.write(server.addresses)
        failure: BaseException | None = None
        keep = kernel.supervise_started
        async with trio.open_nursery() as tree:
            reception = Reception(instance.spawn_socket, kernel)
            remains = Remains(kernel)
            await tree.start(remains.serve)
            await tree.start(partial(keep, "the reception", reception.serve, must_start=True))
            await tree.start(pool.run)
            if access_log is not None:
                tree.start_soon(access_log.run)
            await tree.start(partial(keep, "the admin socket", partial(serve_admin, server, specs), must_start=True))
            if hooks:
                await tree.start(keep, "the hooks", Hooks(pool.events, hooks, kernel).run)
            gauges = Gauges(pool, config.pool.memory_check_interval)
            tree.start_soon(kernel.supervise, "the memory gauges", gauges.run)
            if config.pool.stat_throttle_rate:
                directories = {spec.key: os.path.join(spec.detected.root, spec.app.restart_dir) for spec in specs}
                roots = {spec.key: spec.detected.root for spec in specs}
                watch = Watch(pool, directories, roots, config.pool.stat_throttle_rate)
                await tree.start(keep, "the watch for restart.txt", watch.run)
            ports = Ports()
            for spec in specs:
                await pool.add_group(
                    spec.key,
                    _group_limits(spec),
                    make_spawners(spec, reception, pool, ports, kernel, remains),
                    spec.app.shutdown_timeout,
                )
            try:
                await _wait_until(config, pool, readiness.may_accept)
                tree.start_soon(kernel.supervise, "the timekeeper", front.timekeeper.run)
                await tree.start(partial(keep, "the switchboard", front.switchboard.run, must_start=True))
                async with trio.open_nursery() as clients:
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(kernel.supervise, "a listener", listener.run, clients)
                        try:
                            await _wait_until(config, pool, readiness.is_ready)
                            for group in readiness.late(pool.statistics()):
                                _log.warning(
                                    "%s is still being loaded, and is not waited for: its requests wait", group.key
                                )
                            apps[:] = [
                                attrs.evolve(found, app_type=spec.app_type)
                                for found, spec in zip(apps, specs, strict=True)
                            ]
                            yield server
                        except trio.Cancelled:
                            raise
                        except BaseException as error:  # noqa: BLE001  the block's own: kept out of nurseries' groups, and raised below
                            failure = error
                            tree.cancel_scope.cancel()
                        accepting.cancel_scope.cancel()
                    _log.info("draining: %d requests are under way", front.active)
                    for listener in listeners:
                        with kernel.contain("a listener"):
                            listener.accept_waiting(clients)
                        with kernel.contain("a listener"):
                            listener.close()
                    front.drain()
                    clients.cancel_scope.deadline = trio.current_time() + config.server.shutdown_timeout
            except StartupAborted as error:
                failure = error
            pool.shut_down()
            with trio.move_on_after(max(spec.app.shutdown_timeout for spec in specs) + _POOL_TIME):
                await pool.empty.wait()
                await remains.wait_no_groups()
            tree.cancel_scope.cancel()
        if failure is not None:
            raise failure


def examine(config: Config) -> list[DetectedApp]:
    """What would be served. Opens and starts nothing; raises ``NothingToServe`` and ``OptionError`` as ``serve``."""
    check(config)
    if not config.apps:
        raise NothingToServe("there is no application: the configuration has none")
    apps = [detect(app) for app in config.apps]
    check_apart([Route(group_key(app, found), app) for app, found in zip(config.apps, apps, strict=True)])
    parse_hooks(config.pool.hook)
    trusted_networks(config.server)
    directory = config.server.data_buffer_dir
    if directory and not os.path.isdir(directory):
        raise OptionError("--data-buffer-dir", directory, "it is no directory")
    if directory and not tempfiles.takes_files(directory):
        raise OptionError("--data-buffer-dir", directory, "no file can be made in it")
    return apps


async def _wait_until(config: Config, pool: Pool, reached: Callable[..., bool]) -> None:
    """Until that is so of the pool (``readiness``).

    :raises StartupAborted: an application has failed to start, and that is to be fatal.
    """
    fatal = config.server.abort_on_startup_error
    while True:
        changed = pool.changed
        statistics = pool.statistics()
        failure = readiness.startup_failure(statistics) if fatal else None
        if failure is not None:
            raise StartupAborted(failure)
        if reached(statistics, all_or_nothing=fatal):
            return
        await changed.wait()


def _listen(config: Config, resources: ExitStack) -> list[socket.socket]:
    options = config.server
    try:
        path = os.path.abspath(options.socket) if options.socket else ""
    except FileNotFoundError:
        raise OptionError("--socket", options.socket, "it is relative, and the working directory was removed") from None
    try:
        if path:
            sockets = [listen_unix(path, options.socket_backlog, mode=parse_mode(options.socket_mode))]
        else:
            sockets = listen_tcp(options.address, options.port, options.socket_backlog)
    except OSError as exc:
        raise _bind_error(config, exc) from exc
    for sock in sockets:
        resources.callback(_close_unused, sock, path)
    return sockets


def _close_unused(sock: socket.socket, path: str) -> None:
    """A listening socket of a server that did not come to use it; else its ``Listener`` has closed it."""
    if sock.fileno() >= 0:
        sock.close()
        if path:
            os.unlink(path)


def _bind_error(config: Config, exc: OSError) -> BindError:
    options = config.server
    if options.socket:
        remove = ", or remove it" if isinstance(exc, FileExistsError) else ""
        return BindError(f"cannot listen on {options.socket}: {exc.strerror}; choose another with -S{remove}")
    host = options.address
    where = f"[{host}]:{options.port}" if ":" in host and not host.startswith("[") else f"{host}:{options.port}"
    if exc.errno == errno.EADDRINUSE:
        holder = holder_of_port(options.port)
        return BindError(f"{where} is in use{f' by {holder}' if holder else ''}; choose another port with -p")
    if exc.errno == errno.EACCES:
        return BindError(f"{where} may not be used by this user; ports below 1024 are reserved, choose another with -p")
    if isinstance(exc, socket.gaierror):
        return BindError(f"{options.address} is not an address of this machine; choose another with -a")
    return BindError(f"cannot listen on {where}: {exc.strerror}; choose another address with -a or port with -p")


def _pool_limits(config: Config) -> PoolLimits:
    pool = config.pool
    return PoolLimits(
        max_pool_size=pool.max_pool_size,
        pool_idle_time=pool.pool_idle_time,
        max_concurrent_spawns=pool.max_concurrent_spawns or cpus(),
    )


def _group_limits(spec: AppSpec) -> GroupLimits:
    app = spec.app
    return GroupLimits(
        min_instances=app.min_instances,
        max_instances=app.max_instances,
        max_request_queue_size=app.max_request_queue_size,
        max_preloader_idle_time=app.max_preloader_idle_time,
        max_requests=app.max_requests,
        max_requests_jitter=app.max_requests_jitter,
        max_process_lifetime=app.max_process_lifetime,
        max_drain_time=app.max_drain_time,
        max_request_time=app.max_request_time,
        max_request_queue_time=app.max_request_queue_time,
        memory_limit=app.memory_limit,
        hard_memory_limit=app.hard_memory_limit,
        force_concurrency=app.force_max_concurrent_requests_per_process,
        preloads=spec.detected.app_type != "generic" and app.spawn_method != "direct",
        # A person who has just mended the file presses reload.
        retry_on_demand_after=1.0 if app.is_development else float("inf"),
    )


def _spawners(
    spec: AppSpec, reception: Reception, pool: Pool, ports: Ports, kernel: ErrorKernel, remains: Remains
) -> Callable[[int], Spawner]:
    """What makes the spawner of each generation."""
    sink = AppOutput(spec.key.name)

    def make(generation: int) -> Spawner:
        spawner = make_cold(generation)
        if not spec.app.warmup_url:
            return spawner
        return WarmSpawner(spawner, spec.app.warmup_url, spec.app.base_uri, spec.app.start_timeout)

    def make_cold(generation: int) -> Spawner:
        if spec.detected.app_type == "generic":
            return GenericSpawner(spec, ports, sink, remains)
        if spec.app.spawn_method == "direct":
            return DirectSpawner(spec, reception, sink, remains)

        def on_preloader(number: int, started: bool) -> None:
            pool.preloader_changed(spec.key, generation, number, started)

        return SmartSpawner(spec, reception, sink, on_preloader=on_preloader, kernel=kernel, remains=remains)

    return make
