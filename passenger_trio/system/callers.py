"""A private Unix socket: each caller has a task, and no more than so many are served at a time.

Laws: who comes when there are too many is hung up on; a failed ``accept`` (no descriptor is left) is told and tried again; the socket's file goes with the listener.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable

import trio

from passenger_trio.system.sockets import listen_unix

__all__ = ["serve_callers"]

_PAUSE = 0.1
"""Seconds of rest after an ``accept`` that failed."""


async def serve_callers(
    path: str,
    serve: Callable[[socket.socket], Awaitable[None]],
    *,
    backlog: int,
    most: int,
    failed: Callable[[OSError], None],
    task_status: trio.TaskStatus[None],
) -> None:
    """Listen at ``path``, for our user only, until cancelled.

    :param serve: has a caller's non-blocking socket from its first moment, and closes it.
    :param most: callers at a time.
    :param failed: is told of an ``accept`` that failed.
    :raises OSError: the path cannot be listened on.
    """
    listener = listen_unix(path, backlog, mode=0o600)
    try:
        async with trio.open_nursery() as callers:
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                except OSError as exc:
                    failed(exc)
                    await trio.sleep(_PAUSE)
                    continue
                if len(callers.child_tasks) >= most:
                    sock.close()
                    continue
                sock.setblocking(False)
                callers.start_soon(serve, sock)
    finally:
        listener.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
