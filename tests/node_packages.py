"""The npm packages of the tests' applications, installed once into a directory: ``python tests/node_packages.py DIRECTORY``, which prints their ``node_modules``.

An application is copied to where the test wants it, and finds them by a link: ES modules know no search path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
WANTED = TESTS / "apps" / "node" / "package.json"
CACHE = TESTS.parent / ".nox" / "node-packages"


def install(directory: Path = CACHE) -> Path:
    """The ``node_modules`` with what is wanted; npm is asked only when that has changed.

    :raises subprocess.CalledProcessError: npm cannot install it.
    """
    modules = directory / "node_modules"
    done = directory / "installed.json"
    if not (modules.is_dir() and done.is_file() and done.read_text() == WANTED.read_text()):
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(WANTED, directory / "package.json")
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            cwd=directory,
            check=True,
            stdout=sys.stderr,
            timeout=600,
        )
        shutil.copy(WANTED, done)
    return modules


def application(name: str, to: Path) -> Path:
    """A copy of ``apps/node/NAME`` in the new directory ``to``, with the packages."""
    shutil.copytree(WANTED.parent / name, to)
    (to / "node_modules").symlink_to(install())
    return to


if __name__ == "__main__":
    print(install(Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE))
