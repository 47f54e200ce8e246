"""The admin API of an instance: JSON over HTTP on its Unix socket.

One request per connection. A failure of one caller affects no other (KE4). A caller has ``_TIME``
to send its request and to read its answer. If more than ``_MAX_CALLERS`` connect, silent callers
and those of a process with many connections are closed first (``core.caller_limit``). Callers that follow
events, or wait for a restart, are counted separately.

The API answers from the beginning of the start until the last process is gone. ``routes`` has the
resources, and ``codecs.admin_api`` the form of a request.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import attrs
import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.registry import ADMIN_BACKLOG
from passenger_trio.admin.routes import Answer, Route, find_route
from passenger_trio.codecs.admin_api import (
    AdminReader,
    AdminRequest,
    Text,
    encode_answer,
    encode_stream_head,
    read_flags,
    read_order,
)
from passenger_trio.core.caller_limit import CallerLimit
from passenger_trio.errors import AdminRefused
from passenger_trio.events import as_json
from passenger_trio.late_classes import define
from passenger_trio.log_lines import server as lines
from passenger_trio.system.callers import Caller, serve_callers
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.threads import NoThread
from passenger_trio.system.unix_peers import PeerCredentials

__all__ = ["serve_admin"]

_TIME = 10.0
"""Seconds for a request, and for its answer."""
_MAX_CALLERS = 16
_MAX_STAYING = 64
_LINGER = 1.0
"""Seconds in which a refused caller may go on sending. Closing the connection at once could destroy
the answer.
"""


async def serve_admin(
    admin: Admin,
    listening: socket.socket,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the callers of the instance's admin socket until cancelled.

    :param listening: that socket. If it was closed (this is started again after a failure), listen anew.
    """
    server = admin.server
    desk = _Desk(admin)
    await serve_callers(
        server.admin_socket,
        desk.serve_caller,
        desk,
        backlog=ADMIN_BACKLOG,
        failed=lambda exc: lines.admin_socket_failed(reason=exc.strerror or str(exc)),
        kernel=server.front.kernel,
        task="a caller on the admin socket",
        task_status=task_status,
        listening=listening if listening.fileno() >= 0 else None,
    )


def may_steer(peer: PeerCredentials) -> bool:
    """Whether a caller's user may inspect and control the instance: our own user, and the superuser (R49)."""
    return peer.uid in (0, os.getuid())


@define(eq=False)
class _Desk:
    """Serves the callers."""

    admin: Admin
    caller_limit: CallerLimit = attrs.field(factory=partial(CallerLimit, _MAX_CALLERS, _MAX_STAYING))

    def arrive(self, caller: Caller) -> int | None:
        """The caller to close for a new one, if any."""
        return self.caller_limit.arrive(caller.number, caller.peer.pid)

    def leave(self, number: int) -> None:
        """A caller is gone."""
        self.caller_limit.leave(number)

    async def serve_caller(self, caller: Caller) -> None:
        """Serve one caller from its request to its answer."""
        stream = RawStream(caller.socket)
        reader = AdminReader()
        try:
            with trio.move_on_after(_TIME) as scope:
                try:
                    request = await _receive(stream, reader)
                    self.caller_limit.speak(caller.number)
                    await self._serve(stream, caller, request, scope)
                except AdminRefused as refused:
                    answer = {"error": str(refused)}
                    await _reply(stream, refused.status, answer, is_head=reader.is_head, allow=refused.allow)
                    await _linger(stream)
        except (EOFError, trio.BrokenResourceError):
            pass  # the caller sent nothing, or did not wait for the answer
        finally:
            stream.close()

    async def _serve(self, stream: RawStream, caller: Caller, request: AdminRequest, scope: trio.CancelScope) -> None:
        """:raises AdminRefused: the request cannot be fulfilled."""
        if not may_steer(caller.peer):
            lines.admin_refused(uid=caller.peer.uid, pid=caller.peer.pid)
            raise AdminRefused(403, "this instance belongs to another user")
        route = find_route(request.method, request.path)
        is_head = request.method == "HEAD"
        if route.run is None:
            await stream.send_all(encode_stream_head())
            if not is_head:
                self._stay(caller)
                scope.deadline = math.inf
                await _while_there(stream, partial(self._stream_events, stream))
            return
        flags = read_flags(request.query)
        order = (
            read_order(request.body, route.order)
            if route.method == "POST"
            else {flag: True for flag in route.flags if flag in flags}
        )
        if route.lasts(order):
            # The start timeouts of the applications bound this wait, not the caller's speed.
            self._stay(caller)
            scope.deadline = math.inf
        answer = await self._perform(stream, route, order)
        if answer is not None:
            scope.deadline = trio.current_time() + _TIME
            await _reply(stream, answer.status if isinstance(answer, Text) else 200, answer, is_head=is_head)

    def _stay(self, caller: Caller) -> None:
        goes = self.caller_limit.stay(caller.number)
        if goes is not None:
            caller.send_away(goes)

    async def _perform(self, stream: RawStream, route: Route, order: Mapping[str, Any]) -> Answer | None:
        """Return the answer; None: the caller has left. A GET is finished even if its caller
        leaves.

        :raises AdminRefused: the request cannot be fulfilled.
        """
        run = route.run
        assert run is not None
        if route.method != "POST":
            try:
                return await run(self.admin, order)
            except NoThread as error:
                raise AdminRefused(503, f"the system refused a thread: {error}; try again") from error
        answer: Answer | None = None
        refusal: AdminRefused | None = None

        async def perform() -> None:
            nonlocal answer, refusal
            try:
                answer = await run(self.admin, order)
            except AdminRefused as refused:
                refusal = refused

        await _while_there(stream, perform)
        if refusal is not None:
            raise refusal
        return answer

    async def _stream_events(self, stream: RawStream) -> None:
        """Send events as they happen, one JSON object per line, while the caller listens."""
        with self.admin.server.pool.events.listen() as listener:
            async for event in listener:
                await stream.send_all(json.dumps(as_json(event)).encode() + b"\n")


async def _receive(stream: RawStream, reader: AdminReader) -> AdminRequest:
    """:raises AdminRefused: not a valid request, or too long.
    :raises EOFError: the caller sent no request.
    """
    while (request := reader.next_request()) is None:
        if interim := reader.interim():
            await stream.send_all(interim)
        reader.feed(await stream.recv())
    return request


async def _reply(stream: RawStream, status: int, answer: Answer, *, is_head: bool = False, allow: str = "") -> None:
    await stream.send_all(encode_answer(status, answer, is_head=is_head, allow=allow))
    for part in answer.rest if isinstance(answer, Text) and not is_head else ():
        await stream.send_all(part)
    stream.send_eof()


async def _linger(stream: RawStream) -> None:
    with trio.move_on_after(_LINGER):
        while await stream.recv():
            pass


async def _while_there(stream: RawStream, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` until it is done, or until the caller leaves or its connection breaks. Bytes from
    the caller are ignored.
    """

    async def watch() -> None:
        try:
            while await stream.recv():
                pass
        except trio.BrokenResourceError:
            pass
        working.cancel_scope.cancel()

    async with trio.open_nursery() as working:
        working.start_soon(watch)
        try:
            await work()
        except trio.BrokenResourceError:
            pass
        working.cancel_scope.cancel()
