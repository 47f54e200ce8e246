"""Serves the dashboard on the loopback address, to clients that have the token (OB8).

The token is the first segment of every path. Laws:

* Without the token every path is 404, and the comparison takes the same time for all.
* ``Host`` must be the listening address. So a name that an attacker resolves to that address gets nothing (DNS rebinding).
* An order needs rights (``controls``), the token, and an ``Origin`` that is ours, if the browser sends one.
* One admin call at a time, in a thread; all open pages share the answers of one second.
* At most ``_MOST`` connections; a request has ``_TIME`` seconds."""

from __future__ import annotations

import hmac
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import h11
import trio

from passenger_trio.dashboard.page import document, fragment, policy
from passenger_trio.errors import AdminError
from passenger_trio.late_classes import define, frozen
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["Dashboard", "Instance"]

_TIME = 10.0
_PERIOD = 1.0
"""Seconds between two looks at the instance."""
_MOST = 32
_LONGEST_ORDER = 4096

Json = dict[str, Any]


@frozen
class Instance:
    """The instance that the page shows. Its functions may block.

    :ivar fetch: the answer to a GET of the admin API.
    :ivar order: sends an order. Both raise ``AdminError``.
    """

    name: str
    fetch: Callable[[str], Json]
    order: Callable[[str, Json], Json]


@define(eq=False)
class _Shown:
    at: float
    answers: dict[str, Json]


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise _Refused(400, "it is no pid")
    return int(text)


_ORDERS: dict[str, tuple[str, dict[str, Callable[[str], Any]]]] = {
    "restart": ("/v1/restart", {"group": str}),
    "detach": ("/v1/detach", {"pid": _number}),
    "disable": ("/v1/disable", {"pid": _number}),
    "enable": ("/v1/enable", {"pid": _number}),
}
"""What a button may do: the route, and the members of its order."""


