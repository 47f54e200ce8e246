"""Chooses the Python interpreter of an application, and gives the reason.

In this order: the interpreter that was named (``--python``), a virtual environment in the
application's directory (if one of them is active, that one), the active virtual environment, the
supervisor's own interpreter. The reason names the environments that were found and not used (OP22).
Paths are never resolved: ``.venv/bin/python`` is a link to a system interpreter, and is a virtual environment
only under its own name.

Only a named interpreter, if it is not the program that runs us, is run to ask its version, because that costs a
start of Python. Any other is trusted; if it is too old, its loader reports that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping

from passenger_trio.errors import OptionError
from passenger_trio.spawning.programs import ANSWER_TIMEOUT, answer, can_run, named

__all__ = ["OLDEST", "choose_interpreter", "finds_module"]

OLDEST = (3, 8)
"""The oldest Python that the loaders run on (``spawn_servers/CONTRACT.md``)."""

_ADJACENT = (".venv", "venv", "env")
_ASK_VERSION = "import sys; print(sys.version_info[0], sys.version_info[1])"
_ASK_MODULE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
sys.exit(0 if importlib.util.find_spec(sys.argv[2]) else 44)
"""


def choose_interpreter(
    python: str, root: str, environ: Mapping[str, str], names: Collection[str] = _ADJACENT
) -> tuple[str, str]:
    """The absolute path of the interpreter, and the reason in words.

    :param python: the given name: a path, a program to look up in ``PATH``, a virtual environment;
        or ``""``.
    :param root: absolute path of the application's directory.
    :param names: the names in that directory, if they are known.
    :raises OptionError: it does not exist, cannot be run, or is not a Python of a version that can
        be served.
    """
    if python:
        path = named("--python", python, environ, language="Python", binaries=("python",), tree="a virtual environment")
        version = _version(path)
        return path, f"named by --python (Python {version[0]}.{version[1]})"
    own, broken = _adjacent(root, names)
    active = environ.get("VIRTUAL_ENV", "")
    active = os.path.abspath(active) if active else ""
    if active in own:
        own.remove(active)
        own.insert(0, active)
    elif active and can_run(_python_in(active)):
        own.append(active)
    if broken and not own:
        # Silently taking another interpreter would end in an ImportError that explains nothing.
        hint = "its virtual environment is broken: make it anew, or give another with --python"
        raise OptionError("--python", _python_in(broken), hint)
    if not own:
        return sys.executable or "python3", "the interpreter of passenger-trio itself: there is no virtual environment"
    chosen, *others = own
    reason = f"the virtual environment {os.path.basename(chosen)} in the application's directory"
    if chosen == active:
        reason = "the active virtual environment"
    left = [f"{other} is not used" for other in others] + ([f"{broken} is broken"] if broken else [])
    return _python_in(chosen), f"{reason} ({'; '.join(left)})" if left else reason


def _adjacent(root: str, names: Collection[str]) -> tuple[list[str], str]:
    """The virtual environments in the application's directory, and the first one that is broken."""
    found = [os.path.join(root, name) for name in _ADJACENT if name in names]
    if not found:
        return [], ""
    found = [path for path in found if os.path.isfile(os.path.join(path, "pyvenv.cfg"))]
    usable = [path for path in found if can_run(_python_in(path))]
    return usable, next((path for path in found if path not in usable), "")


def _python_in(environment: str) -> str:
    return os.path.join(environment, "bin", "python")


def finds_module(python: str, root: str, module: str) -> bool:
    """Whether an interpreter finds a top-level module, without importing it. True if in doubt: the
    loader will report it.
    """
    try:
        asked = subprocess.run(
            [python, "-c", _ASK_MODULE, root, module],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return True
    return asked.returncode != 44


def _is_ours(path: str) -> bool:
    """Whether a path leads to the program that runs this process, perhaps in another virtual environment."""
    try:
        return os.path.samefile(path, sys.executable)
    except OSError:
        return False


def _version(path: str) -> tuple[int, int]:
    if _is_ours(path):
        return sys.version_info[:2]
    oldest = ".".join(map(str, OLDEST))
    # -I -S: ignore the environment and site packages; ask only the interpreter itself.
    try:
        major, minor = map(int, (answer((path, "-I", "-S", "-c", _ASK_VERSION)) or "").split())
    except ValueError:
        hint = f"it does not answer like a Python interpreter; Python {oldest} or newer is wanted"
        raise OptionError("--python", path, hint) from None
    if (major, minor) < OLDEST:
        raise OptionError("--python", path, f"it is Python {major}.{minor}; applications need Python {oldest} or newer")
    return major, minor
