"""A server in a thread of its own, for programs that have no Trio loop: synchronous ones, asyncio, a shell (LI6).

The thread runs Trio; the program goes on in its own thread. The handle runs the program's calls in the server's loop.

Laws:

* The thread ends before the block does. Leaving the block drains the server; leaving it with an exception ends the
  server at once. If the server fails while the block runs, leaving the block raises that error.
* A program that exits without leaving the block (a shell, the reloader of a framework) ends the server at once.
* A process that the program forks has no server, and ends nothing.
* No signal handler is installed: Ctrl-C belongs to the program."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import trio

from passenger_trio.errors import NotPossible
from passenger_trio.extensions import Extensions
from passenger_trio.late_classes import define
from passenger_trio.options import Config
from passenger_trio.running import RunningServer
from passenger_trio.server.listening.given import GivenListener
from passenger_trio.tree import open_server

__all__ = ["ServerInThread", "run_in_thread"]

T = TypeVar("T")


@define(eq=False)
class ServerInThread:
    """A server that runs in another thread. ``run_in_thread`` makes it."""

    addresses: tuple[str, ...]
    """URLs, with the real port if the configured port was 0."""
    admin_socket: str
    _server: RunningServer
    _token: trio.lowlevel.TrioToken
    _stopping: threading.Event

    def call(self, function: Callable[[RunningServer], T]) -> T:
        """Run ``function(server)`` in the server's thread and give its result: ``server.call(lambda s: s.restart())``.

        :raises NotPossible: the server has ended.
        """
        try:
            return trio.from_thread.run_sync(function, self._server, trio_token=self._token)
        except trio.RunFinishedError:
            raise NotPossible("the server has ended") from None

    def wait(self, function: Callable[[RunningServer], Awaitable[T]]) -> T:
        """The same for an async function: ``server.wait(lambda s: s.app().wait_restarted())``.

        :raises NotPossible: the server has ended, or ended meanwhile.
        """
        try:
            return trio.from_thread.run(function, self._server, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise NotPossible("the server has ended") from None

    def wait_stopping(self) -> None:
        """Return when the server stops: ``passenger-trio stop``, ``RunningServer.stop``, or a failure, which leaving the
        block raises. For a program that does nothing else; Ctrl-C (``KeyboardInterrupt``) interrupts it.
        """
        self._stopping.wait()


@contextmanager
def run_in_thread(
    config: Config, *, listeners: Sequence[GivenListener] = (), extensions: Extensions | None = None
) -> Iterator[ServerInThread]:
    """Run a server in a thread while the block runs: ``with run_in_thread(config) as server``. For any program, in any thread.

    The block begins when the server serves. Raises as ``serve``. (In an asyncio program, enter it with
    ``await asyncio.to_thread(...)``, or use Trio's guest mode: docs/embedding.md.)

    :param listeners: see ``open_server``.
    :param extensions: see ``open_server``; they are called in the server's thread.
    """
    run = _Run(config, listeners, extensions)
    run.thread.start()
    atexit.register(run.end_at_once)
    drains = False
    try:
        run.begun.wait()
        if run.server is not None:
            try:
                yield run.server
            except NotPossible:
                run.end_at_once()
                if run.failure is None:
                    raise
            drains = True
    finally:
        if drains:
            run.end(at_once=False)
        else:
            run.end_at_once()
        atexit.unregister(run.end_at_once)
        if run.failure is not None and (drains or run.server is None):
            raise run.failure


class _Run:
    """What the two threads share. Each field is written by one of them, before an event is set."""

    def __init__(self, config: Config, listeners: Sequence[GivenListener], extensions: Extensions | None) -> None:
        self._config = config
        self._listeners = listeners
        self._extensions = extensions
        # A daemon: at the exit of the interpreter nobody waits for a thread that itself waits for the program's block.
        self.thread = threading.Thread(target=self.main, name="passenger_trio", daemon=True)
        self.begun = threading.Event()
        """The server serves, or it has failed to."""
        self.stopping = threading.Event()
        """The server stops, or it has failed."""
        self.server: ServerInThread | None = None
        self.failure: BaseException | None = None
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._runs = threading.Event()
        """The loop runs, or has run: ``end`` may call into it."""

    def main(self) -> None:
        """The thread."""
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001  raised in the program's thread
            self.failure = error
        finally:
            self._runs.set()
            self.begun.set()
            self.stopping.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._runs.set()
        with self._scope:
            opened = open_server(self._config, listeners=self._listeners, extensions=self._extensions)
            async with opened as server:
                self.server = ServerInThread(
                    tuple(server.addresses), server.admin_socket, server, self._token, self.stopping
                )
                self.begun.set()
                await server.wait_stopping()
                self.stopping.set()

    def end_at_once(self) -> None:
        """End the server, and the thread."""
        self.end(at_once=True)

    def end(self, *, at_once: bool) -> None:
        """Called by the program's thread, also while the server starts. Returns when the thread has ended."""
        if not self.thread.is_alive():
            return  # it has failed; or this is a process that the program has forked, which has no thread
        self._runs.wait()
        self._ask_to_end(at_once)
        self.thread.join()

    def _ask_to_end(self, at_once: bool) -> None:
        if self._token is None:
            return  # there was no loop
        try:
            trio.from_thread.run_sync(partial(self._end, at_once=at_once), trio_token=self._token)
        except trio.RunFinishedError:
            pass  # it has failed, or was stopped

    def _end(self, *, at_once: bool) -> None:
        if at_once or self.server is None:
            self._scope.cancel()
        else:
            self.server._server.stop()
