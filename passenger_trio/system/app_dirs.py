"""Directories for the sockets of applications that run as other users (OP8).

The instance directory is closed to every other user, so what they must reach lies beside it: a directory that they can
enter but not list, with the spawn socket, and in it a directory for each application, which belongs to its user and is
closed to all others::

    /run/passenger-trio-k3x9q2/      ours, 0711
        spawn.sock                   0666: the kernel tells who calls
        a0/ a1/ ...                  the application's user's, 0700

Laws:

* What a user can put into its directory is never followed: it is removed as names, by descriptor.
* A directory lives as long as its instance holds the lock in it. The next instance removes one without a holder, also
  when the instance directory that named it is gone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time

from passenger_trio.late_classes import define

__all__ = ["AppDirs", "remove_app_dirs"]

_PLACES = ("/run", "/tmp")
_PREFIX = "passenger-trio-apps-"
_LINK = "apps"
_LOCK = "lock"
_GRACE = 60.0
"""Seconds for which a directory without a lock counts as new."""
SPAWN_SOCKET = "spawn.sock"


@define(eq=False)
class AppDirs:
    """The directory of one instance. Only root makes one."""

    path: str
    _lock: int

    @classmethod
    def create(cls, instance_dir: str) -> AppDirs:
        """Make the directory, and note it in the instance directory, so that both are removed together.

        :raises OSError: no place takes it.
        """
        place = next((place for place in _PLACES if os.access(place, os.W_OK | os.X_OK)), tempfile.gettempdir())
        _remove_abandoned(place)
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.chmod(path, 0o711)
        os.symlink(path, os.path.join(instance_dir, _LINK))
        return cls(path, lock)

    @property
    def spawn_socket(self) -> str:
        return os.path.join(self.path, SPAWN_SOCKET)

    def add(self, number: int, uid: int, gid: int) -> str:
        """Make the directory of an application, and return its path.

        :raises OSError: it cannot be made.
        """
        path = os.path.join(self.path, f"a{number}")
        os.mkdir(path, 0o700)
        os.chown(path, uid, gid)
        return path

    def close(self) -> None:
        """Remove the directory, and give up its lock. Idempotent; raises nothing."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            lock, self._lock = self._lock, -1
            os.close(lock)


def _remove_abandoned(place: str) -> None:
    """Remove the directories of instances that have ended without doing so."""
    for name in os.listdir(place):
        path = os.path.join(place, name)
        try:
            if not name.startswith(_PREFIX) or os.lstat(path).st_uid != os.geteuid():
                continue
            lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            try:
                is_new = time.time() - os.lstat(path).st_mtime < _GRACE
            except OSError:
                continue
            if not is_new:
                shutil.rmtree(path, ignore_errors=True)
            continue
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # its instance runs
        finally:
            os.close(lock)


def remove_app_dirs(instance_dir: str) -> None:
    """Remove the directory that is noted in an instance directory, if there is one. Raises nothing."""
    try:
        path = os.readlink(os.path.join(instance_dir, _LINK))
        is_ours = os.path.basename(path).startswith(_PREFIX) and os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return
    if is_ours:
        shutil.rmtree(path, ignore_errors=True)
