"""Stage: begin a request. From its head to an ``Exchange``: who asks, for which application, and under which id."""

from __future__ import annotations

import time

from passenger_trio.codecs.forwarded_client import Origin, read_origin
from passenger_trio.codecs.head import Head
from passenger_trio.codecs.refusals import refuse
from passenger_trio.codecs.request_id import NO_REQUEST_ID, RequestId, proxy_time, read_request_id
from passenger_trio.server.http.client import Client
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.http.interruptions import HealthAsked

__all__ = ["init_request"]


def init_request(client: Client, head: Head, now: float) -> Exchange:
    """:raises RequestError: 404, no application is mounted at the path.
    :raises HealthAsked: the request is for the server's health.
    """
    front = client.front
    said = NO_REQUEST_ID
    if client.peer.trusted:
        cache = head.header_cache
        if cache is not None and cache.origin_read:
            origin, said = cache.origin, cache.request_id
        else:
            origin, said = _read(client, head)
        if origin is not None:
            head.origin = origin
            head.host = origin.authority(head.host)
    elif client.served == 1 and client.peer.user is not None:
        _warn_of_doubt(client, head)
    if front.health is not None and (question := front.health.question_at(head.path)) is not None:
        raise HealthAsked(question, head)
    route = front.mounts.find(head.host, head.path)
    if route is not None:
        if said is NO_REQUEST_ID:
            exchange = Exchange(head, route, front.new_id_pairs(), now)
        else:
            exchange = Exchange(head, route, front.new_id_pairs(said), now)
            exchange.proxy_time = proxy_time(said, time.time())
        if front.tracing is not None:
            front.tracing.begin(exchange, now)
        if route.sticky is not None:
            exchange.sticky_route = route.sticky.read(head.fields)
        return exchange
    raise refuse("no_application")


def _read(client: Client, head: Head) -> tuple[Origin | None, RequestId]:
    """Read what a trusted peer says about its client (R11), and about the request (OB4)."""
    origin = read_origin(head.fields, client.front.trusted.trusts)
    said = read_request_id(head.fields)
    cache = head.header_cache
    if cache is not None:
        cache.origin, cache.request_id, cache.origin_read = origin, said, True
    return origin, said


def _warn_of_doubt(client: Client, head: Head) -> None:
    """Warn that the fields about the client are removed, because the peer on the Unix socket is not trusted, and an option would trust it (ED2)."""
    if read_origin(head.fields, client.front.trusted.trusts) is not None:
        client.front.warn_rarely(
            f"X-Forwarded-* fields of user {client.peer.user} on the Unix socket are removed; "
            "if that is your proxy: --trusted-proxies unix"
        )
