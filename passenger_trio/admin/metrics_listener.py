"""The metrics listener (``--metrics-listen``): metrics and health over TCP or a Unix socket, for scrapers and load balancers.

It is read-only, and anybody who reaches the address may read. So its answers name no client, path or pid, it has no
route of the admin API, and it takes no orders (OB1, OB3).

Laws: one request per connection. At most ``_MOST`` callers at a time; when more come, silent callers are closed first,
then those of the address with the most (``core.caller_limit``). A caller has ``_TIME`` seconds. A failure of one costs
only that one (KE4)."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import attrs
import trio

from passenger_trio.admin.context import Admin
from passenger_trio.admin.health import health_answer
from passenger_trio.admin.metrics import metrics
from passenger_trio.codecs.admin_api import AdminReader, AdminRequest, Text, encode_answer, read_flags
from passenger_trio.codecs.openmetrics import CONTENT_TYPE
from passenger_trio.core.caller_limit import CallerLimit
from passenger_trio.core.health import QUESTIONS
from passenger_trio.core.metrics_address import parse_metrics_address
from passenger_trio.errors import AdminRefused, BindError
from passenger_trio.late_classes import define
from passenger_trio.log_lines import server as lines
from passenger_trio.system.listen import holder_of_port, listen_tcp, listen_unix
from passenger_trio.system.raw_stream import RawStream

__all__ = ["bind_metrics", "serve_metrics"]

_TIME = 10.0
_MOST = 16
_BACKLOG = 64
_PAUSE = 0.1


def bind_metrics(address: str, resources: ExitStack) -> list[socket.socket]:
    """Listen at ``--metrics-listen``; nowhere, if it is empty.

    :raises OptionError: it is no address.
    :raises BindError: it cannot be listened on.
    """
    if not address:
        return []
    place = parse_metrics_address(address)
    try:
        if isinstance(place, str):
            sockets = [listen_unix(os.path.abspath(place), _BACKLOG)]
            resources.callback(_unlink, os.path.abspath(place))
        else:
            sockets = listen_tcp(*place, _BACKLOG)
    except OSError as exc:
        holder = holder_of_port(place[1]) if exc.errno == errno.EADDRINUSE and not isinstance(place, str) else ""
        used = f" (in use by {holder})" if holder else ""
        raise BindError(
            f"cannot listen on {address}: {exc.strerror}{used}; choose another with --metrics-listen"
        ) from exc
    for sock in sockets:
        resources.callback(sock.close)
    return sockets


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


async def serve_metrics(admin: Admin, sockets: Sequence[socket.socket]) -> None:
    """Answer until cancelled."""
    desk = _Desk(admin)
    async with trio.open_nursery() as callers:
        for sock in sockets:
            callers.start_soon(
                admin.server.front.kernel.supervise, "the metrics listener", partial(desk.accept, sock, callers)
            )


@define(eq=False)
class _Desk:
    admin: Admin
    caller_limit: CallerLimit = attrs.field(factory=partial(CallerLimit, _MOST))
    present: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    numbers: itertools.count[int] = attrs.field(factory=partial(itertools.count, 1))

    async def accept(self, listener: socket.socket, callers: trio.Nursery) -> None:
        """Accept callers, who run in the nursery."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as exc:
                lines.metrics_listener_failed(reason=exc.strerror or str(exc))
                await trio.sleep(_PAUSE)
                continue
            sock.setblocking(False)
            number = next(self.numbers)
            goes = self.caller_limit.arrive(number, hash(address[0] if address else ""))
            if goes == number:
                sock.close()
                continue
            if goes is not None:
                self.present[goes].cancel()
            self.present[number] = trio.CancelScope()
            callers.start_soon(self._attend, number, RawStream(sock))

    async def _attend(self, number: int, stream: RawStream) -> None:
        kernel = self.admin.server.front.kernel
        try:
            with self.present[number], kernel.contain("a caller of the metrics listener", "its connection is closed"):
                with trio.move_on_after(_TIME):
                    await self._serve(number, stream)
        finally:
            stream.close()
            del self.present[number]
            self.caller_limit.leave(number)

    async def _serve(self, number: int, stream: RawStream) -> None:
        reader = AdminReader()
        rest: Sequence[bytes] = ()
        try:
            try:
                while (request := reader.next_request()) is None:
                    reader.feed(await stream.recv())
                self.caller_limit.speak(number)
                answer = await self._answer(request)
                data = encode_answer(answer.status, answer, is_head=reader.is_head)
                rest = () if reader.is_head else answer.rest
            except AdminRefused as refused:
                data = encode_answer(
                    refused.status, {"error": str(refused)}, is_head=reader.is_head, allow=refused.allow
                )
            await stream.send_all(data)
            for part in rest:
                await stream.send_all(part)
            stream.send_eof()
            with trio.move_on_after(1.0):  # closing with bytes unread could destroy the answer
                while await stream.recv():
                    pass
        except (EOFError, trio.BrokenResourceError):
            pass  # the caller sent nothing, or did not wait for the answer

    async def _answer(self, request: AdminRequest) -> Text:
        if request.method not in ("GET", "HEAD"):
            raise AdminRefused(405, "only GET and HEAD are possible", allow="GET, HEAD")
        if request.path == "/metrics":
            return Text(200, CONTENT_TYPE, b"", await metrics(self.admin))
        if request.path[1:] in QUESTIONS:
            return health_answer(self.admin.server, request.path[1:], verbose="verbose" in read_flags(request.query))
        raise AdminRefused(404, "not found; this address serves /metrics, /livez, /readyz and /startupz")
