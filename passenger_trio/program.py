"""The server as a program of its own, before and after Trio runs: what the process is, and ending processes that are left.

``program_tasks`` is what runs in Trio: the server, and what signals do.

Law: what is imported here does not need Trio, and the first loader is started before Trio is imported (DE10).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from passenger_trio.errors import EnvironmentUnfit, OptionError
from passenger_trio.options import Config
from passenger_trio.reload.config_source import ConfigSource
from passenger_trio.signals import effects
from passenger_trio.spawning.server_user import stays
from passenger_trio.system.cgroups import Entering
from passenger_trio.system.children import become_subreaper, end_all_strays
from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.syscalls import pidfd_open
from passenger_trio.system.terminal import has_terminal

if TYPE_CHECKING:
    from passenger_trio.early_start import EarlyStart
    from passenger_trio.running import RunningServer

__all__ = ["run"]


def run(config: Config, *, on_ready: Callable[[RunningServer], None], source: ConfigSource | None = None) -> None:
    """Serve as the whole program, until a signal ends it (see above). Raises as ``serve``.

    :param source: where the configuration is read anew.
    """
    try:
        os.close(pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        raise EnvironmentUnfit(f"passenger_trio needs Linux 5.9 or newer, which knows pidfd_open ({error})") from None
    lifeline = _pin(config.server.lifeline)
    become_subreaper()
    # A signal that arrives before Trio listens is handled when it does. A later one does not disturb the cleanup.
    unheard: list[int] = []
    heeded = effects(has_terminal())
    for number in heeded:
        signal.signal(number, lambda number, _: unheard.append(number))
    early: EarlyStart | None = None
    # Another user than the one that entered it could not leave it.
    entering = Entering() if stays(config.server.user) else None
    try:
        from passenger_trio.early_start import start_before_server

        cgroup = entering.finish() if entering is not None else None
        early = start_before_server(config, cgroup, source.found if source is not None else None)
        import trio

        from passenger_trio.program_tasks import serve_program

        if early is not None:
            early.let_load()  # it has connected while Trio was imported
        trio.run(serve_program, config, on_ready, source, heeded, unheard, lifeline, cgroup, early)
    finally:
        if early is not None:
            early.close()  # a module could not be imported, or Trio could not run: no tree has owned it
        cgroup = entering.finish() if entering is not None else None
        end_all_strays()
        if cgroup is not None:
            cgroup.leave()


def _pin(pid: int) -> PidFd | None:
    """:raises OptionError: there is no such process."""
    if not pid:
        return None
    try:
        return PidFd.open(pid)
    except ProcessLookupError:
        raise OptionError("--lifeline", pid, "there is no such process: give the pid of one that lives") from None
