"""The handle of an application that a server serves: it takes requests without TCP, too (LI4)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import trio

from passenger_trio.app_handle import AppHandle
from passenger_trio.app_response import AppResponse, Fields
from passenger_trio.late_classes import frozen
from passenger_trio.server.front import Front

if TYPE_CHECKING:
    from passenger_trio.server.listening.in_process import Body

__all__ = ["ServedApp"]


@frozen(eq=False)
class ServedApp(AppHandle):
    """One application of a server. ``RunningServer.app`` makes it."""

    _front: Front
    _clients: Callable[[], trio.Nursery | None]

    def request(
        self, method: str, path: str, *, headers: Fields = (), body: Body = b""
    ) -> AbstractAsyncContextManager[AppResponse]:
        """A request without TCP: ``async with app.request("GET", "/") as response``.

        It passes the queue, the limits and the buffers of the server, as every client's. So a response
        may also be one of the server's own (503: too many requests wait).

        :param path: from its slash on, below the application's mount, with the query; as it stands in
            a URL.
        :param headers: fields of the request. ``Host`` is by default one that the application serves.
        :param body: ``bytes``; or an iterable of them, async or not, which is streamed.
        :raises PoolShutDown: the server accepts no more requests.
        :raises CheckoutError: too many connections are open.
        :raises IncompleteResponse: there is no response, or not the whole.
        """
        from passenger_trio.server.listening.in_process import (
            request,  # here: the start of the server does not wait for it (DE10)
        )

        mount = self.options.base_uri.rstrip("/")
        host = self.options.host_name[0].replace("*", "any", 1) if self.options.host_name else "localhost"
        return request(self._front, self._clients(), method, mount + path, host, headers, body)
