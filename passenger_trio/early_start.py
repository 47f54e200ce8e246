"""Starts an application's first program before the server itself is imported, because both take as long for their imports (DE10).

The program is the loader that the first spawn would start, with the same command, environment and limits. It connects and says hello. It gets its options
between two imports (``let_load``), and loads the application while the server is imported. Then its spawn takes the loader over (``spawn_listener``,
``direct.start_loader``).

Laws:

* This is a shortcut only. If it is impossible for any reason, the spawn starts its program itself, and reports what is wrong.
* It is taken only for a program of the server's own user that needs no preparation, and only if the server has one application: with several, it is
  unknown which one is wanted first.
* None of the application's code runs before the server's addresses are bound, nor if its access log cannot be written: a server that is started twice, or
  wrongly, does not run it.
* ``close`` ends a program that no spawn has taken. Nothing of it is left, also if Trio never runs.
* Neither this module nor what it imports needs Trio, whose import takes as long as that of a small application.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import ExitStack

from passenger_trio.admin.registry import InstanceDir, create_instance_dir
from passenger_trio.codecs.control_protocol import encode_options
from passenger_trio.core.early_loader import may_load_early, may_start_early
from passenger_trio.errors import PassengerError
from passenger_trio.late_classes import define
from passenger_trio.options import Config
from passenger_trio.preflight import examine
from passenger_trio.server.listening.bind import bind
from passenger_trio.server.logs.syslog import syslog_path
from passenger_trio.spawning.app_places import AppPlaces
from passenger_trio.spawning.app_spec import AppSpec
from passenger_trio.spawning.detect import DetectedApp
from passenger_trio.spawning.early_loader import SPAWN_BACKLOG, EarlyLoader
from passenger_trio.spawning.known_apps import KnownApps
from passenger_trio.spawning.output import OutputPipe
from passenger_trio.spawning.server_user import stays
from passenger_trio.system.cgroups import OwnCgroup
from passenger_trio.system.children import start_program
from passenger_trio.system.listen import listen_unix, remove_unix_socket
from passenger_trio.system.pidfd import pin_child, why_no_processes

__all__ = ["EarlyStart", "start_before_server"]


@define(eq=False)
class EarlyStart:
    """The parts of a server that exist before it is imported. The server owns them as soon as it begins."""

    apps: list[DetectedApp]
    instance: InstanceDir
    places: AppPlaces
    specs: list[AppSpec]
    loader: EarlyLoader
    sockets: list[socket.socket]
    """The server's addresses."""
    _may_load: bool
    _resources: ExitStack

    def let_load(self) -> None:
        """Let the loader load the application, if it is there by now. May be called again."""
        if self._may_load:
            self.loader.let_load()

    def close(self) -> None:
        """End the loader, if no spawn has taken it, and remove the directories. Idempotent."""
        self._resources.close()


def start_before_server(config: Config, own_cgroup: OwnCgroup | None, known: KnownApps | None) -> EarlyStart | None:
    """Start the first loader, if that is possible. Call it in the server's cgroup, in which the loader must be, too.

    :param known: see ``open_tree``.
    """
    with ExitStack() as resources:
        try:
            if not (may_start_early(config) and stays(config.server.user)) or why_no_processes():
                return None
            apps = examine(config, known=known)
            sockets = bind(config.server, resources)
            instance = create_instance_dir(config.server.instance_dir)
            resources.callback(instance.remove)
            places = AppPlaces(
                config, os.environ, instance.path, instance.spawn_socket, is_embedded=False, own_cgroup=own_cgroup
            )
            resources.callback(places.close)
            specs = places.make_specs(config.apps, apps)
            spec = specs[0]
            if spec.detected.app_type == "generic" or spec.user is not None or spec.prepare is not None:
                return None  # a program without a loader, as of a Procfile, or one that needs something first
            loader = _start(spec, places.spawn_socket, places.spawn_mode)
        except (PassengerError, OSError, ValueError):
            return None
        resources.callback(loader.close)
        may_load = may_load_early(config) and _takes_lines(config.server.access_log)
        return EarlyStart(apps, instance, places, specs, loader, sockets, may_load, resources.pop_all())


def _takes_lines(access_log: str) -> bool:
    """Whether the access log, which the server itself opens, is likely to be opened. Of what is no file, as ``off``, nothing is known: it is not in the way."""
    path = syslog_path(access_log) or access_log
    if not os.path.lexists(path):
        return not os.path.dirname(path) or os.access(os.path.dirname(path), os.W_OK)
    return os.access(path, os.W_OK) and not os.path.isdir(path)


def _start(spec: AppSpec, path: str, mode: int) -> EarlyLoader:
    """:raises OSError: the loader cannot be started.
    :raises ValueError: the loader cannot be started because of its environment.
    """
    role, command = ("preloader", spec.preloader_command) if spec.uses_preloader else ("worker", spec.command)
    environment, umask, token = spec.environment_now(), spec.umask, secrets.token_hex(16)
    socket_name = secrets.token_hex(6)
    options = encode_options(spec.loader_options(socket_name))
    with ExitStack() as undo:
        listening = listen_unix(path, SPAWN_BACKLOG, mode=mode)
        undo.callback(remove_unix_socket, path)
        undo.callback(listening.close)
        output = OutputPipe()
        undo.callback(output.discard)
        pid = start_program(
            command,
            cwd=spec.detected.root,
            env={**environment, "PASSENGER_TRIO_SPAWN_SOCKET": path, "PASSENGER_TRIO_SPAWN_TOKEN": token},
            output=output.writing_end,
            umask=umask,
        )
        pidfd = pin_child(pid)
        undo.pop_all()
    output.close_writing_end()
    return EarlyLoader(
        role, command, environment, umask, spec.uid, token, path, socket_name, options, pidfd, output, listening
    )
