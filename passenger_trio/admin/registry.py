"""The directory of this process's own instance: makes, locks, describes and removes it.

``instances`` shows the layout. An instance that starts removes the directories of dead ones.

A directory that other users could have made or could change is refused and not repaired (F57),
because its sockets control the supervisor. The path of a Unix socket has at most 107 bytes, so
names are short. The length is checked when the directory is made, not when the first worker cannot
listen.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Sequence

from passenger_trio.admin.instances import (
    ADMIN_SOCKET,
    DESCRIPTION,
    LOCK,
    Instance,
    base_directories,
    describe,
    find_instance,
    list_instances,
    names_in,
)
from passenger_trio.errors import OptionError
from passenger_trio.late_classes import define
from passenger_trio.system.app_dirs import remove_app_dirs
from passenger_trio.system.listen import listen_unix
from passenger_trio.system.private_dirs import make_private

__all__ = [
    "ADMIN_BACKLOG",
    "LONGEST_SOCKET_NAME",
    "LONGEST_SOCKET_PATH",
    "Instance",
    "InstanceDir",
    "base_directories",
    "create_instance_dir",
    "default_base",
    "find_instance",
    "list_instances",
]

ADMIN_BACKLOG = 128
LONGEST_SOCKET_PATH = 107
"""Bytes (``sun_path`` has 108, one of them for the NUL)."""
LONGEST_SOCKET_NAME = 24
"""Bytes that are reserved for the name of a socket in an instance directory."""

_OPTION = "--instance-dir"
_SPAWN_SOCKET = "spawn.sock"
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_GRACE = 60.0
"""Seconds for which a directory without a lock counts as new."""


@define(eq=False)
class InstanceDir:
    """The directory of this process's own instance. It holds its lock until ``remove``."""

    path: str
    _lock: int
    _made_directory: bool

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def admin_socket(self) -> str:
        return os.path.join(self.path, ADMIN_SOCKET)

    @property
    def spawn_socket(self) -> str:
        return os.path.join(self.path, _SPAWN_SOCKET)

    def listen(self) -> socket.socket:
        """The listening admin socket. It is there before the description is: whoever has read that one can connect, and waits until the server
        has what serves operators.

        :raises OptionError: nothing can listen there.
        """
        try:
            return listen_unix(self.admin_socket, ADMIN_BACKLOG, mode=0o600)
        except OSError as exc:
            raise OptionError(_OPTION, self.path, f"nothing can listen in it: {exc.strerror}") from None

    def write(self, addresses: Sequence[str], *, contract: int = 1) -> None:
        """Write the description of this instance. Readers see all of it or nothing.

        :param addresses: URLs.
        :param contract: version of ``spawn_servers/CONTRACT.md``.
        :raises OptionError: the file cannot be written, because the file system is full.
        """
        description = {
            "pid": os.getpid(),
            "name": self.name,
            "started": time.time(),
            "addresses": list(addresses),
            "contract": contract,
        }
        partial = os.path.join(self.path, f"{DESCRIPTION}.new")
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(description, file)
            os.replace(partial, os.path.join(self.path, DESCRIPTION))
        except OSError as exc:
            raise OptionError(_OPTION, self.path, f"it cannot be written to: {exc.strerror}") from None

    def remove(self) -> None:
        """Remove the contents, and the directory if it was made for this instance. Idempotent;
        raises nothing.
        """
        if self._lock >= 0:
            _empty(self.path)
            if self._made_directory:
                _rmdir(self.path)
            lock, self._lock = self._lock, -1
            os.close(lock)


def create_instance_dir(explicit: str = "", *, base: str = "") -> InstanceDir:
    """Make the directory of a new instance and hold its lock.

    :param explicit: the directory to use. It may exist if it is private and empty (or a dead
        instance's). By default, a new one with a random name in the base directory.
    :param base: the base directory, by default ``default_base()``.
    :raises OptionError: the directory cannot be made, belongs to a running instance, is not
        private, or its path is too long.
    """
    if explicit:
        return _take(_absolute(explicit))
    base = _make_base([base]) if base else default_base()
    _check_length(os.path.join(base, "x" * 6))
    _remove_stale(base)
    for _ in range(100):
        path = os.path.join(base, "".join(secrets.choice(_LETTERS) for _ in range(6)))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        except OSError as exc:
            raise OptionError(_OPTION, base, f"nothing can be made in it: {exc.strerror}") from None
        try:
            lock = _lock(path, wait=True)
        except OSError as exc:
            _rmdir(path)
            raise OptionError(_OPTION, base, f"nothing can be made in it: {exc.strerror}") from None
        if lock is not None:
            return InstanceDir(path, lock, True)
    raise OptionError(_OPTION, base, "no free name was found in it")


