"""What an event loop must do for the rest: on the Trio of the application's environment."""

import sys

from passenger_trio_loader.asgi.on_asyncio import say_no_more
from passenger_trio_loader.interface import Unfit
from passenger_trio_loader.tracebacks import text_of


class OnTrio:
    """The Trio of the application's environment."""

    always_pauses = True

    def __init__(self):
        """:raises Unfit: there is none."""
        try:
            from contextvars import copy_context

            import trio
        except ImportError as error:
            raise Unfit(
                "configuration",
                "--loop trio: the application's environment has no Trio",
                "The application is to run on Trio, but %s (Python %s) cannot import it: %s."
                % (sys.executable, sys.version.split()[0], text_of(error)),
                "Install it: %s -m pip install trio. Or run the application on asyncio: --loop asyncio."
                % sys.executable,
            )
        self._trio = trio
        self._copy_context = copy_context
        self._context = None
        self._nursery = None
        self._token = None
        self._failure = None
        self._watches = {}
        self._writers = {}

    def run(self, main, lifeline):
        # Trio wants the wake-up descriptor while it starts, and needs it for Ctrl-C alone, which is not for us.
        lifeline.take_wakeup(False)
        try:
            self._trio.run(self._main, main, lifeline)
        except BaseException:
            if lifeline.deserted:
                say_no_more()
            raise
        finally:
            lifeline.take_wakeup()
        if self._failure is not None:
            raise self._failure

    async def _main(self, main, lifeline):
        lifeline.take_wakeup()
        self._token = self._trio.lowlevel.current_trio_token()
        self._context = self._copy_context()
        async with self._trio.open_nursery() as self._nursery:
            try:
                await main()
            except Exception as error:
                self._failure = error  # The nursery would wrap it.
            self._nursery.cancel_scope.cancel()

    def start(self, function):
        # A task would get the context of whoever starts it: that may be a request's, which others must not see.
        self._context.copy().run(self._nursery.start_soon, function)

    async def guard(self, session, function):
        with self._trio.CancelScope() as session.cancel_scope:
            if session.gone or session.cancelled:
                session.cancel_scope.cancel()  # Before it began.
            await function()

    def interrupt(self, session):
        if session.cancel_scope is not None:
            session.cancel_scope.cancel()

    cancel = interrupt

    def is_ours(self, error):
        """Whether it is the cancellation of everything."""
        return isinstance(error, self._trio.Cancelled)

    def watch(self, conn, callback):
        watch = self._watches[conn] = _Watch(self._trio, conn, self._trio.lowlevel.wait_readable, callback)
        self.start(watch.run)

    def unwatch(self, conn):
        watch = self._watches.pop(conn, None)
        if watch is not None:
            watch.end()

    def watch_writable(self, conn, callback):
        watch = self._writers[conn] = _Watch(self._trio, conn, self._trio.lowlevel.wait_writable, callback)
        self.start(watch.run)

    def unwatch_writable(self, conn):
        watch = self._writers.pop(conn, None)
        if watch is not None:
            watch.end()

    def call_later(self, seconds, callback):
        async def call():
            await self._trio.sleep(seconds)
            callback()

        self.start(call)

    def call_from_thread(self, callback):
        try:
            self._token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            pass

    async def pause(self):
        await self._trio.lowlevel.checkpoint()

    def bell(self):
        return TrioBell(self._trio)


class _Watch:
    """Calls back whenever a descriptor is ready, until it is told to end: also by the callback."""

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


class TrioBell:
    __slots__ = ("_event", "_trio")

    def __init__(self, trio):
        self._trio = trio
        self._event = None

    def ring(self):
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self):
        if self._event is None:
            self._event = self._trio.Event()
        await self._event.wait()
