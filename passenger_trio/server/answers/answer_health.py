"""Answers a request for the server's health on a public listener (OB3)."""

from __future__ import annotations

from passenger_trio.server.http.client import Client
from passenger_trio.server.http.interruptions import HealthAsked

__all__ = ["answer_health"]

_REASONS = {200: b"OK", 405: b"Method Not Allowed", 503: b"Service Unavailable"}


async def answer_health(client: Client, asked: HealthAsked) -> None:
    """:raises ClientGone: the client's connection broke."""
    front, head = client.front, asked.head
    fields = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Cache-Control", b"no-store")]
    if head.method not in (b"GET", b"HEAD"):
        status, text = 405, b"only GET and HEAD are possible\n"
        fields.append((b"Allow", b"GET, HEAD"))
    else:
        assert front.health is not None
        words = {word.partition(b"=")[0] for word in head.query.split(b"&")}
        status, text = await front.health.ask(asked.question, b"verbose" in words)
    await client.send(
        client.codec.write_response(
            status, _REASONS[status], fields, text, date=front.date(), close=client.ends_after_response
        )
    )
