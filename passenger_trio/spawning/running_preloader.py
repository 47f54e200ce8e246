"""Takes a preloader or a process into use that runs already: it has loaded the application, and waits on a Unix socket
(``--preloader-socket``, CONTRACT.md 1.6).

The server gives it an environment and a pipe for its output, like a program that the server starts. From then on it is a
preloader or a process like any other. It is not the server's child: its own parent reaps it, and its exit status can be read only until then.

Law (R47): the server trusts it only if the process that listens on the path runs as the server's user. The control connection must come
from that same process."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping

import trio

from passenger_trio.system.pidfd import PidFd
from passenger_trio.system.unix_peers import PeerCredentials, peer_credentials, peer_lives

__all__ = ["is_ours", "take_into_use", "take_when_it_listens", "wait_exit_status"]

_TIME = 5.0
"""Seconds in which it must read the message. (Unless the environment is huge, the message fits into the kernel's buffer.)"""

_MOMENT = 2.0
"""Seconds in which a program that was just started listens."""
_INTERVAL = 0.001


def is_ours(peer: PeerCredentials) -> bool:
    """Whether the process that listens runs as the server's user."""
    return peer.uid == os.getuid()


def take_into_use(path: str, environment: Mapping[str, str], output: int) -> PidFd:
    """Hand the preloader its environment and its output.

    :param output: the writing end of its output pipe.
    :returns: the preloader's process, which the caller owns.
    :raises OSError: no process of the server's user listens there, or it does not read the message.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TIME)
        sock.connect(path)
        listener = peer_credentials(sock)
        if not is_ours(listener):
            raise PermissionError(f"pid {listener.pid} listens on {path}, and runs as another user")
        pidfd = PidFd.open(listener.pid)
        try:
            # The pid is pinned now. If the listening process has ended before that, the pid may belong to another process.
            if not peer_lives(sock):
                raise ProcessLookupError(f"the process that listened on {path} has ended")
            text = json.dumps({"environment": dict(environment)}).encode() + b"\n"
            sent = sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [output]))])
            if text := text[sent:]:  # it may close the connection as soon as it has the whole message
                sock.sendall(text)
        except BaseException:
            pidfd.close()
            raise
        return pidfd


async def take_when_it_listens(path: str, environment: Mapping[str, str], output: int) -> PidFd:
    """As ``take_into_use``. Who has just started the program need not wait until it listens: it has a moment for that."""
    deadline = trio.current_time() + _MOMENT
    while True:
        try:
            return take_into_use(path, environment, output)
        except (FileNotFoundError, ConnectionRefusedError):
            if trio.current_time() >= deadline:
                raise
        await trio.sleep(_INTERVAL)


async def wait_exit_status(pidfd: PidFd, pid: int) -> int:
    """The exit status of a program that has ended. Sleeps for ever if its parent has reaped it first: then the status is lost."""
    status = pidfd.status_of_zombie()
    if status is None:
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()
    return status
