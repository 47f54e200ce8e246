"""Finds the application in a directory, or the one that a target names: what to load, with which
interpreter, and why.

Detection imports nothing of the application. It gives the reason for its choice in one sentence. If it finds
nothing, it reports in at most six lines what it looked for and which files came near.

The order: a Rack application (``config.ru``), Python (``find_python_app``), a Node.js project (whose ``package.json``
often serves a frontend only), the ``web`` command of a Procfile, a script that runs a server.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping

from passenger_trio.core.script_service import service_arguments
from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions
from passenger_trio.spawning.accounts import remembered
from passenger_trio.spawning.app_files import AppFiles
from passenger_trio.spawning.choose_entry_point import Choice
from passenger_trio.spawning.find_node_app import STARTUP_FILES as NODE_FILES
from passenger_trio.spawning.find_node_app import NodeFile, choose_node, is_node_file, named_file, node_file
from passenger_trio.spawning.find_python_app import LOOKED_FOR, PythonSearch
from passenger_trio.spawning.near_misses import (
    project_scripts,
)
from passenger_trio.spawning.procfile import web_command
from passenger_trio.spawning.python_interpreter import choose_interpreter, finds_module
from passenger_trio.spawning.ruby import STARTUP_FILE as RACK_FILE
from passenger_trio.spawning.ruby import choose_ruby, rack_file
from passenger_trio.system.paths import absolute_path

__all__ = ["DetectedApp", "detect"]


@frozen
class DetectedApp:
    """The application to load.

    :ivar app_type: ``wsgi``, ``asgi``, ``rack``, ``node`` or ``generic``.
    :ivar root: absolute path of the application's directory.
    :ivar startup_file: absolute path of the file to load, or ``""`` when ``entry_module`` is
        imported.
    :ivar entry_module: dotted module name, or ``""``.
    :ivar entry_object: attribute path in it, or ``""``: the interface's usual names, in the
        loader's order.
    :ivar entry_is_factory: the object is called without arguments to get the application.
    :ivar python: absolute path of the interpreter; ``python_reason`` gives the reason for it.
    :ivar reason: the reason for this application, in one sentence without a full stop.
    :ivar candidates: other applications that could have been served, in words.
    :ivar env_additions: environment variables that the application needs (the application's own
        options win).
    """

    app_type: str
    root: str
    startup_file: str
    entry_module: str
    entry_object: str
    entry_is_factory: bool
    python: str
    python_reason: str
    reason: str
    candidates: tuple[str, ...] = ()
    env_additions: tuple[tuple[str, str], ...] = ()
    can_fork: bool = True
    """Whether the interpreter can fork. JRuby cannot: its processes are started one by one."""

    start_command: str = ""
    """The command that was found in the directory, for a program; ``""``: the one of the options."""

    is_guess: bool = False
    """The WSGI type was not given, so the loader may find that it is ASGI."""

    is_certain: bool = True
    """Whether the type was given, or the text of the application shows it."""

    @property
    def possible_types(self) -> tuple[str, ...]:
        """Types that the loader may find, the assumed one first."""
        return (self.app_type, "asgi") if self.is_guess and not self.is_certain else (self.app_type,)

    @property
    def why_not_forked(self) -> str:
        """The reason, for people, if ``can_fork`` is False."""
        return {"node": "Node.js cannot fork", "generic": "a program is not forked"}.get(
            self.app_type, "this interpreter cannot fork"
        )


def detect(app: AppOptions, *, environ: Mapping[str, str] | None = None) -> DetectedApp:
    """Find the application that ``app`` means. Blocking, but short: it reads a few small files.

    :param environ: the supervisor's environment (``VIRTUAL_ENV``, ``PATH``, ``PYTHONPATH``), by
        default this process's.
    :raises NothingToServe: there is no application, or none of a kind that can be served.
    :raises OptionError: an option names something that cannot be used.
    """
    environ = _environment() if environ is None else environ
    root = _path(app.root, environ)
    files = AppFiles(root, f"{root.rstrip('/')}/src")
    if not files.names or not os.access(root, os.X_OK):
        _check_root(root)
    search = PythonSearch(files, app, environ)
    if app.target and app.startup_file:
        raise OptionError("--startup-file", app.startup_file, f"the target {app.target!r} says already what to load")
    if app.app_start_command or app.app_type == "generic":
        return generic_app(app, root)
    named = app.target or app.startup_file
    if app.app_type == "node" or (not app.app_type and is_node_file(named)):
        found = named_file(root, named) if named else node_file(root, trusts_type=True)
        if not found.path:
            raise NothingToServe(found.reason or f"there is no {', '.join(NODE_FILES)} in {root}", NODE_FILES)
        return _node_app(app, root, found, environ)
    # Look for a config.ru only if the listing has one: nearly all directories have none.
    may_be_rack = named or app.app_type == "rack" or RACK_FILE in search.files.names
    rack = rack_file(root, app.app_type, named) if may_be_rack else ""
    if rack:
        return _rack_app(app, root, rack, environ)
    if app.target:
        choice = search.target(app.target)
    elif app.startup_file:
        choice = search.startup_file(app.startup_file)
    else:
        try:
            choice = search.directory()
        except NothingToServe:
            found = node_file(root)
            if not app.app_type and found.path:
                return _node_app(app, root, found, environ)
            if command := "" if app.app_type else web_command(root):
                return generic_app(app, root, command, f"Procfile has web: `{command}`")
            if not app.app_type and (service := _service(app, search.files, root, environ)):
                return service
            raise
    python, python_reason = choose_interpreter(app.python, root, environ, search.files.names)
    _check_installed(choice, python, root)
    return DetectedApp(
        app_type=app.app_type or choice.interface or "wsgi",
        root=root,
        startup_file=choice.startup_file,
        entry_module=choice.entry_module,
        entry_object=choice.entry_object,
        entry_is_factory=choice.entry_is_factory,
        python=python,
        python_reason=python_reason,
        reason=choice.reason,
        candidates=choice.candidates,
        env_additions=choice.env_additions,
        is_guess=not app.app_type and choice.interface != "asgi",
        is_certain=bool(app.app_type) or choice.is_certain,
    )


@remembered
def _environment() -> Mapping[str, str]:
    """The server's own environment as a plain dictionary, which is much faster to read than ``os.environ``."""
    return dict(os.environ)


