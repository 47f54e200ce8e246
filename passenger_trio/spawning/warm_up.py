"""WarmSpawner: a spawn succeeds only when the process has answered the warm-up URL.

It wraps another Spawner. Any status below 500 is enough, because the application may ask for a password.
Anything else is a failed spawn, with the process's output as evidence. Law: the process of a failed
spawn is gone.
"""

from __future__ import annotations

import secrets
import signal

import trio

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.request_id import make_id_pairs
from passenger_trio.core.fork_safety import Forking
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.errors import ApplicationRaised, AppResponseError, SpawnError
from passenger_trio.spawning.spawner import LiveProcess, PreloaderFacts, Spawner
from passenger_trio.spawning.worker_client import WorkerExchange

__all__ = ["WarmSpawner"]

_KILL_TIME = 5.0
_PEER = b"REQUEST_SCHEME\0http\0SERVER_NAME\0localhost\0SERVER_PORT\x0080\0REMOTE_ADDR\x00127.0.0.1\0REMOTE_PORT\x000\0"
"""The fields about the client, which is the server itself."""


class WarmSpawner:
    """See ``Spawner``."""

    def __init__(self, spawner: Spawner, url: str, base_uri: str, timeout: float) -> None:
        """:param url: path and query, below ``base_uri``. :param timeout: seconds for the answer."""
        self._spawner = spawner
        self._url = url
        self._base_uri = base_uri.rstrip("/")
        self._timeout = timeout

    @property
    def preloader(self) -> PreloaderFacts | None:
        return self._spawner.preloader

    @property
    def forking(self) -> Forking | None:
        return self._spawner.forking

    def retire_preloader(self) -> None:
        self._spawner.retire_preloader()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._spawner.serve(task_status=task_status)

    async def spawn(self) -> LiveProcess:
        live = await self._spawner.spawn()
        warm = False
        try:
            await self._warm_up(live)
            warm = True
            return live
        finally:
            if not warm:
                await _end(live)

    async def _warm_up(self, live: LiveProcess) -> None:
        """:raises SpawnError: the answer was bad or missing."""
        trouble = f"It did not answer within {self._timeout:g} seconds."
        async with trio.open_nursery() as watching:
            watching.start_soon(live.read_output)  # a process blocks when its output is not read
            with trio.move_on_after(self._timeout):
                try:
                    trouble = await self._ask(live)
                except (OSError, trio.BrokenResourceError, AppResponseError) as exc:
                    trouble = f"It closed the connection without an answer: {exc}."
            watching.cancel_scope.cancel()
        if trouble:
            raise SpawnError(
                SpawnFailure(
                    error_id=secrets.token_hex(4),
                    category=ErrorCategory.APPLICATION,
                    summary=f"A new process of the application did not pass the warm-up request for {self._url}",
                    problem=trouble,
                    solution="Look at the output, ask for that URL yourself, or change --warmup-url.",
                    journey=live.journey,
                    output=live.output_tail,
                )
            )

    async def _ask(self, live: LiveProcess) -> str:
        """The fault in the answer, or ``""``."""
        stream = live.connect_nowait()
        try:
            exchange = WorkerExchange(stream, live.worker_protocol)
            id_pairs = make_id_pairs(b"warm-up-" + secrets.token_hex(4).encode(), b"")
            await exchange.send(self._head(), _PEER, self._base_uri.encode(), id_pairs, b"")
            status = (await exchange.head()).status
            while await exchange.piece() is not None:
                pass
            return f"It answered with status {status}." if status >= 500 else ""
        except ApplicationRaised as error:
            return f"It raised {error.name}: {error.message}."
        finally:
            stream.close()

    def _head(self) -> Head:
        target = f"{self._base_uri}{self._url}".encode("utf-8", "surrogateescape")
        path, _, query = target.partition(b"?")
        fields = [(b"Host", b"localhost"), (b"User-Agent", b"passenger_trio warm-up")]
        return Head(b"GET", target, path, query, b"1.1", b"localhost", fields)


async def _end(live: LiveProcess) -> None:
    with trio.move_on_after(_KILL_TIME, shield=True):
        live.signal_group(signal.SIGKILL)
        await live.wait_exit()
        live.signal_group(signal.SIGKILL)  # members that outlived their leader
        live.close()
