"""The data that a spawner needs about an application, computed once: command, environment, the
loader's ``options``. Which variables the environment has is in ``app_environment``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from passenger_trio.codecs.control_protocol import CONTRACT_VERSION
from passenger_trio.core.app_cgroup import files_of
from passenger_trio.core.app_limits import AppLimits, limits_of
from passenger_trio.core.model import GroupKey
from passenger_trio.core.option_values import parse_umask
from passenger_trio.late_classes import define
from passenger_trio.options import AppOptions
from passenger_trio.spawning.app_environment import Surroundings, environment_of_app
from passenger_trio.spawning.detect import DetectedApp
from passenger_trio.spawning.env_files import read_env_files
from passenger_trio.spawning.run_as import RunAs
from passenger_trio.system.app_cgroups import AppCgroups
from passenger_trio.system.children import descendants
from passenger_trio.system.resource_limits import set_limits
from passenger_trio.system.spawn_servers import find_loader
from passenger_trio.version import __version__

if TYPE_CHECKING:
    from passenger_trio.spawning.backtraces import Program

__all__ = ["SERVER_SOFTWARE", "AppSpec", "concurrency_of", "group_key", "make_app_spec"]

SERVER_SOFTWARE = f"passenger_trio/{__version__}"

_LOADERS = {
    "wsgi": ("python", "wsgi_loader.py", "wsgi_loader.py"),
    "asgi": ("python", "asgi_loader.py", "asgi_loader.py"),
    "rack": ("ruby", "rack_loader.rb", "rack_preloader.rb"),
    "node": ("node", "node_loader.js", ""),
}
"""Type -> language, the program for a worker, the program for a preloader. Other types have no loader."""
_CONCURRENCY = {"asgi": 100, "node": 100, "generic": 0}
"""Concurrent requests of a process, for types that do not count threads. 0: any number."""
_PRELOAD_ARGUMENT = "--preload"


@define
class AppSpec:
    """How the processes of one application are made.

    A reload replaces ``app`` if only options differ that processes do not get at their start (``core.reload_plan``).
    """

    key: GroupKey
    app: AppOptions
    detected: DetectedApp
    command: tuple[str, ...]
    preloader_command: tuple[str, ...]
    surroundings: Mapping[str, str]
    """The variables that all applications of its user have in common. Shared."""
    socket_dir: str
    run_as: RunAs | None = None
    """The user of its programs; None: the server's own."""
    found_out: dict[str, str] = attrs.field(factory=dict, eq=False, repr=False)
    """Facts that only running the application showed: ``app_type``, if the guess was wrong."""
    programs: dict[int, Program] = attrs.field(factory=dict, eq=False, repr=False)
    """Its programs by pid; some may have ended (``live_programs``)."""
    cgroups: AppCgroups | None = attrs.field(default=None, eq=False, repr=False)
    """The cgroups of all applications; None: cgroups are not used."""

    def environment_now(self) -> dict[str, str]:
        """The environment of a program that is started now.

        :raises OptionError: a file of ``--env-file`` cannot be read.
        """
        return {**read_env_files(self.detected.root, self.app.env_file), **self.environment}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its programs, without the files of ``--env-file``. Computed by each call."""
        return environment_of_app(self.surroundings, self.app, self.detected)

    def takes(self, role: str) -> bool:
        """Whether a program of this role runs already and waits, so that a spawn takes it into use (CONTRACT.md 1.6).

        :param role: ``worker`` or ``preloader``.
        """
        return bool(self.app.preloader_socket) and (role == "preloader" or self.app.spawn_method == "direct")

    @property
    def uid(self) -> int:
        """The user of its programs. The kernel must name this user as the peer of their sockets."""
        return self.run_as.uid if self.run_as is not None else os.getuid()

    @property
    def user(self) -> tuple[int, int, tuple[int, ...]] | None:
        """For ``start_program``."""
        return None if self.run_as is None else (self.run_as.uid, self.run_as.gid, self.run_as.groups)

    @property
    def prepare(self) -> Callable[[int], str] | None:
        """For ``start_program``: sets the limits of a process, and moves it into the cgroup of its application (OP9). Its forked
        processes inherit both.
        """
        limits, files = limits_of(self.app), files_of(self.app)
        return partial(self._limit, limits, files) if limits or files else None

    def _limit(self, limits: AppLimits, files: Mapping[str, str], pid: int) -> str:
        if files and self.cgroups is not None:
            self.cgroups.enter(str(self.key), files, pid)
        return set_limits(pid, limits.resources, limits.nice)

    def change(self, app: AppOptions) -> None:
        """Use other options from now on, without a new start of its processes. Running processes move into its cgroup, too."""
        before, files = files_of(self.app), files_of(app)
        self.app = app
        if self.cgroups is None or files == before:
            return
        self.cgroups.change(str(self.key), files)
        if files and not before:
            for program in self.live_programs():
                try:
                    family = [program, *descendants(program)]
                except OSError:  # no descriptor is left
                    family = [program]
                for pid in family:
                    self.cgroups.enter(str(self.key), files, pid)

    @property
    def umask(self) -> int:
        """For ``start_program``."""
        return parse_umask(self.app.umask)

    @property
    def app_type(self) -> str:
        """The type that running the application showed, else the detected one."""
        return self.found_out.get("app_type", self.detected.app_type)

    def turned_out(self, app_type: str) -> bool:
        """Record the type that a process reports. Returns whether it differs from the type so far."""
        if not (self.detected.is_guess and app_type in _LOADERS and app_type != self.app_type):
            return False
        self.found_out["app_type"] = app_type
        return True

    def live_programs(self) -> dict[int, Program]:
        """Its programs whose end was not seen yet. Forgets the others."""
        for pid, program in list(self.programs.items()):
            if program.pidfd is None or program.pidfd.exited:
                del self.programs[pid]
        return dict(self.programs)

    @property
    def uses_preloader(self) -> bool:
        """Whether a preloader forks its processes."""
        return self.detected.app_type != "generic" and self.app.spawn_method != "direct"

    @property
    def concurrency(self) -> int:
        """See ``concurrency_of``."""
        return concurrency_of(self.app, self.detected)

    @property
    def streams(self) -> int:
        """Streams that a process takes at the same time; 0: any number.

        There is one for each session that ``force_max_concurrent_requests_per_process`` allows. So
        no session waits for the end of another session's stream, unless there is no thread for it.
        """
        forced = self.app.force_max_concurrent_requests_per_process
        return forced if self.detected.app_type in _CONCURRENCY and forced >= 0 else self.concurrency

    @property
    def _tasks(self) -> int:
        """Like ``streams``, for an application that turns out to be ASGI."""
        forced = self.app.force_max_concurrent_requests_per_process
        own = self.app.max_concurrent_requests_per_process
        return forced if forced >= 0 else own if own >= 0 else _CONCURRENCY["asgi"]

    def loader_options(self, socket_name: str) -> dict[str, Any]:
        """The members of the ``options`` message."""
        return {
            "contract": CONTRACT_VERSION,
            "app_root": self.detected.root,
            "app_type": self.detected.app_type,
            "startup_file": self.detected.startup_file,
            "entry_module": self.detected.entry_module,
            "entry_object": self.detected.entry_object,
            "entry_is_factory": self.detected.entry_is_factory,
            "environment": self.app.environment,
            "threads": self.streams,
            "guessed": self.detected.is_guess,
            "tasks": self._tasks,
            "unlimited": bool(self.app.unlimited_concurrency_paths),
            "loop": self.app.loop,
            "socket_dir": self.socket_dir,
            "socket_name": socket_name,
            "base_uri": self.app.base_uri.rstrip("/"),
            "server_software": SERVER_SOFTWARE,
            "shutdown_timeout": self.app.shutdown_timeout,
            "name": self.key.name,
        }


def concurrency_of(app: AppOptions, detected: DetectedApp) -> int:
    """Sessions that a process of the application should serve at the same time; 0: any number."""
    usual = _CONCURRENCY.get(detected.app_type)
    if usual is None:
        return app.thread_count
    return usual if app.max_concurrent_requests_per_process < 0 else app.max_concurrent_requests_per_process


def make_app_spec(
    app: AppOptions,
    detected: DetectedApp,
    base_environment: Mapping[str, str] | Surroundings,
    socket_dir: str,
    run_as: RunAs | None = None,
) -> AppSpec:
    """:param run_as: the user of its programs; None: the server's own. ``socket_dir`` is that user's.
    :raises FileNotFoundError: the loader is missing from the installation.
    """
    command: tuple[str, ...] = ()
    preloader_command: tuple[str, ...] = ()
    if detected.app_type in _LOADERS:
        language, loader, preloader = _LOADERS[detected.app_type]
        command, preloader_command = _commands(detected.python, language, loader, preloader)
    if not detected.can_fork:
        app = attrs.evolve(app, spawn_method="direct")
    if detected.start_command:
        app = attrs.evolve(app, app_start_command=detected.start_command)
    common = base_environment if isinstance(base_environment, Surroundings) else Surroundings(base_environment)
    return AppSpec(
        key=group_key(app, detected),
        app=app,
        detected=detected,
        command=command,
        preloader_command=preloader_command,
        surroundings=common.of(None if run_as is None else run_as.account),
        socket_dir=socket_dir,
        run_as=run_as,
    )


@functools.lru_cache(maxsize=64)
def _commands(interpreter: str, language: str, loader: str, preloader: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands for a worker and for a preloader, which thousands of applications share.

    :raises FileNotFoundError: the loader is missing from the installation.
    """
    command = (interpreter, str(find_loader(language, loader)))
    if not preloader:
        return command, ()
    return command, (interpreter, str(find_loader(language, preloader)), _PRELOAD_ARGUMENT)


def group_key(app: AppOptions, detected: DetectedApp) -> GroupKey:
    """The name of the application's group."""
    return GroupKey(app.name or os.path.basename(detected.root) or "app", app.environment)
