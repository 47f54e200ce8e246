"""A private Unix socket: each connection has a task and a number, and the number of connections is
bounded.

The kernel reports the credentials of each peer. When there are more connections than the server
handles at a time, ``Order`` decides which one to cancel. Laws:

* A failed ``accept`` (no descriptor is left) is reported and retried.
* An unexpected error in one connection costs that connection only (KE1).
* A connection that is sent away is cancelled, whatever it waits for.
* Closing the listener removes the socket file.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio

from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.late_classes import define
from passenger_trio.system.listen import listen_unix
from passenger_trio.system.unix_peers import PeerCredentials, peer_credentials

__all__ = ["Caller", "Order", "serve_callers"]

_PAUSE = 0.1
"""Seconds to wait after a failed ``accept``."""


class Order(Protocol):
    """Decides which connections may stay."""

    def arrive(self, caller: Caller) -> int | None:
        """The number of the connection to cancel for a new one, possibly its own; None: cancel none."""

    def leave(self, number: int) -> None:
        """The connection has ended."""


@define(eq=False)
class Caller:
    """One connection.

    :ivar socket: non-blocking. The function that serves the connection closes it or hands it on.
    :ivar send_away: cancels the connection with this number.
    """

    number: int
    socket: socket.socket
    peer: PeerCredentials
    send_away: Callable[[int], None]
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


async def serve_callers(
    path: str,
    serve: Callable[[Caller], Awaitable[None]],
    order: Order,
    *,
    backlog: int,
    failed: Callable[[OSError], None],
    kernel: ErrorKernel,
    task: str,
    task_status: trio.TaskStatus[None],
    mode: int = 0o600,
    listening: socket.socket | None = None,
) -> None:
    """Listen at ``path``, for our user only, until cancelled.

    :param serve: runs the connection, and owns its socket from the start.
    :param failed: called when ``accept`` fails.
    :param mode: of the socket's file; 0o666 lets other users in, whom ``serve`` has to tell apart.
    :param listening: a socket that listens there already; it is closed at the end.
    :param task: the name of a connection in the reports of the error kernel.
    :raises OSError: cannot listen at the path.
    """
    numbers = itertools.count(1)
    present: dict[int, Caller] = {}

    def send_away(number: int) -> None:
        present[number]._scope.cancel()

    async def attend(caller: Caller) -> None:
        try:
            with caller._scope, kernel.contain(task, "its connection is closed"):
                await serve(caller)
        finally:
            del present[caller.number]
            order.leave(caller.number)

    async def accept(callers: trio.Nursery) -> None:
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
            with kernel.contain(task, "its connection is closed") as containment:
                sock.setblocking(False)
                caller = Caller(next(numbers), sock, peer_credentials(sock), send_away)
                goes = order.arrive(caller)
                if goes == caller.number:
                    sock.close()
                    continue
                if goes is not None:
                    send_away(goes)
                present[caller.number] = caller
                callers.start_soon(attend, caller)
            if containment.error is not None:
                sock.close()

    listener = listening or listen_unix(path, backlog, mode=mode)
    try:
        async with trio.open_nursery() as callers:
            task_status.started()
            # Restarting ``accept`` keeps the open connections; new ones wait in the listen queue
            # meanwhile.
            await kernel.supervise(f"the listener for {task}", accept, callers)
    finally:
        listener.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
