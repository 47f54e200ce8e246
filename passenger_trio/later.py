"""Imports modules while the applications load, instead of before them (DE10).

Most of the time from the command to the first answer is spent on imports. A module that neither the start of a process nor a plain request
needs is imported where it is used, so that it does not delay the first process. This module imports it, too, after the first processes were started. What
serves clients is imported while the application loads, on another processor. The rest has time: a module takes up to 30 ms, in which the server answers
nobody, neither the first processes, which ask for their options, nor clients. So it is imported when requests are accepted, after those who have waited; or
after ``_APART`` or when an operator calls, because operators are served while an application loads for long, too. A server that becomes another user (``--user``) imports these modules before that, and also the modules of ``ON_OCCASION`` (OP8), because that user may not be able to read them.

Laws: no code depends on this, because code that uses one of these modules imports it. Between two modules other tasks run.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module

import trio

from passenger_trio.late_classes import build_next

__all__ = [
    "CLIENTS",
    "LATER",
    "ON_OCCASION",
    "OPERATORS",
    "build_classes",
    "import_everything",
    "import_for_all",
    "import_rest",
]

OPERATORS = (
    "passenger_trio.admin.context",
    "passenger_trio.admin.status",
    "passenger_trio.admin.metrics",
    "passenger_trio.admin.server",
    "passenger_trio.admin.admin_tasks",
)
"""Modules that serve operators, in the order in which they are needed."""
CLIENTS = ("passenger_trio.server.http.connection",)
"""Modules that serve clients."""
LATER = (
    *CLIENTS,
    *OPERATORS,
    "passenger_trio.server.upgraded.relay",
    "passenger_trio.server.upgraded.websocket",
    "passenger_trio.codecs.h11_message",
    "wsproto.frame_protocol",
)
ON_OCCASION = (
    "difflib",
    "encodings.idna",
    "json",
    "psutil",
    "tomllib",
    "h11",
    "passenger_trio.admin.health",
    "passenger_trio.cli.banner",
    "passenger_trio.fronts.fronts",
    "passenger_trio.pool.lease_desk",
    "passenger_trio.server.listening.in_process",
    "passenger_trio.spawning.generic",
)
"""Modules for a reload, an error message, an embedding program or several fronts. Many servers never need them."""
_EXTRAS = ("dotenv", "watchfiles")
"""Optional dependencies for such occasions, imported if they are installed."""
_APART = 0.25
"""Seconds that the first processes have the server for themselves."""
_FIRST_CLIENTS = 0.03
"""Seconds for the requests of those who connected while the server started."""
_PAUSE = 0.002
"""Seconds between two modules, for requests."""


async def import_rest(names: Sequence[str] = LATER, accepts: trio.Event | None = None) -> None:
    """Import them. Always a checkpoint.

    :param accepts: set when the server accepts requests, which then go first.
    """
    for name in names:
        await trio.lowlevel.checkpoint()
        if accepts is not None and accepts.is_set() and name not in sys.modules:
            await trio.sleep(_PAUSE)
        import_module(name)
    await trio.lowlevel.checkpoint()


async def import_for_all(accepts: trio.Event, wait_called: Callable[[], Awaitable[None]]) -> None:
    """Import what serves clients, and then, when it is time, what serves operators. Always a checkpoint.

    :param accepts: set when the server accepts requests.
    :param wait_called: returns when an operator has called: that is time, too.
    """
    await import_rest(CLIENTS, accepts)
    with trio.move_on_after(_APART):
        async with trio.open_nursery() as either:

            async def be_called() -> None:
                await wait_called()
                either.cancel_scope.cancel()

            either.start_soon(be_called)
            await accepts.wait()
            if not all(name in sys.modules for name in OPERATORS):
                await trio.sleep(_FIRST_CLIENTS)
            either.cancel_scope.cancel()
    await import_rest(OPERATORS, accepts)


async def build_classes() -> None:
    """Finish the classes that attrs builds late (``late_classes``), one at a time. Always a checkpoint."""
    is_more = True
    while is_more:
        is_more = build_next()
        await trio.sleep(_PAUSE)  # requests have their turn


def import_everything() -> None:
    """Import everything that a server may need from now on."""
    for name in (*LATER, *ON_OCCASION):
        import_module(name)
    for name in _EXTRAS:
        with suppress(ImportError):
            import_module(name)
