"""The application's start-up and shutdown (ASGI's lifespan)."""

from passenger_trio_loader.interface import Unfit
from passenger_trio_loader.output import say
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import class_name, text_of, traceback_of


class Lifespan:
    """Start-up and shutdown of the application, if it knows of them. ``state`` is what it keeps for its sessions."""

    cancel_scope = None
    cancelled = False
    gone = False

    def __init__(self, worker):
        self.state = {}
        self._worker = worker
        self._bell = worker.loop.bell()
        self._events = ["lifespan.startup"]
        self._received = 0
        self._answers = {}
        """Name of the answer -> its message."""
        self._over = False
        self._error = None

    async def begin(self):
        """:raises Unfit: the application says that its start-up failed."""
        self._worker.loop.start(self._run)
        while not (self._over or "lifespan.startup.complete" in self._answers):
            # Behind a failure it usually raises, and its traceback is worth waiting for.
            if "lifespan.startup.failed" in self._answers and self._received > 1:
                break
            await self._bell.wait()
        if "lifespan.startup.failed" in self._answers:
            message = str(self._answers["lifespan.startup.failed"].get("message", ""))
            error = self._error
            last = [line for line in message.splitlines() if line.strip()][-1:]
            what = "%s: %s" % (class_name(error), text_of(error)) if error is not None else "".join(last)
            report = traceback_of(error) if error is not None else message
            say(report + "\n")
            raise Unfit(
                "application",
                "The application failed in its start-up (lifespan): %s" % (what or "it does not say why"),
                "It answered lifespan.startup with lifespan.startup.failed. The traceback says where, if it told.",
                "Mend the application, or what its start-up needs (a database, another service). "
                "It is started again with the next request, or when it is restarted.",
                traceback=report,
            )
        if self._error is not None and self._received:
            # The specification: go on without. But it knew what was asked.
            say(traceback_of(self._error))
            say("passenger_trio: the application's lifespan has ended with this error; it is served without it\n")

    async def end(self):
        if self._over or "lifespan.startup.complete" not in self._answers:
            return
        self._events.append("lifespan.shutdown")
        self._bell.ring()
        while not (self._over or any(name.startswith("lifespan.shutdown.") for name in self._answers)):
            await self._bell.wait()
        failed = self._answers.get("lifespan.shutdown.failed")
        if failed is not None:
            say("passenger_trio: the application failed in its shutdown: %s\n" % failed.get("message", ""))

    async def _run(self):
        try:
            await self._worker.loop.guard(self, self._call)
        except Leave:
            raise
        except BaseException as error:
            if self._worker.is_leaving or self._worker.loop.is_ours(error):
                raise
            self._error = error
            if "lifespan.startup.complete" in self._answers:
                say(traceback_of(error))
        self._over = True
        self._bell.ring()

    async def _call(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._worker.application(scope, self._receive, self._send)

    async def _receive(self):
        if self._worker.loop.always_pauses:
            await self._worker.loop.pause()
        self._received += 1
        self._bell.ring()
        while not self._events:
            await self._bell.wait()
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
        self._bell.ring()
        if self._worker.loop.always_pauses:
            await self._worker.loop.pause()
