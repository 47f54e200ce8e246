"""One front, as its owner keeps it: started, listened to, and replaced when it dies (FR4).

Laws:

* A front that ends unasked is replaced: at once if it had served for a while, else after a growing time (``core/task_and_front_restarts.py``). Its slots and
  waiters come back to the pool in the step in which its channel ends.
* The keeper kills a front that breaks the protocol, does not read, hangs, or does not end in time.
* When the keeper is cancelled, its front is killed and reaped.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import trio

from passenger_trio.codecs.front_reports import (
    Accept,
    Answer,
    Ask,
    Drain,
    Drained,
    Explain,
    Explained,
    FrameReader,
    Line,
    Order,
    Resume,
    Serving,
    Stop,
    encode_order,
    frame,
    read_report,
)
from passenger_trio.core.evidence import Evidence
from passenger_trio.core.fronts.messages import FromFront, FromOwner
from passenger_trio.core.model import GroupKey
from passenger_trio.core.task_and_front_restarts import TaskRestarts
from passenger_trio.errors import BadFrontMessage
from passenger_trio.fronts.explaining import MOST, may_explain
from passenger_trio.fronts.heartbeats import Board
from passenger_trio.fronts.lease_channel import BrokenLink, OwnerLink
from passenger_trio.fronts.log_of_front import write_line
from passenger_trio.fronts.setup import FrontSetup
from passenger_trio.late_classes import define
from passenger_trio.log_lines import server as lines
from passenger_trio.options import AppOptions
from passenger_trio.system.children import start_program
from passenger_trio.system.packets import packet_pair
from passenger_trio.system.pidfd import PidFd, pin_child

__all__ = ["FrontKeeper", "LeaseOffice"]

_PROGRAM = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv.pop())\n"
    "from passenger_trio.fronts.process import main\n"
    "main()\n"
)
"""Runs with ``-P``, so that nothing is imported from the working directory. The front gets its owner's path of modules."""
_SILENT = 15
"""Looks, a second apart, after which a front counts as hung."""
_LAST = 2.0
"""Seconds after the grace in which a front must end."""


class LeaseOffice(Protocol):
    """The owner's ledger, with the pool around it."""

    def front_came(self, send: Callable[[FromOwner, int], None]) -> int:
        """A front has a channel. Returns its identity.

        :param send: sends a message, with a copy of a descriptor (-1: with none); never waits.
        """

    def received(self, front: int, message: FromFront) -> None:
        """A front has sent a message.

        :raises BadFrontMessage: the message cannot be true.
        """

    def front_gone(self, front: int) -> None:
        """A front has ended: its slots and its waiters come back."""

    async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> Evidence | None:
        """See ``PoolInterface``."""