def generic_app(app: AppOptions, root: str, command: str = "", reason: str = "") -> DetectedApp:
    """:param command: found in the directory, with the reason for it; by default that of ``--app-start-command``.
    :raises OptionError: the command is missing, or another option contradicts it.
    """
    found, command = command, command or app.app_start_command
    if not command.strip():
        raise OptionError("--app-type", app.app_type, "give the command that starts the program: --app-start-command")
    for option, value in (("--app-type", app.app_type), ("--startup-file", app.startup_file), ("target", app.target)):
        if value and value != "generic":
            raise OptionError(option, value, "--app-start-command says already what is started")
    return DetectedApp(
        app_type="generic",
        root=root,
        startup_file="",
        entry_module="",
        entry_object="",
        entry_is_factory=False,
        python="/bin/sh",
        python_reason="runs the command, whose program listens on $PORT or on $SOCKET",
        reason=reason or f"`{command}` was given by --app-start-command",
        start_command=found,
        env_additions=(("PASSENGER_BASE_URI", app.base_uri.rstrip("/")),) if app.base_uri.strip("/") else (),
        can_fork=False,
    )


def _service(app: AppOptions, files: AppFiles, root: str, environ: Mapping[str, str]) -> DetectedApp | None:
    """The project's command that runs a server of its own (``core.script_service``), if it has exactly one."""
    found = []
    for name, entry in project_scripts(root).items():
        module, _, function = entry.partition(":")
        text = files.load(module) if function.isidentifier() else None
        arguments = None if text is None else service_arguments(text, function)
        if text is not None and arguments is not None:
            found.append((name, module, function, arguments))
    if len(found) != 1:
        return None  # there would be no reason to choose one of several
    name, module, function, arguments = found[0]
    python, _ = choose_interpreter(app.python, root, environ)
    path = f"PYTHONPATH={shlex.quote(os.path.join(root, 'src'))} " if _is_below_src(files, root, module) else ""
    call = f"import sys; sys.argv[0] = {name!r}; from {module} import {function}; sys.exit({function}())"
    command = f'{path}{shlex.quote(python)} -c {shlex.quote(call)} {" ".join(map(shlex.quote, arguments))} "$PORT"'
    shown = " ".join((name, *arguments))
    return generic_app(
        app, root, command, f"pyproject.toml installs `{name}` ({module}:{function}), a server: `{shown} $PORT`"
    )


