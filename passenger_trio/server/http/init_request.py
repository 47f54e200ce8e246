"""Stage: begin a request. From its head to an ``Exchange``: who asks, for which application, and under which id."""

from __future__ import annotations

from passenger_trio.codecs.forwarded import Origin, read_origin
from passenger_trio.codecs.head import Head
from passenger_trio.codecs.refusals import refuse
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange

__all__ = ["init_request"]


def init_request(client: Client, head: Head, now: float) -> Exchange:
    """:raises RequestError: 404, no application is mounted at the path."""
    front = client.front
    if client.peer.trusted:
        cache = head.header_cache
        origin = cache.origin if cache is not None and cache.origin_read else _origin(client, head)
        if origin is not None:
            head.origin = origin
            head.host = origin.authority(head.host)
    elif client.served == 1 and client.peer.user is not None:
        _warn_of_doubt(client, head)
    route = front.mounts.find(head.host, head.path)
    if route is not None:
        exchange = Exchange(head, route, front.next_request_id(), now)
        if route.sticky is not None:
            exchange.sticky_route = route.sticky.read(head.fields)
        return exchange
    raise refuse("no_application")


def _origin(client: Client, head: Head) -> Origin | None:
    origin = read_origin(head.fields, client.front.trusts)
    if head.header_cache is not None:
        head.header_cache.origin, head.header_cache.origin_read = origin, True
    return origin


def _warn_of_doubt(client: Client, head: Head) -> None:
    """A peer on the Unix socket who is not trusted, and would be by an option: what it says of its client is removed, but not silently (ED2)."""
    if read_origin(head.fields, client.front.trusts) is not None:
        client.front.warn_rarely(
            f"X-Forwarded-* fields of user {client.peer.user} on the Unix socket are removed; "
            "if that is your proxy: --trusted-proxies unix"
        )
