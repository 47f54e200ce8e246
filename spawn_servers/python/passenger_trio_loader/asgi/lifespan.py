"""ASGI's lifespan: the application's start-up before the worker listens, and its shutdown after the last session.

An application that raises before it answers does not know of lifespan, and is served without it.
"""

from passenger_trio_loader.interface import StartFailed
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import class_name, message_of, traceback_of


class Lifespan:
    """The run of the application for the lifespan scope. Each session gets a copy of ``state``."""

    cancel_scope = None
    cancelled = False
    gone = False

    def __init__(self, worker):
        self.state = {}
        self._worker = worker
        self._changed = worker.loop.condition()
        self._events = ["lifespan.startup"]
        self._received = 0
        self._answers = {}
        """Type of each message that the application has sent -> the message."""
        self._over = False
        self._error = None

    async def start_up(self):
        """:raises StartFailed: the application has reported that its start-up failed."""
        self._worker.loop.spawn(self._run)
        while not (self._over or "lifespan.startup.complete" in self._answers):
            # It usually raises after it has reported the failure. Its traceback is worth waiting for.
            if "lifespan.startup.failed" in self._answers and self._received > 1:
                break
            await self._changed.wait()
        if "lifespan.startup.failed" in self._answers:
            message = str(self._answers["lifespan.startup.failed"].get("message", ""))
            error = self._error
            last = [line for line in message.splitlines() if line.strip()][-1:]
            what = "%s: %s" % (class_name(error), message_of(error)) if error is not None else "".join(last)
            report = traceback_of(error) if error is not None else message
            raise StartFailed(
                "application",
                "The application failed in its start-up (lifespan): %s" % (what or "it does not say why"),
                "It answered lifespan.startup with lifespan.startup.failed. The traceback says where, if it told.",
                "Fix the application, or what its start-up needs (a database, another service). "
                "It is started again with the next request, or when it is restarted.",
                traceback=report,
            )
        if self._error is not None and self._received:
            # The specification says: serve without lifespan. But the application had received the event, so this is an error.
            write_stderr(traceback_of(self._error))
            write_stderr(
                "passenger_trio: the application's lifespan failed with this error; serving the application without it\n"
            )

    async def shut_down(self):
        if self._over or "lifespan.startup.complete" not in self._answers:
            return
        self._events.append("lifespan.shutdown")
        self._changed.notify_all()
        while not (self._over or any(name.startswith("lifespan.shutdown.") for name in self._answers)):
            await self._changed.wait()
        failed = self._answers.get("lifespan.shutdown.failed")
        if failed is not None:
            write_stderr("passenger_trio: the application failed in its shutdown: %s\n" % failed.get("message", ""))

    async def _run(self):
        try:
            await self._worker.loop.run_session(self, self._call)
        except Leave:
            raise
        except BaseException as error:
            if self._worker.is_leaving or self._worker.loop.is_shutdown_cancellation(error):
                raise
            self._error = error
            if "lifespan.startup.complete" in self._answers:
                write_stderr(traceback_of(error))
        self._over = True
        self._changed.notify_all()

    async def _call(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._worker.application(scope, self._receive, self._send)

    async def _receive(self):
        if self._worker.loop.always_checkpoints:
            await self._worker.loop.checkpoint()
        self._received += 1
        self._changed.notify_all()
        while not self._events:
            await self._changed.wait()
        return {"type": self._events.pop(0)}

    async def _send(self, message):
        kind = message["type"]
        if kind not in (
            "lifespan.startup.complete",
            "lifespan.startup.failed",
            "lifespan.shutdown.complete",
            "lifespan.shutdown.failed",
        ):
            raise RuntimeError("%r cannot be sent in a lifespan" % (kind,))
        self._answers[kind] = message
        self._changed.notify_all()
        if self._worker.loop.always_checkpoints:
            await self._worker.loop.checkpoint()
