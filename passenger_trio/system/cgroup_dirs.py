"""Where the cgroups of this process are in the file system, for both versions of cgroups (cgroups(7)).

Only reads /proc. A process in a container sees its cgroup as the root of the mount; a directory that is not visible is
as good as none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["directories_up", "own_directory"]


def directories_up(proc: str = "/proc", controller: str = "") -> Iterator[str]:
    """Our cgroup's directory, and those above it up to the mount: a limit further up holds, too. Parameters as ``own_directory``."""
    directory, mount = own_directory(proc, controller)
    while directory and (directory + "/").startswith(mount.rstrip("/") + "/"):
        yield directory
        directory = os.path.dirname(directory)


def own_directory(proc: str = "/proc", controller: str = "") -> tuple[str, str]:
    """The directory of our cgroup, and the mount that it is below; two empty texts: there is none.

    :param controller: of version 1: ``memory``. Empty: the cgroup of version 2.
    """
    try:
        with open(f"{proc}/self/cgroup") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
        with open(f"{proc}/self/mountinfo") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return "", ""
    if controller:
        inside = next((row[2] for row in rows if len(row) == 3 and controller in row[1].split(",")), "")
    else:
        inside = next((row[2] for row in rows if len(row) == 3 and row[0] == "0" and row[2].startswith("/")), "")
    for fields in mounts:
        # id parent device root mount-point options [optional ...] - type source options
        if "-" not in fields:
            continue
        kind, *_, options = fields[fields.index("-") + 1 :]
        if kind != ("cgroup" if controller else "cgroup2") or (controller and controller not in options.split(",")):
            continue
        root = fields[3].rstrip("/")
        if inside and (inside + "/").startswith(root + "/"):
            path = (fields[4] + inside[len(root) :]).rstrip("/")
            return (path, fields[4]) if os.path.isfile(f"{path}/cgroup.procs") else ("", "")
    return "", ""
