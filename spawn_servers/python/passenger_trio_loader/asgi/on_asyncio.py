"""Asyncio behind the interface that the rest of ``asgi`` knows: tasks, readers and writers, a condition, cancelling.

``on_trio.py`` has the same interface. Callbacks and tasks run in the worker's context, never in a request's.
"""

import os
import sys

from passenger_trio_loader.backtraces import frames_of_coroutine, task_sources
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import traceback_of


class AsyncioLoop:
    """An event loop of the policy that the application has set: asyncio's own, or uvloop's, for example."""

    always_checkpoints = False

    def __init__(self):
        import asyncio
        from contextvars import copy_context

        self._asyncio = asyncio
        self._copy_context = copy_context
        self._loop = None
        self._context = None
        self._tasks = set()

    def run(self, main, watcher):
        """Run ``main`` to its end, then cancel the tasks that the application has left.

        :raises BaseException: what ``main`` raised.
        """
        asyncio = self._asyncio
        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        task_sources.append(self._describe_tasks)
        self._context = self._copy_context()
        task = loop.create_task(main())
        try:
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except Leave:
                    raise
                except BaseException as error:
                    # ``sys.exit()`` in a task or callback of the application stops the loop. Start it again.
                    if watcher.leaving:
                        raise Leave(0)
                    if not task.done():
                        write_stderr(traceback_of(error))
            task.result()
        except BaseException:
            loop.set_exception_handler(lambda loop, context: None)  # Nobody wants to read of the tasks that are left.
            if watcher.supervisor_gone:
                silence_stderr()
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

    def _describe_tasks(self):
        """For ``backtraces``, from another thread."""
        tasks = sorted(self._asyncio.all_tasks(self._loop), key=lambda task: task.get_name())
        return [("asyncio task %s" % task.get_name(), frames_of_coroutine(task.get_coro())) for task in tasks]

    def spawn(self, function):
        """Start a task. The loop alone keeps only a weak reference to it."""
        task = self._loop.create_task(function())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run_session(self, session, function):
        await function()

    def on_client_gone(self, session):
        pass  # ``receive`` tells the application, which decides.

    def cancel(self, session):
        session.task.cancel()

    def is_shutdown_cancellation(self, error):
        return False

    # The loop runs a callback in the context of its caller. That may be a request's, which other requests must not see.

    def add_reader(self, conn, callback):
        self._context.copy().run(self._loop.add_reader, conn, callback)

    def remove_reader(self, conn):
        self._loop.remove_reader(conn)

    def add_writer(self, conn, callback):
        self._context.copy().run(self._loop.add_writer, conn, callback)

    def remove_writer(self, conn):
        self._loop.remove_writer(conn)

    def call_later(self, seconds, callback):
        self._context.copy().run(self._loop.call_later, seconds, callback)

    def call_from_thread(self, callback):
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # The loop has ended.

    async def checkpoint(self):
        """Let other tasks run."""
        await self._asyncio.sleep(0)

    def condition(self):
        return AsyncioCondition(self._loop)


class AsyncioCondition:
    """A condition variable without a lock: ``notify_all`` wakes every waiter, which then checks its own condition."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop):
        self._loop = loop
        self._waiters = []

    def notify_all(self):
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


def silence_stderr():
    """Drop the interpreter's warnings of unfinished tasks and threads: the supervisor is gone, so nobody reads them."""
    import warnings

    warnings.simplefilter("ignore")
    sys.stderr = open(os.devnull, "w")