class Dashboard:
    """One page for one instance. ``serve`` is its task."""

    def __init__(self, instance: Instance, listener: socket.socket, *, controls: bool) -> None:
        """:param listener: listens on a loopback address; non-blocking."""
        self._instance = instance
        self._listener = listener
        self._controls = controls
        self._token = secrets.token_urlsafe(24)
        host, port = listener.getsockname()[:2]
        self._hosts = {f"{host}:{port}", f"localhost:{port}"}
        self.url = f"http://{host}:{port}/{self._token}/"
        self._limiter = trio.CapacityLimiter(1)
        self._looking = trio.Lock()
        self._shown: _Shown | None = None
        self._places = trio.CapacityLimiter(_MOST)

    async def serve(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as callers:
            while True:
                await trio.lowlevel.wait_readable(self._listener)
                try:
                    sock, _ = self._listener.accept()
                except OSError:
                    await trio.sleep(0.05)
                    continue
                sock.setblocking(False)
                callers.start_soon(self._attend, sock)

    async def _attend(self, sock: socket.socket) -> None:
        stream = RawStream(sock)
        try:
            async with self._places:
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
                with trio.move_on_after(_TIME) as scope:
                    await self._answer(stream, connection, scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, EOFError):
            pass  # a browser that leaves, or no browser
        finally:
            stream.close()

    async def _answer(self, stream: RawStream, connection: h11.Connection, scope: trio.CancelScope) -> None:
        head, body = await _read(stream, connection)
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        try:
            what = self._what(head, fields)
            if what == "live" and head.method == b"GET":
                scope.deadline = float("inf")
                await self._send_live(stream, connection)
                return
            status, kind, answer, more = await self._page(head.method, what, fields, body)
        except _Refused as refused:
            status, kind, answer, more = refused.status, "text/plain; charset=utf-8", f"{refused}\n".encode(), {}
        await _send(stream, connection, status, kind, b"" if head.method == b"HEAD" else answer, more, len(answer))

    def _what(self, head: h11.Request, fields: Mapping[str, str]) -> str:
        """The answer to a request, by its path below the token."""
        target = head.target.decode("latin-1").partition("?")[0]
        token, _, what = target.removeprefix("/").partition("/")
        known = hmac.compare_digest(token.encode("latin-1"), self._token.encode())
        if fields.get("host") not in self._hosts or not known:
            raise _Refused(404, "there is nothing here: use the whole address that the command printed")
        return what

    async def _page(
        self, method: bytes, what: str, fields: Mapping[str, str], body: bytes
    ) -> tuple[int, str, bytes, dict[str, str]]:
        if method == b"POST" and what == "act":
            return await self._act(fields, body)
        if method not in (b"GET", b"HEAD"):
            raise _Refused(405, "this is read only")
        if what == "":
            nonce = secrets.token_urlsafe(12)
            text = document(await self._fragment(), nonce, f"{self._instance.name}: passenger_trio")
            return (
                200,
                "text/html; charset=utf-8",
                text.encode("utf-8", "replace"),
                {"Content-Security-Policy": policy(nonce)},
            )
        name = what.removesuffix(".json")
        if what.endswith(".json") and name in ("status", "requests", "history"):
            answers = await self._look()
            return 200, "application/json", json.dumps(answers[name], indent=2).encode(), {}
        raise _Refused(404, "there is nothing here")

    async def _act(self, fields: Mapping[str, str], body: bytes) -> tuple[int, str, bytes, dict[str, str]]:
        if not self._controls:
            raise _Refused(403, "this page is read only: start it with --control")
        origin = fields.get("origin")
        if origin is not None and origin != "null" and origin.removeprefix("http://") not in self._hosts:
            raise _Refused(403, "the order comes from another page")
        form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        path, members = _ORDERS.get(form.get("do", ""), ("", {}))
        if not path:
            raise _Refused(400, "there is no such order")
        order = {name: read(form[name]) for name, read in members.items() if name in form}
        try:
            await in_thread(partial(self._instance.order, path, order), limiter=self._limiter)
        except (AdminError, NoThread) as error:
            raise _Refused(409, str(error)) from error
        self._shown = None
        return 303, "text/plain; charset=utf-8", b"done\n", {"Location": f"/{self._token}/"}

    async def _look(self) -> dict[str, Json]:
        """The instance's answers, at most ``_PERIOD`` old. Raises ``_Refused`` when there are none."""
        async with self._looking:
            now = trio.current_time()
            if self._shown is None or now - self._shown.at >= _PERIOD * 0.9:
                try:
                    answers = await in_thread(self._fetch, limiter=self._limiter)
                except (AdminError, NoThread) as error:
                    raise _Refused(503, str(error)) from error
                self._shown = _Shown(now, answers)
            return self._shown.answers

    def _fetch(self) -> dict[str, Json]:
        return {name: self._instance.fetch(f"/v1/{name}") for name in ("status", "requests", "history")}

    async def _fragment(self) -> str:
        found = await self._look()
        return fragment(
            self._instance.name,
            found["status"],
            found["requests"]["requests"],
            found["history"],
            controls=self._controls,
        )

    async def _send_live(self, stream: RawStream, connection: h11.Connection) -> None:
        """Server-sent events: the changing part, whenever it has changed."""
        head = h11.Response(status_code=200, headers=[("Content-Type", "text/event-stream"), *_COMMON])
        await stream.send_all(connection.send(head) or b"")
        last = ""
        while True:
            try:
                event, data = "message", await self._fragment()
            except _Refused as refused:
                event, data = "trouble", str(refused)
            if data != last:
                last = data
                text = f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
            else:
                text = b": still here\n\n"
            await stream.send_all(connection.send(h11.Data(data=text)) or b"")
            await trio.sleep(_PERIOD)


_COMMON = [
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Connection", "close"),
]


async def _read(stream: RawStream, connection: h11.Connection) -> tuple[h11.Request, bytes]:
    """:raises EOFError: nothing was asked."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.recv())
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _LONGEST_ORDER:
                raise EOFError
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return head, bytes(body)
        else:
            raise EOFError


async def _send(
    stream: RawStream,
    connection: h11.Connection,
    status: int,
    kind: str,
    body: bytes,
    more: Mapping[str, str],
    length: int,
) -> None:
    fields = [("Content-Type", kind), ("Content-Length", str(length)), *_COMMON, *more.items()]
    data = connection.send(h11.Response(status_code=status, headers=fields)) or b""
    data += (connection.send(h11.Data(data=body)) or b"") if body else b""
    await stream.send_all(data)
    stream.send_eof()