def _is_below_src(files: AppFiles, root: str, module: str) -> bool:
    return files.path_of(module).startswith(os.path.join(root, "src") + os.sep)


def _rack_app(app: AppOptions, root: str, startup_file: str, environ: Mapping[str, str]) -> DetectedApp:
    ruby = choose_ruby(app.ruby, root, environ)
    name = os.path.relpath(startup_file, root)
    named = bool(app.target or app.startup_file)
    others = [file for file in LOOKED_FOR if os.path.isfile(os.path.join(root, file))]
    return DetectedApp(
        app_type="rack",
        root=root,
        startup_file=startup_file,
        entry_module="",
        entry_object="",
        entry_is_factory=False,
        python=ruby.path,
        python_reason=ruby.reason,
        reason=f"{name} was asked for, a Rack application" if named else f"{name} is a Rack application",
        candidates=tuple(f"{file} is there, too" for file in others),
        env_additions=(("RAILS_RELATIVE_URL_ROOT", app.base_uri.rstrip("/")),) if app.base_uri.strip("/") else (),
        can_fork=ruby.can_fork,
    )


def _node_app(app: AppOptions, root: str, found: NodeFile, environ: Mapping[str, str]) -> DetectedApp:
    node, node_reason = choose_node(app.node, environ)
    return DetectedApp(
        app_type="node",
        root=root,
        startup_file=found.path,
        entry_module="",
        entry_object="",
        entry_is_factory=False,
        python=node,
        python_reason=node_reason,
        reason=found.reason,
        env_additions=(("PASSENGER_BASE_URI", app.base_uri.rstrip("/")),) if app.base_uri.strip("/") else (),
        can_fork=False,
    )


def _path(given: str, environ: Mapping[str, str]) -> str:
    try:
        return absolute_path(given, environ)
    except FileNotFoundError:
        raise NothingToServe(
            f"{given!r} is relative, and the working directory was removed: change to one that exists"
        ) from None


def _check_root(root: str) -> None:
    """Check the application's directory.

    :raises NothingToServe: the path is no directory, or cannot be read.
    """
    try:
        mode = os.stat(root).st_mode
    except (OSError, ValueError):
        mode = 0
    if stat.S_ISREG(mode):
        name = os.path.basename(root)
        raise NothingToServe(f"{root} is a file, not a directory: start its directory, or name it: {name}:app")
    if not stat.S_ISDIR(mode):
        raise NothingToServe(f"there is no directory {root}")
    if not os.access(root, os.R_OK | os.X_OK):
        raise NothingToServe(f"the directory {root} cannot be read: permission denied")


def _check_installed(choice: Choice, python: str, root: str) -> None:
    """A module outside of the root may be installed. Ask the interpreter now, so that a misspelt
    name is reported at once.
    """
    top = choice.unseen_module.partition(".")[0]
    if top and not finds_module(python, root, top):
        raise NothingToServe(f"there is no module {top!r} in {root}, and {python} does not find one either")
