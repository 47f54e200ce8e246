"""The directory of one run of tests: all that the harness puts on disk is in it, so all of it can be removed, whoever is left to do so (TH8).

Its name says whose it is: the process of the tests, by pid and start time, in its namespace of pids. It is removed

* by that process, when it exits;
* when that was killed, by the last of its servers (``served``), each of which ends with its parent;
* when these were killed as well, by the next run.

A directory of a server is named ``home-...``: while there is one, a server may still run.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

__all__ = ["HOME", "environment_of_a_server", "remove_as_the_last", "run_directory", "started", "temporary_directory"]

HOME = "home-"
"""How the name of a server's directory begins."""
_NAME = re.compile(r"pt-run-([0-9a-f]+)-([0-9]+)-([0-9]+)-[^-]+", re.ASCII)

_made: dict[int, Path] = {}


def run_directory() -> Path:
    """The directory of this process. Others may pass through it, because servers may run as other users, and not list it."""
    pid = os.getpid()
    found = _made.get(pid)
    if found is None or not found.is_dir():
        _remove_of_the_dead()
        found = Path(tempfile.mkdtemp(prefix=f"pt-run-{_namespace()}-{pid}-{started(pid)}-"))
        found.chmod(0o711)
        _made[pid] = found
        atexit.register(_remove, pid, found)
    return found


def temporary_directory(prefix: str, directory: Path | None = None) -> Path:
    """A new directory in that of the run.

    :param directory: where to make it instead.
    """
    return Path(tempfile.mkdtemp(prefix=prefix, dir=run_directory() if directory is None else directory))


def environment_of_a_server(home: Path) -> dict[str, str]:
    """The variables of a server (``served``) that is to end with this process, and to remove its directory then."""
    return {"PASSENGER_TRIO_LIFELINE": str(os.getpid()), "HARNESS_HOME": f"{os.getpid()} {home}"}


def remove_as_the_last(home: Path) -> None:
    """Remove the directory of a server whose run was killed; and that of the run, if no other server is to end."""
    shutil.rmtree(home, ignore_errors=True)
    run = home.parent
    if _NAME.fullmatch(run.name) and not any(run.glob(HOME + "*")):
        shutil.rmtree(run, ignore_errors=True)


def _remove(pid: int, directory: Path) -> None:
    if os.getpid() == pid:  # and not a copy that was forked from it
        shutil.rmtree(directory, ignore_errors=True)


def _remove_of_the_dead() -> None:
    """Remove what runs of this user left whose processes are gone: such that were killed together with their servers."""
    namespace = _namespace()
    for path in Path(tempfile.gettempdir()).glob(f"pt-run-{namespace}-*"):
        match = _NAME.fullmatch(path.name)
        if match is None or match[1] != namespace or started(int(match[2])) == match[3]:
            continue
        try:
            is_ours = path.lstat().st_uid == os.geteuid()
        except OSError:
            continue  # another run was first
        if is_ours and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _namespace() -> str:
    """That of pids: a pid means nothing outside of it, and the directory may be seen there."""
    return f"{os.stat('/proc/self/ns/pid').st_ino:x}"


def started(pid: int) -> str:
    """When the process started, in ticks since the boot. A text that is no number: there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "never"
    return "ended" if fields[0] in "ZX" else fields[19]
