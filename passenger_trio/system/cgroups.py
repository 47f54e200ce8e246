"""A cgroup (version 2) for a supervisor and its descendants, which ends all of them when the
supervisor is killed (KE12).

A daemon with its own session has no parent, process group or pipe that reports the supervisor's
end. Only its cgroup still shows which supervisor it belongs to. So the supervisor makes a cgroup
below its own and moves into it; every program that it starts is born there. A shell, the watchdog,
runs outside of that cgroup. It waits for EOF on a pipe whose other end only the supervisor holds.
Then it waits for as long as the loaders need to exit, or until the cgroup is empty, and writes to
``cgroup.kill``.

Laws:

* Where cgroups are not available (version 1, a read-only /sys, no delegation, a kernel before
  5.14), this module does nothing and reports nothing. Programs that escaped then stay, as
  docs/signals.md says.
* A cgroup is killed only if its name has our form, our user owns it, and its supervisor (identified
  by pid and start time, in this pid namespace) is gone.
* A cgroup is never killed while this process is in it.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time

from passenger_trio.late_classes import define
from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.children import start_program

__all__ = ["Entering", "OwnCgroup", "enter_own_cgroup", "kill_abandoned", "remove_cgroup", "write_file"]

_NAME = re.compile(r"passenger-trio\.(\d+)\.(\d+)\.(\d+)(?:\.watch)?")
"""Pid namespace, pid, start time. With ``.watch``: of its watchdog."""
_MOST_TRIES, _PAUSE = 20, 0.02

_WATCHDOG = """\
trap '' HUP INT QUIT TERM
read -r _
for n in 0.05 0.05 0.1 0.15 0.2 0.2; do
    read -r _ populated <"$1/cgroup.events" && [ "$populated" = 0 ] && break
    sleep $n || { sleep 1; break; }
