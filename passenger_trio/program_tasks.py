"""The tasks of the server as a program of its own: the server, the effects of signals, the reaper of orphans.

``signals`` has the effect of each signal; this module brings it about. ``program`` is what stands before and after it.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio

from passenger_trio.early_start import EarlyStart
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import Forced, PassengerError, StartupStopped
from passenger_trio.log_lines import server as lines
from passenger_trio.options import Config
from passenger_trio.reload.config_source import ConfigSource
from passenger_trio.signals import Effect
from passenger_trio.spawning.server_user import become_user
from passenger_trio.system.cgroups import OwnCgroup
from passenger_trio.system.children import reap_strangers
from passenger_trio.system.inotify import DirectoryWatch
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.terminal import has_terminal

if TYPE_CHECKING:
    from passenger_trio.running import RunningServer

__all__ = ["serve_program"]

_HAS_GENERATIONS = hasattr(gc, "freeze")
"""PyPy's collector is of another kind."""
_SETTLE = 0.1
_LOOK = 1.0
"""Seconds."""


async def _follow_lifeline(lifeline: PidFd, program: trio.CancelScope, kernel: ErrorKernel) -> None:
    try:
        await kernel.supervise("the lifeline", _end_with, lifeline, program)
    finally:
        lifeline.close()


async def _end_with(lifeline: PidFd, program: trio.CancelScope) -> None:
    await lifeline.wait_exit()
    lines.lifeline_ended(pid=lifeline.pid)
    program.cancel()


async def serve_program(
    config: Config,
    on_ready: Callable[[RunningServer], None],
    source: ConfigSource | None,
    heeded: Mapping[int, Effect],
    unheard: list[int],
    lifeline: PidFd | None,
    cgroup: OwnCgroup | None,
    early: EarlyStart | None,
) -> None:
    """Serve until a signal ends it. Raises as ``serve``.

    :param heeded: the effects of the signals.
    :param unheard: those that have come already. No other code reads them.
    """
    # Here: the loader was started just now, and makes its own imports meanwhile (DE10). What is imported stays: looking for
    # cycles in it is for nothing.
    gc.disable()
    from passenger_trio.tree import open_tree

    if _HAS_GENERATIONS:
        gc.freeze()
    failure: PassengerError | None = None
    kernel = ErrorKernel()
    had_terminal = has_terminal()
    with trio.open_signal_receiver(*heeded) as signals:
        async with trio.open_nursery() as program:
            server: RunningServer | None = None
            restart_wanted = False
            forced = False

            def obey(number: int) -> None:
                nonlocal restart_wanted
                effect, name = heeded[number], _name(number)
                if effect is Effect.NOTHING:
                    lines.signal_without_effect(signal=name)
                elif effect is Effect.REOPEN:
                    lines.logs_reopened(signal=name)
                    if server is not None:
                        server.reopen_logs()
                elif effect is Effect.RELOAD and (not had_terminal or has_terminal()):
                    if server is not None and server.started:
                        lines.reload_by_signal(signal=name)
                        program.start_soon(_reload, server, kernel)
                    elif not restart_wanted:
                        # The operator has deployed a new version while an older one is loading: do not end the server.
                        restart_wanted = True
                        lines.restart_after_start(signal=name)
                elif server is None or server.stopping:
                    lines.ending_at_once(signal=name)
                    nonlocal forced
                    forced = server is not None
                    program.cancel_scope.cancel()
                else:
                    lines.draining_by_signal(signal=name)
                    server.stop()

            async def listen() -> None:
                async for number in signals:
                    with kernel.contain("a signal"):
                        obey(number)

            def begun(starting: RunningServer) -> None:
                nonlocal server
                server = starting
                # Not before: what is made for each of thousands of applications stays, too (OP5).
                if _HAS_GENERATIONS:
                    gc.freeze()
                gc.enable()

            for number in unheard:
                obey(number)
            program.start_soon(listen)
            program.start_soon(kernel.supervise, "the reaper of strangers", reap_strangers)
            if lifeline is not None:
                program.start_soon(_follow_lifeline, lifeline, program.cancel_scope, kernel)
            try:
                known = source.found if source is not None else None
                async with open_tree(
                    config,
                    kernel,
                    become_user=become_user,
                    begun=begun,
                    own_cgroup=cgroup,
                    known=known,
                    early=early,
                ) as ready:
                    with kernel.contain("the banner"):
                        on_ready(ready)
                    program.start_soon(_settle_memory)
                    ready.reloading.source = source
                    ready.reloading.tell_broken()
                    if config.server.apps_dir and source is not None:
                        program.start_soon(
                            kernel.supervise, "the watch of --apps-dir", _follow, ready, config.server.apps_dir
                        )
                    if restart_wanted:
                        program.start_soon(_reload, ready, kernel)
                    await ready.wait_stopping()
            except StartupStopped:
                lines.stopped_at_start(status=0)
            except PassengerError as error:
                failure = error
            program.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if forced:
        raise Forced("ended at once by a second signal: requests in hand were cut off")


async def _settle_memory() -> None:
    """Exempt the loaded objects from garbage collection, once the first requests were answered."""
    if _HAS_GENERATIONS:
        await trio.sleep(_SETTLE)
        gc.collect()
        gc.freeze()


async def _follow(server: RunningServer, directory: str) -> None:
    """Take over what changes in ``--apps-dir`` (OP4). Where the kernel has no watch, look once a second."""
    while True:
        try:
            with DirectoryWatch(directory) as watch:
                await _take_over_files(server)  # what changed before there was a watch
                while await watch.wait_changed():
                    await trio.sleep(_SETTLE)  # several files are often written together
                    await _take_over_files(server)
        except OSError:
            await _take_over_files(server)
        await trio.sleep(_LOOK)


async def _take_over_files(server: RunningServer) -> None:
    try:
        await server.reloading.reload_source(apps_only=True)
    except PassengerError as error:
        if not server.stopping:
            lines.files_not_taken_over(reason=str(error))


async def _reload(server: RunningServer, kernel: ErrorKernel) -> None:
    """Reload, and restart what the reload leaves running (OP2). On an error all are restarted as they are."""
    with kernel.contain("a signal"):
        try:
            if server.reloading.source is None:
                server.restart()
            else:
                await server.reloading.reload_source(restart=True)
        except PassengerError as error:
            lines.reload_failed(reason=str(error))
            server.restart()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
