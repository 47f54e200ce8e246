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
import time

import attrs

from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.children import start_program

__all__ = ["OwnCgroup", "enter_own_cgroup", "kill_abandoned"]

_NAME = re.compile(r"passenger-trio\.(\d+)\.(\d+)\.(\d+)")
"""Pid namespace, pid, start time."""
_MOST_TRIES, _PAUSE = 20, 0.02

_WATCHDOG = """\
trap '' HUP INT QUIT TERM
read -r _
for n in 0.05 0.05 0.1 0.15 0.2 0.2; do
    read -r _ populated <"$1/cgroup.events" && [ "$populated" = 0 ] && break
    sleep $n || { sleep 1; break; }
done
echo 1 >"$1/cgroup.kill"
for n in 1 2 3 4 5 6 7 8 9 10; do rmdir "$1" && exit; sleep 0.02 || sleep 1; done
"""
"""Nothing is ever written to the standard input. Loaders run exit hooks for 0.7 seconds at most,
and are gone then. The watchdog is quicker when all of them are gone sooner.
"""


@attrs.define(eq=False)
class OwnCgroup:
    """The cgroup that this process is in. The watchdog is our child, and ends with the other strays
    (``children.end_all_strays``).
    """

    path: str
    _above: str
    _death_pipe: int

    def leave(self) -> None:
        """Go back to the cgroup above and remove this one. Idempotent; never raises. If processes
        are left, the watchdog still ends them.
        """
        if self._death_pipe >= 0:
            if _write(f"{self._above}/cgroup.procs", os.getpid()):
                _remove(self.path)
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
            if _write(f"{path}/cgroup.procs", os.getpid()):
                return OwnCgroup(path, above, death_pipe)
            os.kill(watchdog, signal.SIGKILL)  # nothing else reaps it yet
            os.waitpid(watchdog, 0)
            os.close(death_pipe)
    _rmdir(path)
    return None


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
        if _is_abandoned(name, path, proc) and _write(f"{path}/cgroup.kill", 1):
            killed.append(name)
            _remove(path)
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


def _start_time(pid: int, proc: str) -> int:
    """The start time of a process, in ticks since boot.

    :raises OSError: the process does not exist, or /proc cannot be read.
    """
    with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:
        stat = file.read(1024)
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def _write(path: str, number: int) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(fd, b"%d" % number)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def _remove(path: str) -> None:
    """Remove the cgroup as soon as it is empty: a killed process takes a moment to end."""
    for _ in range(_MOST_TRIES):
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
