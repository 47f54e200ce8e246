"""Converts a path that a user gave to an absolute path that keeps its symbolic links.

The kernel reports the working directory without the links that led to it. ``$PWD`` keeps them,
because the shell wrote it. A deployment that switches a link (``current -> releases/2``) needs the
link: ``cd current && passenger-trio start`` means the directory behind ``current`` at each restart,
not today's release (promise OP21).

``$PWD`` is used only if it names the working directory (POSIX, ``pwd -L``), and only for paths
without ``..``: the parent of a link differs between the kernel and the text. It is asked once for a
working directory: a deployment switches the link, and from then on the two differ.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["absolute_path"]


def absolute_path(path: str, environ: Mapping[str, str]) -> str:
    """The absolute form of ``path``, with the links of the working directory as the shell followed
    them.

    :raises FileNotFoundError: the path is relative, and the working directory was removed.
    """
    if path.startswith("/"):
        return os.path.normpath(path)
    if ".." not in path.split("/"):
        working = environ.get("PWD", "")
        if _is_working_directory(working):
            return os.path.normpath(os.path.join(working, path))
    return os.path.abspath(path)


_followed: set[tuple[str, int, int]] = set()
"""What has led to a working directory: the path, and the directory's device and inode."""


def _is_working_directory(path: str) -> bool:
    """Whether ``path`` is absolute, has no dots, and leads to the working directory, or did so when it was first asked."""
    if not os.path.isabs(path) or {".", ".."} & set(path.split("/")):
        return False
    try:
        here = os.stat(".")  # also of one that was removed
        if (path, here.st_dev, here.st_ino) not in _followed:
            if not os.path.samestat(os.stat(path), here):
                return False
            _followed.add((path, here.st_dev, here.st_ino))
        return True
    except OSError:
        return False
