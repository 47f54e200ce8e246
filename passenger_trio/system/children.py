"""Child processes: start programs, adopt orphans, end what is left.

Programs are started with ``subprocess.Popen``; a running Trio program is never forked. They are
started from the main thread, because a program may ask for ``PR_SET_PDEATHSIG``, which fires when
the *thread* that started it ends. Loaders do not ask for it: they notice the supervisor's end on
their control connection (CONTRACT.md).

``become_subreaper`` makes the kernel re-parent orphaned descendants to us, so that ``end_strays``
finds programs that escaped.

Trio is imported where it is used: the first program is started before Trio is there (``early_start``, DE10).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from passenger_trio.system.pidfd import is_readable, parent_of
from passenger_trio.system.syscalls import P_PID, P_PIDFD, WEXITED, pidfd_open, pidfd_send_signal, waitid

__all__ = [
    "become_subreaper",
    "descendants",
    "end_all_strays",
    "end_strays",
    "end_with_parent",
    "reap_strangers",
    "start_program",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STRANGER_TIME = 1.0
"""Seconds after which an unwatched zombie is reaped. Watched children are reaped at once."""
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that pass by themselves."""
_PATIENCE, _PAUSE = 5.0, 0.05

_log = logging.getLogger("passenger_trio")


def become_subreaper() -> None:
    """Make orphaned descendants children of this process.

    :raises OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_with_parent() -> None:
    """Make the kernel kill this process when the thread that started it ends.

    :raises OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def start_program(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    output: int | None = None,
    stdin: int = subprocess.DEVNULL,
    inherited: Sequence[int] = (),
    user: tuple[int, int, Sequence[int]] | None = None,
    umask: int = -1,
    prepare: Callable[[int], str] | None = None,
    gate: int = -1,
) -> int:
    """Start a program in its own process group and return its pid.

    :param output: descriptor for stdout and stderr; None: ours.
    :param stdin: descriptor for stdin, by default the null device.
    :param inherited: descriptors that the program has under the same numbers.
    :param user: uid, gid and supplementary groups to become; None: ours. Only root can. The program
        gets a session of its own, too: with our terminal, it could type into it (TIOCSTI).
    :param umask: of the program; -1: ours.
    :param prepare: called with the pid before the program runs: a shell in its place waits until it
        has returned, on a pipe, and runs the commands that it returns (one line, or none). If it
        raises, the program never runs.
    :param gate: the writing end of ``stdin``, if that is a pipe: the shell waits there.

    The caller owns the child: it must pin it with a pidfd at once and reap it (``pin_child``).

    :raises OSError: the program cannot be started: it does not exist, or no process, descriptor or
        memory is available.
    """
    ends: tuple[int, ...] = ()
    if prepare is not None:
        if gate < 0:
            ends = os.pipe2(os.O_CLOEXEC)
            stdin, gate = ends
        command = ("/bin/sh", "-c", _GATE.format(stdin="</dev/null" if ends else ""), "sh", *command)
    try:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=stdin,
            stdout=output,
            stderr=output,
            restore_signals=True,
            close_fds=True,
            pass_fds=inherited,
            umask=umask,
            **_identity(user),
        )
        # The pidfd owns the process from here on: Popen must neither poll the pid nor warn that it was
        # not waited for.
        child.returncode = 0
        if prepare is not None:
            try:
                commands = prepare(child.pid)
            except BaseException:
                os.kill(child.pid, signal.SIGKILL)  # nothing else reaps it yet
                os.waitpid(child.pid, 0)
                raise
            os.write(gate, commands.encode() + b"\n")
    finally:
        for end in ends:
            os.close(end)
    return child.pid


_GATE = 'read -r pt_limits || exit 127; eval "$pt_limits"; exec "$@" {stdin}'
"""``read`` of a pipe takes no byte behind the newline."""


