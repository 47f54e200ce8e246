"""What an event loop must do for the rest: on asyncio, or on another loop of the application's policy."""

import os
import sys

from passenger_trio_loader.output import say
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import traceback_of


class OnAsyncio:
    """An event loop of asyncio: of the policy that the application has set, so this may be another's."""

    always_pauses = False

    def __init__(self):
        import asyncio
        from contextvars import copy_context

        self._asyncio = asyncio
        self._copy_context = copy_context
        self._loop = None
        self._context = None
        self._tasks = set()

    def run(self, main, lifeline):
        """Run ``main`` to its end, then end what the application has left running.

        :raises BaseException: what ``main`` raised.
        """
        asyncio = self._asyncio
        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._context = self._copy_context()
        task = loop.create_task(main())
        try:
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except Leave:
                    raise
                except BaseException as error:
                    # An exit in a task or a callback of the application's goes through the loop and stops it.
                    if lifeline.leaving:
                        raise Leave(0)
                    if not task.done():
                        say(traceback_of(error))
            task.result()
        except BaseException:
            loop.set_exception_handler(lambda loop, context: None)  # The tasks that are left are no news.
            if lifeline.deserted:
                say_no_more()
            raise
        left = asyncio.all_tasks(loop)
        for one in left:
            one.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        if hasattr(loop, "shutdown_default_executor"):  # from Python 3.9 on
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def start(self, function):
        """A task, which the loop alone would not keep alive."""
        task = self._loop.create_task(function())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def guard(self, session, function):
        await function()

    def interrupt(self, session):
        pass  # The application is told, and decides.

    def cancel(self, session):
        session.task.cancel()

    def is_ours(self, error):
        return False

    # The loop would run a callback in the context of whoever asked for it: that may be a request's, which others
    # must not see.

    def watch(self, conn, callback):
        self._context.copy().run(self._loop.add_reader, conn, callback)

    def unwatch(self, conn):
        self._loop.remove_reader(conn)

    def watch_writable(self, conn, callback):
        self._context.copy().run(self._loop.add_writer, conn, callback)

    def unwatch_writable(self, conn):
        self._loop.remove_writer(conn)

    def call_later(self, seconds, callback):
        self._context.copy().run(self._loop.call_later, seconds, callback)

    def call_from_thread(self, callback):
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # It has ended.

    async def pause(self):
        """Let other tasks have their turn."""
        await self._asyncio.sleep(0)

    def bell(self):
        return AsyncioBell(self._loop)


class AsyncioBell:
    """Wakes all who wait. They look then whether what they wait for is there."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop):
        self._loop = loop
        self._waiters = []

    def ring(self):
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self):
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)


def say_no_more():
    """The supervisor is gone, and with it whoever reads what the interpreter says of tasks and threads that were left in the middle of something."""
    import warnings

    warnings.simplefilter("ignore")
    sys.stderr = open(os.devnull, "w")
