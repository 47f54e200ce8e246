"""Stage 4: from a request head to an ``Exchange``: whose request is it, and what is it called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from passenger_trio.codecs.head import Head
from passenger_trio.errors import RequestError
from passenger_trio.server.exchange import Exchange

if TYPE_CHECKING:
    from passenger_trio.server.connection import Connection

__all__ = ["init_request"]


def init_request(connection: Connection, head: Head, now: float) -> Exchange:
    """:raises RequestError: 404, no application is mounted at the path."""
    front = connection.front
    route = front.mounts.find(head.host, head.path)
    if route is not None:
        return Exchange(head, route, front.next_request_id(), now)
    raise RequestError(404, "no_application", "No application is mounted at this path.")
