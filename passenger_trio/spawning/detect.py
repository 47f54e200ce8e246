"""Finds the application in a directory, or the one that a target names: what to load, with which
interpreter, and why.

Detection reads syntax trees and imports nothing. It gives the reason for its choice in one
sentence. If it finds nothing, it reports in at most six lines what it looked for and which files
came near.

It searches in the order of ``STARTUP_FILES``, then Django's ``manage.py``, then the packages in the
directory (and in ``src``), then a Node.js project (whose ``package.json`` often serves a frontend
only). A startup file with a syntax error is chosen all the same: it is the file that the user is
working on, and the loader shows the error with its traceback.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping

import attrs

from passenger_trio.core.django_project import (
    SETTINGS_VARIABLE,
    django_application,
    django_modules,
    settings_module,
    uses_channels,
)
from passenger_trio.core.python_entry_points import FACTORY_NAMES, OBJECT_NAMES
from passenger_trio.core.python_names import Module, is_paste_factory
from passenger_trio.core.script_service import service_arguments
from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.options import AppOptions
from passenger_trio.spawning.app_files import AppFiles
from passenger_trio.spawning.copied_files import choose_startup
from passenger_trio.spawning.env_files import web_command
from passenger_trio.spawning.near_misses import (
    foreign_files,
    nothing_found,
    project_file,
    project_scripts,
    subdirectories,
)
from passenger_trio.spawning.node import STARTUP_FILES as NODE_FILES
from passenger_trio.spawning.node import NodeFile, choose_node, is_node_file, named_file, node_file
from passenger_trio.spawning.python_choice import Choice, Miss, choose_named, choose_usual, interface_of_name
from passenger_trio.spawning.python_interpreter import choose_interpreter, finds_module
from passenger_trio.spawning.ruby import STARTUP_FILE as RACK_FILE
from passenger_trio.spawning.ruby import choose_ruby, rack_file
from passenger_trio.system.paths import absolute_path

__all__ = ["STARTUP_FILES", "DetectedApp", "detect"]

STARTUP_FILES = ("passenger_wsgi.py", "passenger_asgi.py", "wsgi.py", "asgi.py", "app.py", "main.py")
_OF_ONE_INTERFACE = {"wsgi": ("passenger_asgi.py", "asgi.py", "asgi"), "asgi": ("passenger_wsgi.py", "wsgi.py", "wsgi")}
"""Files and modules whose names belong to another interface than the one that was asked for."""
_PACKAGE_MODULES = ("wsgi", "asgi", "app", "main", "")
"""Modules of a package that may hold its application; the last is the package itself."""

_LOOKED_FOR = (*STARTUP_FILES, "manage.py")
_MOST_OTHERS = 50
_NAMES = (*OBJECT_NAMES, *(f"{name}()" for name in FACTORY_NAMES))


@attrs.frozen
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
    environ = os.environ if environ is None else environ
    root = _path(app.root, environ)
    files = AppFiles(root, f"{root.rstrip('/')}/src")
    if not files.names or not os.access(root, os.X_OK):
        _check_root(root)
    search = _Search(files, app, environ)
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
    # Nearly no directory of thousands has a config.ru that has to be looked at.
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
    """The command of the project that runs a server of its own (``core.script_service``), if it has one such."""
    found = []
    for name, entry in project_scripts(root).items():
        module, _, function = entry.partition(":")
        text = files.load(module) if function.isidentifier() else None
        arguments = None if text is None else service_arguments(text, function)
        if text is not None and arguments is not None:
            found.append((name, module, function, arguments))
    if len(found) != 1:
        return None  # a choice among equals would have no reason
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
    others = [file for file in _LOOKED_FOR if os.path.isfile(os.path.join(root, file))]
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
    """:raises NothingToServe: it is no directory, or cannot be read."""
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


def _taken(found: Choice | Miss | None, misses: list[Miss]) -> Choice | None:
    """:param misses: gets what is none."""
    if isinstance(found, Miss):
        misses.append(found)
        return None
    return found


@attrs.frozen
class _Search:
    files: AppFiles
    app: AppOptions
    environ: Mapping[str, str]

    # Targets that the user named

    def target(self, target: str) -> Choice:
        """``module``, ``module:object``, ``module:factory()``, ``file.py:object`` ..."""
        where, colon, path = target.rpartition(":") if ":" in target else (target, "", "")
        is_factory = path.endswith("()")
        path = path.removesuffix("()")
        if "(" in path:
            raise OptionError("target", target, "a factory is called without arguments: module:factory()")
        if colon and not all(part.isidentifier() for part in path.split(".")):
            raise OptionError("target", target, "behind the colon stands the name of an object, as in module:object")
        if where.endswith(".py") or os.sep in where:
            return self._file(where, path, is_factory)
        if not all(part.isidentifier() for part in where.split(".")):
            raise OptionError("target", target, "write module:object, module:factory() or file.py:object")
        found = self.files.path_of(where)
        if not found:
            return self._unseen(where, path, is_factory)
        choice = self._choose(self.files.load(where) or Module(), self.files.relative(found), path, is_factory)
        return attrs.evolve(choice, entry_module=where, env_additions=self._src_path(found))

    def startup_file(self, file: str) -> Choice:
        return self._file(file, "", False)

    def _file(self, file: str, path: str, is_factory: bool) -> Choice:
        module = self.files.file(file)
        if module is None:
            raise NothingToServe(f"there is no file {file} in {self.files.root}", (file,))
        return attrs.evolve(
            self._choose(module, file, path, is_factory), startup_file=os.path.join(self.files.root, file)
        )

    def _choose(self, module: Module, file: str, path: str, is_factory: bool) -> Choice:
        if path:
            return choose_named(module, file, path, is_factory, self.files.load)
        choice = choose_usual(module, file, self.files.load, wanted=self.app.app_type, is_named=True)
        if isinstance(choice, Miss):
            raise NothingToServe(nothing_found(f"no application found in {file}", [choice.text]), _NAMES)
        return choice

    def _unseen(self, where: str, path: str, is_factory: bool) -> Choice:
        package, _, _ = where.rpartition(".")
        if package and self.files.path_of(package):
            raise NothingToServe(
                f"there is no module {where} in {self.files.root}, although there is {package}", (where,)
            )
        target = f"{where}:{path}{'()' if is_factory else ''}" if path else where
        return Choice(
            reason=f"`{target}` was asked for",
            entry_module=where,
            entry_object=path,
            entry_is_factory=is_factory,
            interface=interface_of_name(where),
            unseen_module=where,
        )

    # Search of the directory

    def directory(self) -> Choice:
        """The first application that can be served; the others become its ``candidates``."""
        misses: list[Miss] = []
        files = [file for file in STARTUP_FILES if file not in _OF_ONE_INTERFACE.get(self.app.app_type, ())]
        found = [self._startup_file(file, misses) for file in files if file in self.files.names]
        found.append(self._django(misses))
        choices = [choice for choice in found if choice is not None]
        if not choices:
            choices = [choice for choice in self._packages(misses) if choice is not None]
            if len(choices) > 1:
                # A choice among equals would have no reason.
                names = ", ".join(choice.target for choice in choices)
                misses, choices = [Miss(f"there are several applications ({names}): name one")], []
        if not choices and self.app.app_type:
            # The user gave the type. The loader runs the file, and decides.
            found = [self._startup_file(file, [], trusts_wanted=True) for file in STARTUP_FILES]
            choices = [choice for choice in found if choice is not None]
        if not choices:
            raise self._nothing(misses)
        chosen, *others = choices
        return attrs.evolve(chosen, candidates=tuple(other.reason for other in others)) if others else chosen

    def _startup_file(self, file: str, misses: list[Miss], *, trusts_wanted: bool = False) -> Choice | None:
        choice = _taken(choose_startup(self.files, file, self.app.app_type, trusts_wanted), misses)
        return choice and choice.at(f"{self.files.root.rstrip('/')}/{file}")

    def _django(self, misses: list[Miss]) -> Choice | None:
        manage = self.files.file("manage.py")
        if manage is None:
            return None
        settings = settings_module(manage)
        if not settings:
            why = f"cannot be read ({manage.syntax_error})" if manage.syntax_error else f"sets no {SETTINGS_VARIABLE}"
            misses.append(Miss(f"manage.py {why}"))
            return None
        interface, why = self._django_interface(settings)
        reason = f"manage.py belongs to a Django project ({settings})"
        entry, _, path = django_application(settings, interface, self.files.load).rpartition(".")
        is_factory = False
        if entry and all(part.isidentifier() for part in (*entry.split("."), path)):
            reason = f"{reason} whose {interface.upper()}_APPLICATION is {entry}.{path}"
        else:
            entry = next((name for name in django_modules(settings, interface) if self.files.path_of(name)), "")
            path = "application"
            reason = f"{reason} with the {interface.upper()} module {entry}"
        if not entry:
            # Django's own factory needs only the settings.
            entry, path, is_factory = f"django.core.{interface}", f"get_{interface}_application", True
            reason = (
                f"manage.py belongs to a Django project ({settings}) that has no {interface.upper()} module of its own"
            )
        module = self.files.load(entry)
        sets_it = module is not None and settings_module(module)
        additions = () if sets_it or SETTINGS_VARIABLE in self.environ else ((SETTINGS_VARIABLE, settings),)
        return Choice(
            f"{reason}{why}",
            entry_module=entry,
            entry_object=path,
            entry_is_factory=is_factory,
            env_additions=additions,
            interface=interface,
        )

    def _django_interface(self, settings: str) -> tuple[str, str]:
        """The interface of a Django project, and the reason, to be appended to a sentence.

        ``startproject`` makes an ASGI module in every project, wanted or not. So a project is
        served as WSGI unless it shows that it needs ASGI.
        """
        if self.app.app_type:
            return self.app.app_type, ""
        load = self.files.load
        if django_application(settings, "asgi", load) and uses_channels(settings, load):
            return "asgi", ", and it uses Channels"
        has_wsgi, has_asgi = (
            bool(django_application(settings, interface, load))
            or any(self.files.path_of(name) for name in django_modules(settings, interface))
            for interface in ("wsgi", "asgi")
        )
        if has_asgi and not has_wsgi:
            return "asgi", ""
        return "wsgi", "; it has an ASGI module, too, which --app-type asgi serves" if has_asgi else ""

    def _packages(self, misses: list[Miss]) -> list[Choice | None]:
        directories = (self.files.root, os.path.join(self.files.root, "src"))
        return [self._package(name, misses) for directory in directories for name in _packages_in(directory)]

    def _package(self, package: str, misses: list[Miss]) -> Choice | None:
        for name in _PACKAGE_MODULES:
            if name in _OF_ONE_INTERFACE.get(self.app.app_type, ()):
                continue
            entry = f"{package}.{name}" if name else package
            module = self.files.load(entry)
            if module is not None and not module.syntax_error:
                where = self.files.path_of(entry)
                doubts: list[Miss] = []
                file = self.files.relative(where)
                found = choose_usual(module, file, self.files.load, wanted=self.app.app_type, trusts_wanted=False)
                choice = _taken(found, doubts)
                # Most modules of most packages hold no application; they are not reported.
                misses += [doubt for doubt in doubts if doubt.came_near]
                if choice is not None:
                    return attrs.evolve(choice, entry_module=entry, env_additions=self._src_path(where))
        return None

    def _nothing(self, misses: list[Miss]) -> NothingToServe:
        root = self.files.root
        node = node_file(root).reason
        lines = (
            self._other_files()
            + [miss.text for miss in misses]
            + ([node] if node else [])
            + project_file(root)
            + foreign_files(root)
            + subdirectories(root, (*_LOOKED_FOR, RACK_FILE, *NODE_FILES))
        )
        looked_for = f"looked for {', '.join(STARTUP_FILES)}, Django's manage.py, packages with one of them, {RACK_FILE}, Node.js"
        return NothingToServe(nothing_found(f"no application found in {root}", [looked_for, *lines]), _LOOKED_FOR)

    def _other_files(self) -> list[str]:
        """A line for each file with an unusual name that certainly has an application, and for Pyramid's factory."""
        root = self.files.root
        try:
            names = sorted(os.listdir(root))
        except OSError:
            return []
        lines = []
        for name in [name for name in names if name.endswith(".py") and name not in _LOOKED_FOR][:_MOST_OTHERS]:
            module = self.files.file(name)
            if module is None or module.syntax_error:
                continue
            choice = choose_usual(module, name, self.files.load, wanted=self.app.app_type, trusts_wanted=False)
            if isinstance(choice, Choice) and choice.is_certain:
                target = attrs.evolve(choice, startup_file=os.path.join(root, name)).target
                lines.append(f"{choice.reason}: passenger-trio start {target}")
        for name in (*names, *(os.path.join(name, "__init__.py") for name in _packages_in(root))):
            module = self.files.file(name) if name.endswith(".py") else None
            if module is not None and is_paste_factory(module):
                lines.append(
                    f"{name} has Pyramid's main(global_config, **settings): write wsgi.py with `from pyramid.paster import "
                    "get_app` and `application = get_app('production.ini')`"
                )
        return lines

    def _src_path(self, where: str) -> tuple[tuple[str, str], ...]:
        """The variable that makes a module below ``src`` importable."""
        src = os.path.join(self.files.root, "src")
        if not where.startswith(src + os.sep):
            return ()
        before = self.environ.get("PYTHONPATH", "")
        return (("PYTHONPATH", f"{src}{os.pathsep}{before}" if before else src),)


_NO_APPLICATIONS = frozenset({"tests", "test", "docs", "examples", "migrations", "node_modules", "build", "dist"})


def _packages_in(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))[:1000]
    except OSError:
        return []
    return [
        name
        for name in names
        if name.isidentifier()
        and not name.startswith("_")
        and name not in _NO_APPLICATIONS
        and os.path.isfile(os.path.join(directory, name, "__init__.py"))
    ]
