"""Remembers the entry points of startup files that many directories have in common: a hosting's ``passenger_wsgi.py``, the
files of a framework's template. Each such text is parsed once, and not once for each of thousands of directories (OP5).

Law: the answer is always that of ``choose_usual``. A choice depends on the text, the name of the file, the type that was asked for, and
on the application's own modules. The first three are the key. A choice is remembered only if none of the modules that the text
imports is among the application's own files, and this is checked again for each directory.
"""

from __future__ import annotations

from passenger_trio.core.python_names import Module
from passenger_trio.spawning.app_files import AppFiles
from passenger_trio.spawning.choose_entry_point import Choice, Miss, choose_usual

__all__ = ["choose_startup"]

_MOST = 64
_LONGEST = 8192
"""Bytes. A longer file is probably no copy."""

_Key = tuple[bytes, str, str, bool]
_KNOWN: dict[_Key, tuple[Choice | Miss, tuple[str, ...]]] = {}
"""Key -> the choice, and the modules that must not be among the application's own files."""


def choose_startup(files: AppFiles, file: str, wanted: str, trusts_wanted: bool) -> Choice | Miss | None:
    """The entry point of a startup file, as ``choose_usual`` finds it; None: there is no such file.

    :param wanted: the interface that was asked for, or ``""``. :param trusts_wanted: see ``choose_usual``.
    """
    try:
        source = files.source(file)
    except OSError:
        source = b""  # the module says why
    if source is None:
        return None
    key = source, file, wanted, trusts_wanted
    if not source or len(source) > _LONGEST:
        return _choose(files, file, wanted, trusts_wanted, [])
    known = _KNOWN.get(key)
    if known is not None and not any(map(files.path_of, known[1])):
        return known[0]
    asked: list[tuple[str, bool]] = []
    choice = _choose(files, file, wanted, trusts_wanted, asked)
    if choice is not None and not any(is_there for _, is_there in asked):
        if len(_KNOWN) >= _MOST:
            _KNOWN.clear()
        _KNOWN[key] = choice, tuple(dict.fromkeys(name for name, _ in asked))
    return choice


def _choose(
    files: AppFiles, file: str, wanted: str, trusts_wanted: bool, asked: list[tuple[str, bool]]
) -> Choice | Miss | None:
    """:param asked: gets each module that was looked for, and whether it is there."""
    module = files.file(file)
    if module is None:
        return None

    def load(name: str) -> Module | None:
        found = files.load(name)
        asked.append((name, found is not None))
        return found

    return choose_usual(module, file, load, wanted=wanted, trusts_wanted=trusts_wanted)
