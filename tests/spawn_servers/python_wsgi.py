"""What the tests of the Python WSGI loader share: where it is, the interpreters at hand, the sample applications."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from passenger_trio.testing.conformance import FakeSupervisor, Loader, Subject

ROOT = Path(__file__).resolve().parent.parent.parent
LOADER = ROOT / "spawn_servers" / "python" / "wsgi_loader.py"
APPS = ROOT / "tests" / "apps" / "python"
OLDEST = (3, 8)
PYTHON = os.environ.get("TEST_PYTHON", sys.executable)
"""The interpreter of the applications: set TEST_PYTHON to run all these tests with another."""
IS_PYPY = "pypy" in os.path.basename(os.path.realpath(PYTHON))


@functools.cache  # each is asked for its version once, and not by every module that wants to know
def interpreters() -> dict[str, str]:
    """Name -> path of every interpreter found: this one, pyenv's, those in PATH. Each real one once."""
    candidates = [sys.executable]
    candidates += sorted(str(path) for path in Path("~/.pyenv/versions").expanduser().glob("*/bin/python"))
    candidates += [path for minor in range(8, 30) if (path := shutil.which(f"python3.{minor}"))]
    candidates += [path for name in ("pypy3", "pypy3.11") if (path := shutil.which(name))]
    found: dict[str, str] = {}
    real: set[str] = set()
    for path in candidates:
        question = "import sys; print(sys.implementation.name, sys.version.split()[0], sys.version_info >= (3, 8), sys._base_executable)"
        try:
            answer = subprocess.run(
                [path, "-c", question], capture_output=True, text=True, timeout=20, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError):
            continue  # Python 2; a shim of pyenv without a version behind it
        name, version, is_new_enough, base = answer.split(maxsplit=3)
        if is_new_enough == "True" and os.path.realpath(base.strip()) not in real:
            real.add(os.path.realpath(base.strip()))
            found[f"{name}-{version}" if path != sys.executable else "this"] = path
    return found


def others() -> dict[str, str]:
    """The interpreters beside this one that the whole contract is checked with: the oldest CPython and the newest, and each other implementation; oldest first.

    All where PASSENGER_TRIO_TEST_ALL_PYTHONS is set (``nox -s loaders``): each costs a minute of processor time.
    """
    found = {name: path for name, path in interpreters().items() if name != "this"}
    if os.environ.get("PASSENGER_TRIO_TEST_ALL_PYTHONS"):
        return found
    by_age = sorted((name for name in found if name.startswith("cpython-")), key=_version)
    return {name: found[name] for name in sorted(found, key=_version) if name not in by_age[1:-1]}


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def compile_loader(python: str) -> None:
    """Let ``python`` keep its bytecode of the loader: a check starts it a hundred times, and the suite has an environment in which nobody does."""
    subprocess.run([python, "-m", "compileall", "-q", str(LOADER.parent)], check=False, timeout=60)


def command(python: str = PYTHON, *, preload: bool = False) -> tuple[str, ...]:
    return (python, str(LOADER), "--preload") if preload else (python, str(LOADER))


def subject(python: str = PYTHON, *, preloaded: bool = False) -> Subject:
    return Subject(
        command=command(python),
        preload_command=command(python, preload=True),
        app_root=str(APPS / "conformance"),
        startup_file="app.py",
        preloaded=preloaded,
    )


@contextmanager
def worker_of(app: str, **options: Any) -> Iterator[Loader]:
    """A worker of a sample application."""
    with FakeSupervisor() as supervisor:
        yield supervisor.start(command(), APPS / app, "app.py", **options)
