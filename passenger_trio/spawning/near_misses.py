"""Describes a directory without an application: files of other languages, applications one level
below.

Each finding is one short line, because the whole message has at most six.
"""

from __future__ import annotations

import os
import re

from passenger_trio.system.regular_files import read_regular

__all__ = ["foreign_files", "nothing_found", "project_file", "project_scripts", "subdirectories"]

_FOREIGN = {
    "Procfile": "Procfile has no web: line; --app-start-command starts a program",
    "index.php": "index.php is a PHP program: --app-start-command 'php -S 127.0.0.1:$PORT' serves it",
    "__init__.py": "__init__.py makes this directory a package: start the directory above it",
    "index.html": "index.html is a static file: files alone are not served",
}
_MOST_LINES = 6
_HOW_TO_NAME = "name it: passenger-trio start module:object (or file.py:object), or give another directory"


def foreign_files(root: str) -> list[str]:
    """A line for each file of a kind that is not served."""
    return [text for name, text in _FOREIGN.items() if os.path.isfile(os.path.join(root, name))]


def subdirectories(root: str, startup_files: tuple[str, ...]) -> list[str]:
    """A line for each directory right below the root that looks like an application of its own."""
    try:
        names = sorted(os.listdir(root))[:200]
    except OSError:
        return []
    lines = []
    for name in names:
        if not name.startswith((".", "_")):
            found = next((file for file in startup_files if os.path.isfile(os.path.join(root, name, file))), None)
            if found and _is_part_of_package(os.path.join(root, name), found):
                target = f"{name}.{found.removesuffix('.py')}:app"
                lines.append(f"{name}/{found} imports its neighbours: passenger-trio start {root} {target}")
            elif found:
                lines.append(f"{name}/{found} is one level below: passenger-trio start {os.path.join(root, name)}")
    return lines


_RELATIVE = re.compile(r"^\s*from\s+\.", re.MULTILINE)


def _is_part_of_package(directory: str, file: str) -> bool:
    """Whether a module imports its neighbours by ``from .``, which fails if it is loaded by its file."""
    if not file.endswith(".py"):
        return False
    try:
        source = read_regular(os.path.join(directory, file), 100_000) or b""
    except OSError:
        return False
    return _RELATIVE.search(source.decode("utf-8", "replace")) is not None


def project_scripts(root: str) -> dict[str, str]:
    """The commands that ``pyproject.toml`` installs, and the entry point of each: ``{"shop": "shop.cli:main"}``."""
    scripts = _member(_project(root), "project", "scripts")
    if not isinstance(scripts, dict):
        return {}
    return {name: entry for name, entry in scripts.items() if isinstance(entry, str)}


def _project(root: str) -> object:
    import tomllib

    try:
        text = (read_regular(os.path.join(root, "pyproject.toml"), 1_000_000) or b"").decode("utf-8")
        return tomllib.loads(text)
    except (OSError, ValueError):
        return {}


def project_file(root: str) -> list[str]:
    """Lines about the applications and programs that ``pyproject.toml`` names."""
    document = _project(root)
    lines = []
    entry = _member(document, "tool", "fastapi", "entrypoint")
    if isinstance(entry, str) and ":" in entry:
        lines.append(f"pyproject.toml names {entry} for FastAPI's own command: passenger-trio start {root} {entry}")
    for name in list(project_scripts(root))[:2]:
        lines.append(f"pyproject.toml installs {name}: if that is a server, --app-start-command '{name} ... $PORT'")
    return lines


def _member(document: object, *names: str) -> object:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def nothing_found(first: str, lines: list[str]) -> str:
    """The message; its last line tells the user what to do. Lines beyond the limit are counted."""
    room = _MOST_LINES - 2
    if len(lines) > room:
        lines = [*lines[: room - 1], f"... and {len(lines) - room + 1} more"]
    return "\n".join([first, *(f"  {line}" for line in lines), f"  {_HOW_TO_NAME}"])
