"""Finds the Python application in a directory, or the one that a target names: which file or module, and which object in it.

It reads syntax trees and imports nothing. It searches in the order of ``STARTUP_FILES``, then Django's ``manage.py``, then
the packages in the directory (and in ``src``). A startup file with a syntax error is chosen all the same: it is the file that the
user is working on, and the loader shows the error with its traceback.

``choose_entry_point`` judges one file; ``detect`` adds the interpreter, and looks for other languages.
"""

from __future__ import annotations

import os
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
from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions
from passenger_trio.spawning.app_files import AppFiles
from passenger_trio.spawning.choose_entry_point import Choice, Miss, choose_named, choose_usual, interface_of_name
from passenger_trio.spawning.copied_files import choose_startup
from passenger_trio.spawning.find_node_app import STARTUP_FILES as NODE_FILES
from passenger_trio.spawning.find_node_app import node_file
from passenger_trio.spawning.near_misses import (
    foreign_files,
    nothing_found,
    project_file,
    subdirectories,
)
from passenger_trio.spawning.ruby import STARTUP_FILE as RACK_FILE

__all__ = ["LOOKED_FOR", "STARTUP_FILES", "PythonSearch"]

STARTUP_FILES = ("passenger_wsgi.py", "passenger_asgi.py", "wsgi.py", "asgi.py", "app.py", "main.py")
_OF_ONE_INTERFACE = {"wsgi": ("passenger_asgi.py", "asgi.py", "asgi"), "asgi": ("passenger_wsgi.py", "wsgi.py", "wsgi")}
"""Files and modules whose names belong to another interface than the one that was asked for."""
_PACKAGE_MODULES = ("wsgi", "asgi", "app", "main", "")
"""Modules of a package that may hold its application; the last is the package itself."""

LOOKED_FOR = (*STARTUP_FILES, "manage.py")
_MOST_OTHERS = 50
_NAMES = (*OBJECT_NAMES, *(f"{name}()" for name in FACTORY_NAMES))


def _taken(found: Choice | Miss | None, misses: list[Miss]) -> Choice | None:
    """``found``, if it is a choice. :param misses: gets it otherwise."""
    if isinstance(found, Miss):
        misses.append(found)
        return None
    return found


@frozen
class PythonSearch:
    """The search for the Python application of one directory."""

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
        names = self.files.names
        not_wanted = _OF_ONE_INTERFACE.get(self.app.app_type, ())
        found = [self._startup_file(file, misses) for file in STARTUP_FILES if file in names and file not in not_wanted]
        if "manage.py" in names:
            found.append(self._django(misses))
        choices = [choice for choice in found if choice is not None]
        if not choices:
            choices = [choice for choice in self._packages(misses) if choice is not None]
            if len(choices) > 1:
                # There would be no reason to choose one of several.
                targets = ", ".join(choice.target for choice in choices)
                misses, choices = [Miss(f"there are several applications ({targets}): name one")], []
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
            + subdirectories(root, (*LOOKED_FOR, RACK_FILE, *NODE_FILES))
        )
        looked_for = f"looked for {', '.join(STARTUP_FILES)}, Django's manage.py, packages with one of them, {RACK_FILE}, Node.js"
        return NothingToServe(nothing_found(f"no application found in {root}", [looked_for, *lines]), LOOKED_FOR)

    def _other_files(self) -> list[str]:
        """A line for each file with an unusual name that certainly has an application, and for Pyramid's factory."""
        root = self.files.root
        try:
            names = sorted(os.listdir(root))
        except OSError:
            return []
        lines = []
        for name in [name for name in names if name.endswith(".py") and name not in LOOKED_FOR][:_MOST_OTHERS]:
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