def _identity(user: tuple[int, int, Sequence[int]] | None) -> dict[str, Any]:
    if user is None:
        return {"process_group": 0}
    uid, gid, groups = user
    return {"user": uid, "group": gid, "extra_groups": list(groups), "start_new_session": True}


def descendants(root: int, keep: Collection[int] = ()) -> list[int]:
    """Pids of all descendants of ``root``, parents first, except those in ``keep`` and their
    descendants.

    A single scan is not atomic: the next scan finds processes that were forked meanwhile.
    """
    found: list[int] = []
    queue = [root]
    while queue:
        for pid in _children(queue.pop(0)):
            if pid not in keep:
                found.append(pid)
                queue.append(pid)
    return found


def end_strays(keep: Collection[int] = ()) -> list[int]:
    """Kill and reap every descendant of this process, except those in ``keep`` and their
    descendants. Returns the pids of those that still ran.

    Call it until it finds none. It does not count processes that it may not kill (those of another
    user). Only for the end of a supervisor that owns its process: an embedding program must list
    its other children in ``keep``.

    :raises OSError: the descendants cannot be listed: no descriptor or memory is left.
    """
    killed: list[int] = []
    pinned: list[tuple[int, int]] = []
    try:
        family = descendants(os.getpid(), keep)
        parents = {os.getpid(), *family}
        for pid in family:
            try:
                pinned.append((pid, pidfd_open(pid)))
            except ProcessLookupError:
                continue
            except OSError:
                break  # no descriptor is left: the next call handles the rest
            # The pid is pinned now. But the descendant may have ended before, and another process may have
            # taken its pid: check the parent.
            if parent_of(pid) not in parents:
                os.close(pinned.pop()[1])
        for pid, fd in pinned:
            if not _reap(fd, os.WNOHANG) and not is_readable(fd):
                try:
                    pidfd_send_signal(fd, signal.SIGKILL)
                    killed.append(pid)
                except (ProcessLookupError, PermissionError):
                    pass
        for pid, fd in pinned:
            if pid in killed:
                # If it is not our child, its parent, also killed, holds it. It is re-parented to
                # us, and the next call reaps it.
                _reap(fd, 0)
    finally:
        for _, fd in pinned:
            os.close(fd)
    return killed


def end_all_strays() -> None:
    """Call ``end_strays`` until it finds none. While the descendants cannot be listed, retry for
    ``_PATIENCE`` seconds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    deadline = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                if not end_strays():
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    _log.error(
                        "what the applications left running cannot be looked for, and may be there still: %s",
                        error.strerror,
                    )
                    return
                time.sleep(_PAUSE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def reap_strangers() -> None:
    """Reap orphans that a subreaper inherits and that have ended, until cancelled. Without this
    they stay zombies (F38).

    Only for a supervisor that owns its process: it takes SIGCHLD, and reaps every child that no
    pidfd watches. If no descriptor is left to read /proc, zombies stay a second longer, which does
    no harm.
    """
    import trio

    with trio.open_signal_receiver(signal.SIGCHLD) as deaths:
        async for _ in deaths:
            zombies = _reap_zombies(())
            while zombies is None or zombies:
                await trio.sleep(_STRANGER_TIME)
                zombies = _reap_zombies(zombies or ())


def _reap_zombies(seen: Collection[int]) -> set[int] | None:
    """Reap the zombies in ``seen``. Returns the others, or None if they cannot be listed now."""
    try:
        zombies = {pid for pid in _children(os.getpid()) if _is_zombie(pid)}
    except OSError as error:
        if error.errno in _SHORT:
            return None
        raise
    for pid in zombies.intersection(seen):
        try:
            waitid(P_PID, pid, WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass
    return zombies.difference(seen)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 :].startswith(b"Z")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process or the thread has ended; its children have another parent now
    return found


def _reap(fd: int, flags: int) -> bool:
    try:
        return waitid(P_PIDFD, fd, WEXITED | flags) is not None
    except ChildProcessError:
        return False
