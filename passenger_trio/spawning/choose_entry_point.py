"""Chooses the entry point of a Python file, with the reason; or gives the reason why the file has
none.

Both answers are sentences for people. ``core.python_entry_points`` judges names; this module
chooses by these judgements.
"""

from __future__ import annotations

import sys

import attrs

from passenger_trio.core.python_entry_points import (
    FACTORY_NAMES,
    OBJECT_NAMES,
    Finding,
    Load,
    judge,
    other_applications,
    usual_entry_points,
)
from passenger_trio.core.python_frameworks import Verdict
from passenger_trio.core.python_names import Module
from passenger_trio.errors import NothingToServe
from passenger_trio.late_classes import frozen

__all__ = ["Choice", "Miss", "choose_named", "choose_usual", "interface_of_name"]

_INTERFACES = {Verdict.WSGI: "wsgi", Verdict.ASGI: "asgi"}
_USUAL = " or ".join([f"`{name}`" for name in OBJECT_NAMES] + [f"`{name}()`" for name in FACTORY_NAMES])


@frozen
class Choice:
    """An entry point, before the interpreter is known. The attributes mean the same as in ``DetectedApp``."""

    reason: str
    startup_file: str = ""
    entry_module: str = ""
    entry_object: str = ""
    entry_is_factory: bool = False
    candidates: tuple[str, ...] = ()
    env_additions: tuple[tuple[str, str], ...] = ()
    interface: str = ""
    """``wsgi`` or ``asgi``: the interface that the text shows, else the one that the file name
    suggests.
    """
    is_certain: bool = False
    """Whether the text shows the interface."""
    unseen_module: str = ""
    """A module outside of the application's files, whose text was not read."""

    def at(self, startup_file: str) -> Choice:
        """The same in that file."""
        return Choice(
            self.reason, startup_file, self.entry_module, self.entry_object, self.entry_is_factory, self.candidates,
            self.env_additions, self.interface, self.is_certain, self.unseen_module,
        )  # fmt: skip

    @property
    def target(self) -> str:
        """The target as a user would write it."""
        where = self.entry_module or self.startup_file
        return f"{where}:{self.entry_object}{'()' if self.entry_is_factory else ''}"


@frozen
class Miss:
    """A file without an application: a sentence for people, and whether the file looked like one."""

    text: str
    came_near: bool = True


def interface_of_name(name: str) -> str:
    """The interface that the name of a file (``asgi.py``, ``passenger_asgi.py``) or a module
    (``shop.asgi``) suggests.
    """
    stem = name.removesuffix(".py").replace("/", ".").rpartition(".")[2]
    return "asgi" if stem == "asgi" or stem.endswith("_asgi") else "wsgi"


def choose_usual(
    module: Module, file: str, load: Load, *, wanted: str = "", trusts_wanted: bool = True, is_named: bool = False
) -> Choice | Miss:
    """The entry point of a file under one of the usual names, else its only one under another name.

    :param file: the file's name in sentences.
    :param wanted: the interface that was asked for, or ``""``.
    :param trusts_wanted: if no entry point fits, take one that looks like another interface: the
        loader, which runs it, decides.
    :param is_named: the user named this file: it is taken in case of doubt.
    :returns: a choice, or a sentence on what the file has instead.
    """
    if module.syntax_error:
        return Choice(f"{file} is there, although {_not_python(module)}", interface=interface_of_name(file))
    usual = usual_entry_points(module, load)
    others = other_applications(module, load)
    for finding in usual:
        if finding.can_be_served and wanted in ("", _INTERFACES.get(finding.verdict, wanted)):
            return _choice(file, finding)
    for verdict, interface in _INTERFACES.items():
        served = [finding for finding in others if finding.verdict is verdict and wanted in ("", interface)]
        if len(served) == 1:
            return _choice(file, served[0], only=True)
        if served:
            names = ", ".join(f"`{finding.target}`" for finding in served)
            return Miss(f"{file} has several applications ({names}): name one")
    for finding in usual:
        if finding.can_be_served and trusts_wanted:
            return _choice(file, finding)
    if _hides_names(module, load) and (is_named or file in ("passenger_wsgi.py", "passenger_asgi.py")):
        return Choice(
            f"{file} is there; which names it has shows only when it is loaded", interface=interface_of_name(file)
        )
    if usual:
        return Miss(f"{file} has {_named(usual[0])}" + (" (no application of that type)" if wanted else ""))
    return Miss(f"{file} has no {_USUAL}", came_near=False)


def choose_named(module: Module, file: str, path: str, is_factory: bool, load: Load) -> Choice:
    """The entry point that the user named.

    :raises NothingToServe: the file shows that it has no such name, or that the object cannot be
        served.
    """
    target = f"{path}()" if is_factory else path
    plain = Choice(
        f"`{target}` of {file} was asked for",
        entry_object=path,
        entry_is_factory=is_factory,
        interface=interface_of_name(file),
    )
    if module.syntax_error:
        return attrs.evolve(plain, reason=f"{plain.reason}, although {_not_python(module)}")
    finding = judge(module, path, load, is_factory=is_factory)
    if finding is None:
        if _hides_names(module, load):
            return plain
        has = [f"`{other.target}`" for other in usual_entry_points(module, load) + other_applications(module, load)]
        raise NothingToServe(f"{file} has no `{path}`" + (f"; it has {', '.join(has)}" if has else ""), (path,))
    if finding.verdict is Verdict.NEITHER and not module.is_dynamic:
        hint = ""
        if not is_factory and judge(module, path, load, is_factory=True) and finding.what.startswith("a function of"):
            hint = f"; if it makes the application, write `{path}()`"
        raise NothingToServe(f"{file} has {_named(finding)}, which is no WSGI or ASGI application{hint}", (path,))
    return attrs.evolve(
        plain,
        reason=f"{plain.reason}: {finding.what}",
        entry_object=finding.path,
        interface=_INTERFACES.get(finding.verdict, plain.interface),
        is_certain=finding.verdict in _INTERFACES,
    )


def _choice(file: str, finding: Finding, *, only: bool = False) -> Choice:
    interface = _INTERFACES.get(finding.verdict, interface_of_name(file))
    words = f"has {_named(finding)}" + (f", its only {interface.upper()} application" if only else "")
    if interface == "asgi" and not only:
        words += " (ASGI)"
    return Choice(
        f"{file} {words}",
        entry_object=finding.path,
        entry_is_factory=finding.is_factory,
        interface=interface,
        is_certain=finding.verdict in _INTERFACES,
    )


def _named(finding: Finding) -> str:
    if finding.is_factory and not finding.what.startswith("a function"):
        made = f", which makes {finding.what}" if finding.verdict is not Verdict.PROBABLE else ""
        return f"the factory `{finding.target}`{made}"
    return f"`{finding.path}`, {finding.what}"


def _not_python(module: Module) -> str:
    if module.syntax_error.startswith("it "):
        return module.syntax_error
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"it is not valid Python {version} ({module.syntax_error})"


def _hides_names(module: Module, load: Load) -> bool:
    """Whether the module may have names that its text does not show."""
    return module.is_dynamic or any(load(star) is None for star in module.stars)
