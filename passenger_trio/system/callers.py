"""A private Unix socket: each caller has a task and a number, and when more come than are served at a time, one of them is sent away.

It knows who the kernel says a caller is. It never knows whom to send away: it asks. Laws: a failed ``accept`` (no descriptor is left) is told and tried again;
what goes wrong with one caller costs that caller (KE1); who is sent away is cancelled, whatever it waits for; the socket's file goes with the listener.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio

from passenger_trio.kernel import ErrorKernel
from passenger_trio.system.sockets import PeerCredentials, listen_unix, peer_credentials

__all__ = ["Caller", "Order", "serve_callers"]

_PAUSE = 0.1
"""Seconds of rest after an ``accept`` that failed."""


class Order(Protocol):
    """Decides who may stay."""

    def arrive(self, caller: Caller) -> int | None:
        """The number of who is to go for a new caller, which may be its own; None: nobody."""

    def leave(self, number: int) -> None:
        """A caller is gone."""


@attrs.define(eq=False)
class Caller:
    """One connection.

    :ivar socket: non-blocking. Whoever serves the caller closes it, or hands it on.
    :ivar send_away: end the service of the caller with this number.
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
) -> None:
    """Listen at ``path``, for our user only, until cancelled.

    :param serve: has a caller from its first moment, and its socket.
    :param failed: is told of an ``accept`` that failed.
    :param task: what a caller is, for the error kernel.
    :raises OSError: the path cannot be listened on.
    """
    numbers = itertools.count(1)
    present: dict[int, Caller] = {}

    def send_away(number: int) -> None:
        present[number]._scope.cancel()

    async def attend(caller: Caller) -> None:
        try:
            with caller._scope, kernel.contain(task, "it is hung up on"):
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
            with kernel.contain(task, "it is hung up on") as containment:
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

    listener = listen_unix(path, backlog, mode=0o600)
    try:
        async with trio.open_nursery() as callers:
            task_status.started()
            # Who is here stays while accepting is started again, and who comes meanwhile waits in the kernel's queue.
            await kernel.supervise(f"the listener for {task}", accept, callers)
    finally:
        listener.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