def default_base() -> str:
    """The first base directory that exists or can be made.

    :raises OptionError: none is safe to use.
    """
    return _make_base(base_directories())


def _make_base(candidates: Sequence[str]) -> str:
    problems = []
    for base in candidates:
        try:
            make_private(base)
            if not os.access(base, os.W_OK | os.X_OK):
                raise PermissionError(
                    errno.EACCES, "nothing can be made in it"
                )  # even as root, on a read-only file system
        except OSError as exc:
            problems.append(f"{base}: {exc.strerror}")
        else:
            return base
    raise OptionError(_OPTION, "", f"there is no safe place for it ({'; '.join(problems)}); give one")


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise OptionError(_OPTION, path, "it is relative, and the working directory was removed") from None


def _take(path: str) -> InstanceDir:
    """Take over a directory that the user chose."""
    _check_length(path)
    try:
        made = make_private(path)
    except OSError as exc:
        words = "it" if exc.errno == errno.EPERM else "it cannot be made:"
        raise OptionError(_OPTION, path, f"{words} {exc.strerror}") from None
    if not made and LOCK not in (names := names_in(path)) and names:
        raise OptionError(_OPTION, path, "it has other files in it; give a new or an empty directory")
    for _ in range(20):
        # A process that lists instances holds the lock for a moment; a running instance keeps it.
        try:
            lock = _lock(path, wait=False)
        except OSError as exc:
            if made:
                _rmdir(path)
            raise OptionError(_OPTION, path, f"its lock cannot be had: {exc.strerror}") from None
        if lock is not None:
            _empty(path, keep=LOCK)
            return InstanceDir(path, lock, made)
        time.sleep(0.01)
    pid = describe(path).pid
    raise OptionError(_OPTION, path, f"the running instance {f'with pid {pid} ' if pid else ''}uses it")


def _lock(path: str, *, wait: bool) -> int | None:
    """A descriptor that holds the lock of a directory; None if another process holds it, or has
    removed it meanwhile.
    """
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    if os.fstat(lock).st_nlink == 0:
        # Between open and flock, another process took the directory for stale and removed it.
        os.close(lock)
        return None
    return lock


def _check_length(path: str) -> None:
    room = LONGEST_SOCKET_PATH - len(os.fsencode(path)) - 1
    if room < LONGEST_SOCKET_NAME:
        most = LONGEST_SOCKET_PATH - 1 - LONGEST_SOCKET_NAME
        raise OptionError(
            _OPTION, path, f"the path is too long for the sockets in it: give one of at most {most} bytes"
        )


def _remove_stale(base: str) -> None:
    """Remove the directories of instances that died without removing them."""
    for name in names_in(base):
        path = os.path.join(base, name)
        try:
            lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            _remove_if_old(path)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _empty(path)
            _rmdir(path)
        except OSError:
            pass  # the instance is running
        finally:
            os.close(lock)


def _remove_if_old(path: str) -> None:
    """Remove an old directory without a lock: its instance died before it made the lock. In a new
    one, the instance is about to make it.
    """
    try:
        age = time.time() - os.lstat(path).st_mtime
    except OSError:
        return
    if age > _GRACE:
        _rmdir(path)


def _empty(path: str, keep: str = "") -> None:
    """Remove the files of our directory (instances make no subdirectories), and the directories of applications that
    it notes; the lock goes last.
    """
    remove_app_dirs(path)
    for name in sorted(names_in(path), key=lambda name: name == LOCK):
        if name != keep:
            try:
                os.unlink(os.path.join(path, name))
            except OSError:
                pass  # gone, or a directory that is not ours


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        pass  # gone, or not empty: it has files that are not ours
