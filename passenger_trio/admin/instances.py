"""The instances of this user that can be seen: where to look for them, and which ones are running.

::

    $XDG_RUNTIME_DIR/passenger-trio/        or /tmp/passenger-trio-<uid>/    0700, owned by us
        k3x9ab/                             one instance                     0700
            instance.json                   its description: pid, addresses ...
            lock                            held (flock) while the instance runs
            admin.sock  spawn.sock  ...     its sockets

An instance is running if a process holds its lock. The kernel releases the lock however the
instance ends, so no pid has to be trusted.

``registry`` makes such directories. This module only reads them, and only where no other user could
have made them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable

import attrs

from passenger_trio.late_classes import frozen
from passenger_trio.system.private_dirs import why_insecure

__all__ = [
    "ADMIN_SOCKET",
    "DESCRIPTION",
    "LOCK",
    "Instance",
    "base_directories",
    "describe",
    "find_instance",
    "list_instances",
    "names_in",
]

ADMIN_SOCKET, DESCRIPTION, LOCK = "admin.sock", "instance.json", "lock"
_LONGEST_DESCRIPTION = 65536


@frozen
class Instance:
    """An instance as other processes see it."""

    path: str
    name: str
    is_live: bool
    pid: int = 0
    started: float = 0.0
    """Seconds since 1970."""
    addresses: tuple[str, ...] = ()
    contract: int = 0

    @property
    def admin_socket(self) -> str:
        return os.path.join(self.path, ADMIN_SOCKET)


def base_directories() -> list[str]:
    """The candidates for base directories, the best first. They need not all exist."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = f"passenger-trio-{os.geteuid()}"
    candidates = [os.path.join(runtime, "passenger-trio")] if os.path.isabs(runtime) and os.path.isdir(runtime) else []
    candidates.append(f"/tmp/{own}")
    temporary = os.environ.get("TMPDIR", "")
    if os.path.isabs(temporary):
        candidates.append(os.path.join(temporary, own))  # used if /tmp is not writable
    return list(dict.fromkeys(os.path.normpath(candidate) for candidate in candidates))


def list_instances(bases: Iterable[str] | None = None, *, include_stale: bool = False) -> list[Instance]:
    """The running instances of this user, the oldest first.

    :param bases: base directories, by default ``base_directories()``. Unsafe ones are skipped.
    :param include_stale: also list the remains of dead instances.
    """
    found: list[Instance] = []
    for base in base_directories() if bases is None else bases:
        if not why_insecure(base):
            for name in names_in(base):
                instance = _look(os.path.join(base, name))
                if instance is not None and (instance.is_live or include_stale):
                    found.append(instance)
    return sorted(found, key=lambda instance: (instance.started, instance.name))


def find_instance(path: str) -> Instance | None:
    """The instance with this directory (or this admin socket), wherever it is; None if there is none."""
    path = os.path.abspath(path)
    return _look(os.path.dirname(path) if os.path.basename(path) == ADMIN_SOCKET else path)


def _look(path: str) -> Instance | None:
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return attrs.evolve(describe(path), is_live=True)
    except OSError:
        return None
    else:
        return describe(path)
    finally:
        os.close(lock)


def describe(path: str) -> Instance:
    """The contents of ``instance.json``. Defaults, if the file is missing or invalid."""
    plain = Instance(path, os.path.basename(path), is_live=False)
    try:
        fd = os.open(os.path.join(path, DESCRIPTION), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            said = json.loads(file.read(_LONGEST_DESCRIPTION))
        return attrs.evolve(
            plain,
            pid=int(said["pid"]),
            started=float(said["started"]),
            addresses=tuple(str(address) for address in said["addresses"]),
            contract=int(said["contract"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return plain


def names_in(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
