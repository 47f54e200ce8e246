"""Points of extension of the library: objects that an embedding program may bring (LI7).

Each is a typed Protocol. A fault in one is the program's own, and costs only the call: the error kernel logs it with its
traceback, and the server goes on (KE1). All are called in the server's event loop and must not block."""

from __future__ import annotations

import secrets
from typing import Protocol

import trio

from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import SpawnError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions
from passenger_trio.pool.callables import OnEvent
from passenger_trio.server.answers.custom_page import ErrorPage, FailedRequest
from passenger_trio.server.answers.page_layout import Page
from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.server.logs.tee import OnRequest
from passenger_trio.spawning.choose_spawner import MakeSpawner
from passenger_trio.spawning.spawner import LiveProcess, Spawner, WithoutPreloader

__all__ = [
    "AccessRecord",
    "ErrorPage",
    "Extensions",
    "FailedRequest",
    "LiveProcess",
    "OnEvent",
    "OnRequest",
    "Page",
    "Spawner",
    "WrapSpawner",
]


class WrapSpawner(Protocol):
    """Gives the spawner of one generation of an application: the ``usual`` one, one of the program's own, or one that wraps
    the usual. It is called for the first start and for each restart, in the step that decides it.

    ``passenger_trio.testing.spawners.check_spawner`` tells whether a spawner keeps the contract.
    """

    def __call__(self, app: AppOptions, generation: int, usual: Spawner, /) -> Spawner: ...


@frozen(kw_only=True)
class Extensions:
    """What an embedding program brings along: ``open_server(config, extensions=Extensions(...))``.

    :ivar wrap_spawner: replaces or wraps what starts processes.
    :ivar on_event: called with each event of the pool, in order (``passenger_trio.events``). A program that falls 1000 events behind loses the oldest.
    :ivar on_request: called with the record of each finished request.
    :ivar error_page: the pages of failed requests.
    """

    wrap_spawner: WrapSpawner | None = None
    on_event: OnEvent | None = None
    on_request: OnRequest | None = None
    error_page: ErrorPage | None = None

    def spawners(self, app: AppOptions, usual: MakeSpawner, kernel: ErrorKernel) -> MakeSpawner:
        """What makes the spawner of each generation of an application. It raises nothing: it is called by the pool's policy (KE1)."""
        wrap = self.wrap_spawner
        if wrap is None:
            return usual

        def make(generation: int) -> Spawner:
            made: Spawner | None = None
            with kernel.contain("wrap_spawner", "the application does not start"):
                made = wrap(app, generation, usual(generation))
            return _NoSpawner() if made is None else made

        return make


class _NoSpawner(WithoutPreloader):
    """In place of a spawner that the program failed to make."""

    async def spawn(self) -> LiveProcess:
        """:raises SpawnError: always."""
        await trio.lowlevel.checkpoint()
        raise SpawnError(
            SpawnFailure(
                error_id=secrets.token_hex(4),
                category=ErrorCategory.CONFIGURATION,
                summary="The program that runs the server could not make the spawner of this application",
                problem="Its wrap_spawner raised, or gave nothing. The log has the traceback.",
                solution="Look at the log for 'wrap_spawner failed'.",
                journey=Journey.begin(JourneyType.SPAWN_DIRECTLY).failed(0.0),
            )
        )
