"""A pool without a server: ``open_pool``, for programs that take their work from elsewhere than HTTP clients (LI5).

::

    program         the block of ``open_pool``
     |- the parts of a pool         pool_parts: remains, spawn listener, pool, hooks, on_event, gauges, restart files
     `- loans that end              requests that were left before their response was complete

Minimums, limits, restarts by restart.txt, back-off and crash-loop detection work as in a server. Options for clients have
no effect: ``Config.server`` is read for ``instance_dir`` and ``abort_on_startup_error`` only.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import trio

from passenger_trio.admin.registry import create_instance_dir
from passenger_trio.app_handle import AppHandle, find_key
from passenger_trio.borrowed_process import BorrowedProcess
from passenger_trio.core import readiness
from passenger_trio.core.model import GroupKey, SessionOutcome
from passenger_trio.core.policy_limits import group_limits, pool_limits
from passenger_trio.core.processes_by_memory import most_by_files
from passenger_trio.core.statistics import PoolStatistics
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import EnvironmentUnfit, OptionError, PassengerError
from passenger_trio.extensions import Extensions
from passenger_trio.late_classes import define
from passenger_trio.library_errors import reword
from passenger_trio.options import Config
from passenger_trio.pool.events import Listener as EventListener
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Session
from passenger_trio.pool.startup import wait_until
from passenger_trio.pool.waiter import Waiter
from passenger_trio.pool_parts import PoolParts
from passenger_trio.preflight import examine
from passenger_trio.spawning.app_places import AppPlaces
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.system.pidfd import why_no_processes
from passenger_trio.system.processor_quota import cpus
from passenger_trio.system.resource_limits import soft_limit

__all__ = ["RunningPool", "open_pool"]

_NOTICE_TIME = 0.5
"""Seconds from the end of a process's stream until the pool knows that the process has ended."""
_POOL_TIME = 5.0
"""Seconds that the pool gets to become empty, in addition to the longest shutdown timeout of an application."""


@define(eq=False)
class RunningPool:
    """Applications whose processes a program borrows. ``open_pool`` makes it."""

    config: Config
    _pool: Pool
    _specs: dict[GroupKey, AppSpec]
    _ending: trio.Nursery
    """Loans that end."""

    def app(self, name: str = "") -> AppHandle:
        """The handle of an application: to restart it, to wait for it, to see its processes.

        :param name: may be left out if there is only one.
        :raises NotFound: there is no such application.
        """
        key = find_key(self._specs, name)
        return AppHandle(key, self._specs[key].app, self._pool)

    @asynccontextmanager
    async def checkout(self, name: str = "") -> AsyncIterator[BorrowedProcess]:
        """Borrow a process while the block runs: ``async with pool.checkout("mail") as process``.

        Waits in the application's queue if all its processes are in use, and starts one more if the pool
        allows it. A cancelled wait leaves the queue.

        :param name: the application; may be left out if there is only one.
        :raises NotFound: there is no such application.
        :raises RequestQueueFull: too many wait already (``max_request_queue_size``).
        :raises RequestQueueTimeout: none became free in time (``max_request_queue_time``).
        :raises SpawnError: the application does not start.
        :raises PoolShutDown: the pool is shutting down.
        """
        key = find_key(self._specs, name)
        found = self._pool.checkout_or_queue(key, self._pool.current_time())
        if isinstance(found, Waiter):
            try:
                session = await found.wait()
            finally:
                found.leave()
        else:
            session = found
        process = BorrowedProcess(session, self._specs[key].app.base_uri, self._finish)
        try:
            yield process
        finally:
            process.give_back()

    def _finish(self, session: Session, outcome: SessionOutcome) -> None:
        self._ending.start_soon(_finish if outcome is SessionOutcome.CLIENT_GONE else _see_end, session, outcome)

    def statistics(self) -> PoolStatistics:
        """The state of the pool now; read-only."""
        return self._pool.statistics()

    def events(self) -> EventListener:
        """See ``RunningServer.events``."""
        return self._pool.events.listen()


async def _see_end(session: Session, outcome: SessionOutcome) -> None:
    """The process has ended its stream without an answer: most likely it has ended, and the pool is about to see that.
    Keep the session until then, so that nobody borrows the process.
    """
    try:
        await session.wait_left(_NOTICE_TIME)
    finally:
        session.close(outcome)


async def _finish(session: Session, outcome: SessionOutcome) -> None:
    """Half-close the stream, which the contract defines as "abort", and give the process back when it is done.

    In HTTP, closing the stream is the only "abort", and the process does not answer it.
    """
    try:
        stream = session.stream
        if stream is not None and session.worker_protocol.awaits_end:
            stream.send_eof()
            while await stream.recv():
                pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        session.close(outcome)


@asynccontextmanager
async def open_pool(config: Config, *, extensions: Extensions | None = None) -> AsyncIterator[RunningPool]:
    """Run the applications of a configuration while the block runs, without a server.

    The block begins when they are ready. Leaving it waits for the processes that are borrowed and ends all of
    them. Leaving it with an exception or a cancellation ends everything at once; the exception passes unchanged.

    :param extensions: spawners and callables of the program's own, as for ``open_server``. ``on_request`` and ``error_page``
        are for clients, and refused.
    :raises NothingToServe: no application was found.
    :raises OptionError: an option has an invalid value.
    :raises StartupAborted: an application did not start, and ``abort_on_startup_error`` is set.
    :raises EnvironmentUnfit: there is no /proc.
    """
    if missing := why_no_processes():
        raise EnvironmentUnfit(f"passenger_trio needs /proc: {missing}")
    own = extensions or Extensions()
    for name in ("on_request", "error_page"):
        if getattr(own, name) is not None:
            raise OptionError(name, getattr(own, name), "a pool without a server has no clients: leave it out")
    try:
        found = examine(config, is_embedded=True)
    except PassengerError as error:
        reword(error)
        raise
    kernel = ErrorKernel()
    failure: BaseException | None = None
    with ExitStack() as resources:
        instance = create_instance_dir(config.server.instance_dir)
        resources.callback(instance.remove)
        places = AppPlaces(config, os.environ, instance.path, instance.spawn_socket, is_embedded=True)
        resources.callback(places.close)
        specs = [places.make_spec(app, detected) for app, detected in zip(config.apps, found, strict=True)]
        directories = {spec.key: os.path.join(spec.detected.root, spec.app.restart_dir) for spec in specs}
        roots = {spec.key: spec.detected.root for spec in specs}
        restart_files = (directories, roots, config.pool.stat_throttle_rate)
        pool = Pool(pool_limits(config.pool, cpus(), most_by_files(soft_limit("NOFILE"))), kernel)
        async with trio.open_nursery() as program:
            parts = PoolParts.make(pool, config.pool, places, kernel, restart_files, own)
            await parts.start_pool(program)
            await parts.start_watches(program)
            for spec in specs:
                limits = group_limits(spec.app, preloads=spec.uses_preloader)
                await pool.add_group(spec.key, limits, parts.spawners(spec), spec.app.shutdown_timeout)
            try:
                await wait_until(
                    pool,
                    readiness.is_ready,
                    all_or_nothing=config.server.abort_on_startup_error,
                    stopping=lambda: False,
                )
                yield RunningPool(config, pool, {spec.key: spec for spec in specs}, program)
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001  raised below, outside of the nursery's group
                failure = error
                program.cancel_scope.cancel()
            longest = max(spec.app.shutdown_timeout for spec in specs)
            await parts.end(trio.current_time() + longest + _POOL_TIME)
            program.cancel_scope.cancel()
    if failure is not None:
        raise failure
