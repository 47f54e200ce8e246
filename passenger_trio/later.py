"""What is imported while the applications load, and not before them (DE10).

From the command to the first answer most of the time is imports. What neither the start of a process nor a plain request needs is imported where
it is used, so that it does not stand before the first process. And it is imported once the first processes are on their way: they load on
another processor, and no client finds a part that is not there yet. A server that becomes another user (``--user``) imports them before: that user may not
be able to read them.

Laws: nothing depends on this: each of these modules is imported by whoever uses it. Between two modules the event loop has its turn.
"""

from __future__ import annotations

from importlib import import_module

import trio

__all__ = ["LATER", "import_rest"]

LATER = (
    "passenger_trio.admin.context",
    "passenger_trio.admin.status",
    "passenger_trio.admin.metrics",
    "passenger_trio.admin.server",
    "passenger_trio.admin.operators",
    "passenger_trio.server.upgraded.relay",
    "passenger_trio.server.upgraded.websocket",
    "passenger_trio.codecs.h11_message",
    "wsproto.frame_protocol",
)
"""In this order: the first ones are needed first."""


async def import_rest() -> None:
    """Import them. Always a checkpoint."""
    for name in LATER:
        await trio.lowlevel.checkpoint()
        import_module(name)
    await trio.lowlevel.checkpoint()