@define(eq=False)
class FrontKeeper:
    """``run`` is its task."""

    number: int
    _make_setup: Callable[[int, int], FrontSetup]
    """Makes the setup from the descriptors of the channel and of the page."""
    _office: LeaseOffice
    _board: Board
    _routes: Sequence[tuple[GroupKey, AppOptions]] = ()
    accepts: bool = False
    """Whether the front is to accept connections as soon as it can."""
    drains: bool = False
    """Whether its connections are to end after their current response."""
    stopping: Stop | None = None
    pid: int = 0
    """0: no process runs."""
    restarts: int = 0
    tried: trio.Event = attrs.field(factory=trio.Event)
    """Set when its first process can serve, or could not be started."""
    answers: dict[int, Answer] = attrs.field(factory=dict)
    answered: trio.Event = attrs.field(factory=trio.Event)
    """Set, and replaced by a new event, when an answer has come or the process has ended."""
    _serving_since: float = math.inf
    """Since when its current process can serve."""
    _explained: int = 0
    """How many of its ``Explain`` questions are being answered."""
    _waiting: bytearray = attrs.field(factory=bytearray)
    _more: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Keep the front until it was told to stop and has ended."""
        failures = TaskRestarts()
        while True:
            problem = ""
            self._serving_since = math.inf
            try:
                problem = await self._run_once()
            except OSError as error:
                problem = f"cannot be started: {error.strerror}"
            if self.stopping is not None:
                self.tried.set()
                return
            self.restarts += 1
            self.tried.set()
            now = trio.current_time()
            wait = failures.failed(now, now - self._serving_since).wait
            when = f"in {wait:.1f} s" if wait else "at once"
            lines.front_ended(front=self.number, reason=problem, when=when)
            with trio.move_on_after(wait):
                await self._wait_stopping()

    @property
    def serves(self) -> bool:
        """Whether its process has reported that it can serve. A process that still starts answers no order."""
        return bool(self.pid) and self._serving_since < math.inf

    async def _wait_stopping(self) -> None:
        while self.stopping is None:
            await self._more.wait()
            if self.stopping is None:
                self._more = trio.Event()

    def order(self, order: Order) -> None:
        """Send the front an order. A process that is started later gets the orders that still hold."""
        if isinstance(order, Accept):
            self.accepts = True
        elif isinstance(order, Drain | Resume):
            self.drains = isinstance(order, Drain)
        elif isinstance(order, Stop):
            self.stopping = order
        elif isinstance(order, Ask) and not self.serves:
            return
        if self.pid:
            self._waiting += encode_order(order)
        self._more.set()

    # -- one process --------------------------------------------------------------------------------------------

    async def _run_once(self) -> str:
        """Start a process, and keep it until it has ended. Returns how it ended."""
        ours, theirs = packet_pair()
        orders, their_orders = socket.socketpair()
        with ours, theirs, orders, their_orders:
            setup = self._make_setup(theirs.fileno(), self._board.page.fd)
            inherited = [their_orders.fileno(), setup.leases, setup.page, *setup.listeners, setup.inbox, *setup.inboxes]
            command = [sys.executable, "-P", "-c", _PROGRAM, str(their_orders.fileno()), json.dumps(sys.path)]
            pidfd = pin_child(start_program(command, env=os.environ, inherited=inherited))
            try:
                theirs.close()
                their_orders.close()
                self.pid = pidfd.pid
                self._waiting = bytearray(frame(pickle.dumps(setup)))
                if self.accepts:
                    self._waiting += encode_order(Accept())
                if self.drains:
                    self._waiting += encode_order(Drain())
                if self.stopping is not None:
                    self._waiting += encode_order(self.stopping)
                self._more.set()
                why = await self._listen(pidfd, OwnerLink(ours), orders)
            finally:
                self.pid = 0
                self._board.clear(self.number)
                self._tell_answered()
                with trio.CancelScope(shield=True):  # it has been killed
                    pidfd.send_signal(signal.SIGKILL)
                    await pidfd.wait_exit()
                pidfd.close()
        return why or _describe(pidfd.exit_status)

    async def _listen(self, pidfd: PidFd, link: OwnerLink, orders: socket.socket) -> str:
        """Serve the process until it has ended, or must be ended. Returns why, if that is not its exit."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(orders))
        front = self._office.front_came(link.send)
        why = ""
        try:
            async with trio.open_nursery() as ends:
                ends.start_soon(link.run, lambda message: self._office.received(front, message))
                ends.start_soon(self._write, stream)
                ends.start_soon(self._read, stream, ends)
                ends.start_soon(self._watch)
                await pidfd.wait_exit()
                ends.cancel_scope.cancel()
        except* BadFrontMessage as errors:
            why = f"(pid {pidfd.pid}) is ended: {_first(errors)}"
        except* (BrokenLink, trio.BrokenResourceError, trio.ClosedResourceError):
            # The process has ended, or is about to end.
            with trio.move_on_after(_LAST):
                await pidfd.wait_exit()
        finally:
            self._office.front_gone(front)
        return why

    async def _watch(self) -> None:
        """Detect a front that hangs: other fronts wait for its slots, and only its end brings them back.

        Counts looks and not seconds, so that a pause of the owner itself ends no front.

        :raises BadFrontMessage: the front has not written its line for ``_SILENT`` looks.
        """
        last = looks = 0
        while looks < _SILENT:
            await trio.sleep(1.0)
            beat = self._board.beat(self.number)
            looks = looks + 1 if beat == last and beat else 0
            last = beat
        raise BadFrontMessage(f"its event loop has stood still for {_SILENT} seconds")

    async def _write(self, stream: trio.SocketStream) -> None:
        while True:
            data = bytes(self._waiting)
            if data:
                await stream.send_all(data)
                del self._waiting[: len(data)]
            else:
                self._more = trio.Event()
                await self._more.wait()

    async def _read(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        reader = FrameReader()
        while data := await stream.receive_some(65536):
            reader.feed(bytes(data))
            for payload in reader.frames():
                if (asked := self._take(payload)) is not None:
                    nursery.start_soon(self._explain, asked)

    def _take(self, payload: bytes) -> Explain | None:
        """A report has come. Returns a question whose answer takes longer than one step; None: nothing is left to do."""
        match read_report(payload):
            case Serving():
                self._serving_since = trio.current_time()
                self.tried.set()
            case Line() as line:
                write_line(line, self.number)
            case Answer() as answer:
                self.answers[answer.number] = answer
                while len(self.answers) > 8:  # the first answers were never read
                    del self.answers[next(iter(self.answers))]
                self._tell_answered()
            case Drained():
                lines.front_drained(front=self.number)
            case Explain() as asked:
                if self._explained < MOST:
                    self._explained += 1
                    return asked
                self.order(Explained(asked.number, None))
        return None

    async def _explain(self, asked: Explain) -> None:
        try:
            known = may_explain(asked, self._routes)
            evidence = await self._office.evidence(asked.group, asked.pid, ends=asked.ends) if known else None
            self.order(Explained(asked.number, evidence))
        finally:
            self._explained -= 1

    def _tell_answered(self) -> None:
        answered, self.answered = self.answered, trio.Event()
        answered.set()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _describe(status: int | None) -> str:
    if status is None:
        return "has ended"
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"has ended with status {status}"
