"""Finds programs by name or path, and asks them for their versions: the part of choosing an interpreter that is the same
for each language.

This module knows ``PATH``, files and permissions. It never knows a language. Paths are never resolved, because a link may
have a meaning under its own name (a virtual environment's ``python``).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from passenger_trio.errors import OptionError

ANSWER_TIMEOUT = 20.0
"""Seconds that a program has to answer. JRuby on a busy machine needs several."""


def can_run(path: str) -> bool:
    """Whether the path is a file that this process may run."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def in_path(name: str, environ: Mapping[str, str]) -> Iterator[str]:
    """The absolute paths of the programs of that name, in the order of ``PATH``."""
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, name)
        if directory and can_run(path):
            yield os.path.abspath(path)


def named(
    option: str, given: str, environ: Mapping[str, str], *, language: str, binaries: Sequence[str], tree: str
) -> str:
    """The absolute path of the interpreter that an option names: a path, a program in ``PATH``, or a directory.

    :param binaries: names of the interpreter in the directory's ``bin``.
    :param tree: the words for such a directory in a message.
    :raises OptionError: the interpreter does not exist, or cannot be run.
    """
    if os.sep not in given and not os.path.exists(given):
        for path in in_path(given, environ):
            return path
        raise OptionError(option, given, f"no such program in PATH; give the path of a {language} interpreter")
    path = os.path.abspath(given)
    if os.path.isdir(path):
        found = [os.path.join(path, "bin", name) for name in binaries]
        path = next((one for one in found if os.path.isfile(one)), found[0])
    if not os.path.exists(path):
        raise OptionError(option, given, f"there is no such file; give a {language} interpreter or {tree}")
    if not can_run(path):
        raise OptionError(option, given, f"it is not an executable file; give the path of a {language} interpreter")
    return path


def answer(command: Sequence[str]) -> str | None:
    """What a program prints, or None: it cannot be run, or says nothing readable in time. Its exit code is ignored."""
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return asked.stdout