done
echo 1 >"$1/cgroup.kill"
for n in 1 2 3 4 5 6 7 8 9 10; do
    for d in "$1"/*/; do rmdir "$d"; done
    rmdir "$1" && exit
    sleep 0.02 || sleep 1
done
"""
"""Nothing is ever written to the standard input. Loaders run exit hooks for 0.7 seconds at most,
and are gone then. The watchdog is quicker when all of them are gone sooner.
"""


@define(eq=False)
class OwnCgroup:
    """The cgroup that this process is in. The watchdog is our child, and ends with the other strays
    (``children.end_all_strays``).
    """

    path: str
    above: str
    """The directory that it is in."""
    _death_pipe: int
    _watchdog: int
    _watched_from: str = ""
    """The watchdog's own cgroup, if it has one."""

    def make_room(self) -> bool:
        """Move every process of this cgroup, ourselves too, into ``server`` below it: the kernel hands controllers down
        only from a cgroup without processes. False: that is impossible, and nothing has changed.
        """
        server = f"{self.path}/server"
        try:
            os.makedirs(server, 0o755, exist_ok=True)
            for _ in range(_MOST_TRIES):  # one may fork while it is moved
                with open(f"{self.path}/cgroup.procs") as file:
                    pids = file.read().split()
                if not pids:
                    return True
                if not all(write_file(f"{server}/cgroup.procs", pid) or not _lives(pid) for pid in pids):
                    return False
        except OSError:
            pass
        return False

    def move_watchdog(self) -> None:
        """Move our watchdog out of the cgroup above, into one of its own beside ours. It stays when we have left; the next
        supervisor removes it (``kill_abandoned``).
        """
        path = f"{self.path}.watch"
        try:
            os.makedirs(path, 0o755, exist_ok=True)
        except OSError:
            return
        if write_file(f"{path}/cgroup.procs", str(self._watchdog)):
            self._watched_from = path
        else:
            _rmdir(path)

    def leave(self) -> None:
        """Go back to the cgroup above and remove this one. Idempotent; never raises. If processes
        are left, the watchdog still ends them.
        """
        if self._death_pipe >= 0:
            # A cgroup that hands controllers down takes no process.
            home = self._watched_from or self.above
            if write_file(f"{home}/cgroup.procs", str(os.getpid())):
                remove_cgroup(self.path)
            fd, self._death_pipe = self._death_pipe, -1
            os.close(fd)


def enter_own_cgroup(above: str = "", proc: str = "/proc") -> OwnCgroup | None:
    """Kill what dead supervisors left beside us, make a cgroup and enter it. Returns None where
    that is impossible.

    :param above: the directory of the cgroup that this process is in; looked up by default.
    """
    above = above or own_directory(proc)[0]
    identity = _identity(os.getpid(), proc)
    if not above or not identity:
        return None
    kill_abandoned(above, proc)
    path = f"{above}/passenger-trio.{identity}"
    try:
        os.mkdir(path, 0o755)
    except OSError:
        return None  # usual for a user without delegation
    if os.access(f"{path}/cgroup.kill", os.W_OK):
        try:
            watchdog, death_pipe = _start_watchdog(path)
        except OSError:
            pass  # no process or descriptor is available
        else:
            if write_file(f"{path}/cgroup.procs", str(os.getpid())):
                return OwnCgroup(path, above, death_pipe, watchdog)
            os.kill(watchdog, signal.SIGKILL)  # nothing else reaps it yet
            os.waitpid(watchdog, 0)
            os.close(death_pipe)
    _rmdir(path)
    return None


class Entering:
    """Makes our cgroup and enters it (``enter_own_cgroup``) in a thread, while the program imports its next modules: the kernel takes up to
    25 ms to move a process.
    """

    def __init__(self) -> None:
        self._found: OwnCgroup | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._enter, name="entering a cgroup")
        try:
            self._thread.start()
        except RuntimeError:  # no thread is available
            self._thread = None
            self._enter()

    def _enter(self) -> None:
        self._found = enter_own_cgroup()

    def finish(self) -> OwnCgroup | None:
        """Wait until this process is in it. None: that is impossible. May be called again."""
        if self._thread is not None:
            self._thread.join()
        return self._found


def _start_watchdog(path: str) -> tuple[int, int]:
    """Returns the watchdog's pid, and the writing end of its pipe.

    :raises OSError: the watchdog cannot be started.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            command = ("/bin/sh", "-c", _WATCHDOG, "sh", path)
            return start_program(command, env=os.environ, cwd="/", output=nowhere, stdin=reading), writing
        finally:
            os.close(nowhere)
    except OSError:
        os.close(writing)
        raise
    finally:
        os.close(reading)


def kill_abandoned(above: str, proc: str = "/proc") -> list[str]:
    """Kill and remove the cgroups in ``above`` whose supervisor is dead. Returns their names."""
    killed = []
    try:
        names = os.listdir(above)
    except OSError:
        return []
    for name in names:
        path = f"{above}/{name}"
        if _is_abandoned(name, path, proc) and write_file(f"{path}/cgroup.kill", "1"):
            killed.append(name)
            remove_cgroup(path)
    return killed


def _is_abandoned(name: str, path: str, proc: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    try:
        if os.lstat(path).st_uid != os.geteuid() or os.stat(f"{proc}/self/ns/pid").st_ino != int(match[1]):
            return False
        _start_time(os.getpid(), proc)  # if /proc is unreadable, assume that every supervisor lives
    except OSError:
        return False
    try:
        return _start_time(int(match[2]), proc) != int(match[3])
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False  # unknown for now


def _identity(pid: int, proc: str) -> str:
    try:
        return f"{os.stat(f'{proc}/self/ns/pid').st_ino}.{pid}.{_start_time(pid, proc)}"
    except OSError:
        return ""


def _lives(pid: str) -> bool:
    return os.path.isdir(f"/proc/{pid}")


def _start_time(pid: int, proc: str) -> int:
    """The start time of a process, in ticks since boot.

    :raises OSError: the process does not exist, or /proc cannot be read.
    """
    with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:
        stat = file.read(1024)
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def write_file(path: str, text: str) -> bool:
    """Write a file of cgroupfs. False: it is not there, or the kernel refuses."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def remove_cgroup(path: str) -> None:
    """Remove a cgroup, and those in it, as soon as they are empty: a killed process takes a moment to end."""
    for _ in range(_MOST_TRIES):
        try:
            for one in os.scandir(path):
                if one.is_dir(follow_symlinks=False):
                    _rmdir(one.path)
        except OSError:
            pass
        if _rmdir(path):
            return
        time.sleep(_PAUSE)


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
