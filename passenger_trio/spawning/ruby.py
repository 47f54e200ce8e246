"""Finds the Rack application in a directory: the file to load, the Ruby that runs it, and the
reasons.

The Ruby is, in this order: the one that was named (``--ruby``), the one that ``.ruby-version``,
``.tool-versions`` or the ``ruby`` line of the Gemfile requires, the first in ``PATH``. A required
version is searched where version managers (rbenv, asdf, mise, rvm, chruby) install their Rubies,
and in ``PATH`` under the usual names. Asking an interpreter for its version (``-v``) costs 5 ms, or
300 ms with JRuby.

The version in a version file is a condition: a Ruby of another minor version is refused. One of
another patch level is taken, and the reason says so. Bundler, in the loader, checks the version in
the Gemfile; its message is shown on the error page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

import attrs

from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.spawning.programs import answer, can_run, in_path, named
from passenger_trio.system.regular_files import read_regular

__all__ = ["OLDEST", "STARTUP_FILE", "Ruby", "choose_ruby", "rack_file"]

OLDEST = (2, 6)
"""The oldest Ruby that the loaders run on; JRuby 9.3 is a Ruby 2.6."""

STARTUP_FILE = "config.ru"
_FIRST = "passenger_wsgi.py"
"""Marks a directory as clearly as ``config.ru`` does. Other Python files beside a ``config.ru`` do
not.
"""

_MAX_SIZE = 65536
_VERSION = re.compile(r"(?:(ruby|jruby|truffleruby)-?)?(\d+(?:\.\d+){0,3})(?:-?p\d+)?\Z")
_VERSION_OUTPUT = re.compile(
    r"(?P<engine>ruby|jruby|truffleruby) (?P<own>[\d.]+)(?:.*?\((?:like ruby )?(?P<language>\d+\.\d+\.\d+)\))?"
)
_GEMFILE_RUBY = re.compile(r"^\s*ruby[\s(]+(?P<versions>[\"'][^#\n]*)", re.MULTILINE)
_GEMFILE_FILE = re.compile(r"^\s*ruby[\s(]+file:\s*[\"']([^\"']+)", re.MULTILINE)
_HOMES = (".rbenv/versions", ".rubies", ".rvm/rubies", ".asdf/installs/ruby", ".local/share/mise/installs/ruby")


@frozen
class Ruby:
    """An interpreter.

    :ivar version: of the language: JRuby 9.3 is a Ruby 2.6.
    :ivar own_version: the engine's own version number.
    """

    path: str
    engine: str
    version: tuple[int, ...]
    own_version: tuple[int, ...]
    reason: str = ""

    @property
    def can_fork(self) -> bool:
        return self.engine not in ("jruby", "truffleruby")

    @property
    def name(self) -> str:
        """``Ruby 3.1.2``, ``jruby 9.3.9.0``."""
        return f"{'Ruby' if self.engine == 'ruby' else self.engine} {_dotted(self.own_version)}"


@frozen
class _Requirement:
    """The Ruby that a file requires."""

    engine: str
    version: tuple[int, ...]
    where: str
    text: str

    def is_met_by(self, ruby: Ruby, digits: int) -> bool:
        wanted = self.version[:digits]
        return ruby.engine == self.engine and ruby.own_version[: len(wanted)] == wanted


def rack_file(root: str, app_type: str, named: str) -> str:
    """Absolute path of the Rack application's startup file; ``""`` if the directory has no Rack application.

    :param named: the target or the startup file that was given, or ``""``.
    :raises NothingToServe: the given file does not exist.
    """
    if named.endswith(".ru") or (named and app_type == "rack"):
        path = os.path.join(root, named)
        if not os.path.isfile(path):
            raise NothingToServe(f"there is no file {named} in {root}", (named,))
        return path
    path = os.path.join(root, STARTUP_FILE)
    if app_type == "rack" and not os.path.isfile(path):
        raise NothingToServe(f"there is no {STARTUP_FILE} in {root}, which a Rack application has", (STARTUP_FILE,))
    if named or app_type not in ("", "rack") or not os.path.isfile(path):
        return ""
    return "" if app_type != "rack" and os.path.isfile(os.path.join(root, _FIRST)) else path


def choose_ruby(ruby: str, root: str, environ: Mapping[str, str]) -> Ruby:
    """The Ruby for the application in ``root``, with the reason in words.

    :param ruby: the given name: a path, a program to look up in ``PATH``, a directory with
        ``bin/ruby``; or ``""``.
    :raises OptionError: the interpreter does not exist, cannot be run, or is not a Ruby that the
        loader runs on.
    """
    if ruby:
        found = _ask_version(
            named(
                "--ruby",
                ruby,
                environ,
                language="Ruby",
                binaries=("ruby", "jruby"),
                tree="the directory it was installed into",
            )
        )
        if found is None:
            raise OptionError(
                "--ruby", ruby, f"it does not answer like a Ruby interpreter; Ruby {_dotted(OLDEST)} or newer is wanted"
            )
        return attrs.evolve(_old_enough(found), reason=f"named by --ruby ({found.name})")
    requirement = _find_requirement(root)
    if requirement is not None and requirement.version:
        for digits in (4, 2):
            for candidate in _candidates(requirement, environ):
                met = _ask_version(candidate)
                if met is not None and requirement.is_met_by(met, digits):
                    instead = "" if requirement.is_met_by(met, 4) else f", the nearest that is here is {met.name}"
                    return attrs.evolve(
                        _old_enough(met), reason=f"{requirement.where} asks for {requirement.text}{instead}"
                    )
        if requirement.where != "the Gemfile":
            hint = "install it, or name another with --ruby"
            raise OptionError(
                "--ruby", "", f"{requirement.where} asks for Ruby {requirement.text}, which is not found: {hint}"
            )
    for name in ("ruby", "jruby"):
        for path in in_path(name, environ):
            usual = _ask_version(path)
            if usual is not None:
                return attrs.evolve(_old_enough(usual), reason=f"the first in PATH ({usual.name})")
    raise OptionError("--ruby", "", "there is no ruby in PATH: install one, or name it with --ruby")


def _find_requirement(root: str) -> _Requirement | None:
    for where, text in (
        (".ruby-version", _text(root, ".ruby-version").strip()),
        (".tool-versions", _tool_version(_text(root, ".tool-versions"))),
    ):
        match = _VERSION.match(text)
        if match:
            return _Requirement(match[1] or "ruby", _numbers(match[2]), where, text)
    gemfile = _text(root, "Gemfile") or _text(root, "gems.rb")
    other = _GEMFILE_FILE.search(gemfile)
    match = _VERSION.match(_text(root, other[1]).strip()) if other else None
    if match:
        return _Requirement(match[1] or "ruby", _numbers(match[2]), "the Gemfile", match[0])
    line = _GEMFILE_RUBY.search(gemfile)
    return _gemfile_requirement(line["versions"].strip()) if line else None


def _gemfile_requirement(text: str) -> _Requirement | None:
    """``"3.1.2"``, ``"~> 3.1.0"``, ``">= 3.0", "< 3.4"``, ``"2.6.8", engine: "jruby", engine_version: "9.3.9.0"``."""
    engine = re.search(r"engine(?:\s*=>|:)\s*[\"'](\w+)", text)
    engine_version = re.search(r"engine_version(?:\s*=>|:)\s*[\"']([\d.]+)", text)
    if engine is not None and engine[1] != "ruby":
        return (
            _Requirement(engine[1], _numbers(engine_version[1]) if engine_version else (), "the Gemfile", text)
            if engine_version
            else None
        )
    match = re.match(r"[\"'](~>|=)?\s*(\d+(?:\.\d+)*)[\"']", text)
    if match is None:
        return None  # a range: take the first Ruby in PATH; Bundler checks it
    numbers = _numbers(match[2])
    return _Requirement("ruby", numbers[:-1] if match[1] == "~>" else numbers, "the Gemfile", text)


def _candidates(requirement: _Requirement, environ: Mapping[str, str]) -> Iterator[str]:
    """Paths of interpreters that may meet a requirement."""
    home = environ.get("HOME", "")
    directories = ["/opt/rubies", *(os.path.join(home, name) for name in _HOMES if home)]
    for directory in directories:
        try:
            names = sorted(os.listdir(directory), reverse=True)
        except OSError:
            continue
        for name in names:
            match = _VERSION.match(name)
            if (
                match
                and (match[1] or "ruby") == requirement.engine
                and _numbers(match[2])[:1] == requirement.version[:1]
            ):
                yield os.path.join(directory, name, "bin", "jruby" if requirement.engine == "jruby" else "ruby")
    names = [requirement.engine]
    if requirement.engine == "ruby":
        names.insert(0, f"ruby{_dotted(requirement.version[:2])}")
    for name in names:
        yield from in_path(name, environ)


def _ask_version(path: str) -> Ruby | None:
    """Run an interpreter to ask for its version. None: not a Ruby."""
    if not can_run(path):
        return None
    match = _VERSION_OUTPUT.search(answer((path, "-v")) or "")
    if match is None:
        return None
    own = _numbers(match["own"])
    return Ruby(
        path, match["engine"], own if match["engine"] == "ruby" else _numbers(match["language"] or match["own"]), own
    )


def _old_enough(ruby: Ruby) -> Ruby:
    if ruby.version[:2] < OLDEST:
        raise OptionError("--ruby", ruby.path, f"it is {ruby.name}; applications need Ruby {_dotted(OLDEST)} or newer")
    return ruby


def _text(root: str, name: str) -> str:
    try:
        return (read_regular(os.path.join(root, name), _MAX_SIZE) or b"").decode("utf-8", "replace")
    except OSError:
        return ""


def _tool_version(text: str) -> str:
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and words[0] == "ruby":
            return words[1]
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip(".").split(".") if part)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
