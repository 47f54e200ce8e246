"""Trio behind the interface that the rest of ``asgi`` knows: tasks, readers and writers, a condition, cancelling.

``on_asyncio.py`` has the same interface. It is the Trio of the application's environment. Each session runs in a cancel
scope of its own, which is cancelled when its client is gone.
"""

import sys

from passenger_trio_loader.asgi.on_asyncio import silence_stderr
from passenger_trio_loader.backtraces import frames_of_coroutine, task_sources
from passenger_trio_loader.interface import StartFailed
from passenger_trio_loader.tracebacks import message_of


class TrioLoop:
    """The Trio of the application's environment."""

    always_checkpoints = True

    def __init__(self):
        """:raises StartFailed: Trio is not installed."""
        try:
            from contextvars import copy_context

            import trio
        except ImportError as error:
            raise StartFailed(
                "configuration",
                "--loop trio: the application's environment has no Trio",
                "The application is to run on Trio, but %s (Python %s) cannot import it: %s."
                % (sys.executable, sys.version.split()[0], message_of(error)),
                "Install it: %s -m pip install trio. Or run the application on asyncio: --loop asyncio."
                % sys.executable,
            )
        self._trio = trio
        self._copy_context = copy_context
        self._context = None
        self._nursery = None
        self._token = None
        self._root = None
        self._failure = None
        self._readers = {}
        self._writers = {}

    def run(self, main, watcher):
        # Trio insists on a free wake-up descriptor while it starts. It uses it for Ctrl-C only, which the supervisor handles.
        watcher.take_wakeup(False)
        try:
            self._trio.run(self._main, main, watcher)
        except BaseException:
            if watcher.supervisor_gone:
                silence_stderr()
            raise
        finally:
            watcher.take_wakeup()
        if self._failure is not None:
            raise self._failure

    async def _main(self, main, watcher):
        watcher.take_wakeup()
        self._token = self._trio.lowlevel.current_trio_token()
        self._context = self._copy_context()
        self._root = self._trio.lowlevel.current_root_task()
        task_sources.append(self._describe_tasks)
        async with self._trio.open_nursery() as self._nursery:
            try:
                await main()
            except Exception as error:
                self._failure = error  # The nursery would wrap it in a group.
            self._nursery.cancel_scope.cancel()

    def _describe_tasks(self):
        """For ``backtraces``, from another thread."""
        described, waiting = [], [self._root]
        while waiting:
            task = waiting.pop()
            described.append(("Trio task %s" % task.name, frames_of_coroutine(task.coro)))
            for nursery in list(task.child_nurseries):
                waiting += list(nursery.child_tasks)
        return described

    def spawn(self, function):
        # A task inherits the context of its caller. That may be a request's, which other requests must not see.
        self._context.copy().run(self._nursery.start_soon, function)

    async def run_session(self, session, function):
        with self._trio.CancelScope() as session.cancel_scope:
            if session.gone or session.cancelled:
                session.cancel_scope.cancel()  # It happened before the task began.
            await function()

    def on_client_gone(self, session):
        if session.cancel_scope is not None:
            session.cancel_scope.cancel()

    cancel = on_client_gone

    def is_shutdown_cancellation(self, error):
        """Whether an exception is the cancellation of the whole run."""
        return isinstance(error, self._trio.Cancelled)

    def add_reader(self, conn, callback):
        registration = self._readers[conn] = _Registration(
            self._trio, conn, self._trio.lowlevel.wait_readable, callback
        )
        self.spawn(registration.run)

    def remove_reader(self, conn):
        registration = self._readers.pop(conn, None)
        if registration is not None:
            registration.end()

    def add_writer(self, conn, callback):
        registration = self._writers[conn] = _Registration(
            self._trio, conn, self._trio.lowlevel.wait_writable, callback
        )
        self.spawn(registration.run)

    def remove_writer(self, conn):
        registration = self._writers.pop(conn, None)
        if registration is not None:
            registration.end()

    def call_later(self, seconds, callback):
        async def call():
            await self._trio.sleep(seconds)
            callback()

        self.spawn(call)

    def call_from_thread(self, callback):
        try:
            self._token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            pass

    async def checkpoint(self):
        await self._trio.lowlevel.checkpoint()

    def condition(self):
        return TrioCondition(self._trio)


class _Registration:
    """Calls back whenever a descriptor is ready, until ``end``, which the callback may call."""

    def __init__(self, trio, conn, wait, callback):
        self._scope = trio.CancelScope()
        self._conn = conn
        self._wait = wait
        self._callback = callback
        self._on = True

    async def run(self):
        with self._scope:
            while self._on:
                await self._wait(self._conn)
                if self._on:
                    self._callback()

    def end(self):
        self._on = False
        self._scope.cancel()


class TrioCondition:
    __slots__ = ("_event", "_trio")

    def __init__(self, trio):
        self._trio = trio
        self._event = None

    def notify_all(self):
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self):
        if self._event is None:
            self._event = self._trio.Event()
        await self._event.wait()
