"""Describes a directory without an application: files of other languages, applications one level
below.

Each finding is one short line, because the whole message has at most six.
"""

from __future__ import annotations

import os

__all__ = ["foreign_files", "nothing_found", "subdirectories"]

_FOREIGN = {
    "Procfile": "Procfile starts other programs: --app-start-command starts one of them",
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
            if found:
                lines.append(f"{name}/{found} is one level below: passenger-trio start {os.path.join(root, name)}")
    return lines


def nothing_found(first: str, lines: list[str]) -> str:
    """The message; its last line tells the user what to do. Lines beyond the limit are counted."""
    room = _MOST_LINES - 2
    if len(lines) > room:
        lines = [*lines[: room - 1], f"... and {len(lines) - room + 1} more"]
    return "\n".join([first, *(f"  {line}" for line in lines), f"  {_HOW_TO_NAME}"])
