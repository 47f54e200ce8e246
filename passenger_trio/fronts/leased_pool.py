"""The pool's interface in a front: ``core/fronts/front_ledger.py`` with sessions, streams and a channel around it.

``server/`` uses it like the pool (``pool/interface.py``). Every fact enters through one method here, which asks the ledger and performs
its decisions in one step. No method waits: the outbox keeps messages that the channel does not take yet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, assert_never

import attrs
import trio

from passenger_trio.core import commands
from passenger_trio.core.evidence import Evidence
from passenger_trio.core.fronts.front_group import Slot, SlotState
from passenger_trio.core.fronts.front_ledger import FrontDecision, FrontLedger, Send, Start, TurnAway
from passenger_trio.core.fronts.messages import (
    FromFront,
    FromOwner,
    Grant,
    OobWorkWanted,
    ProcessCame,
    ProcessGoes,
    Recall,
    Refused,
    Return,
    VersionRejected,
    Withdraw,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome, WaiterId
from passenger_trio.core.state import Rejection
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import InvariantBroken
from passenger_trio.fronts.explaining import FindEvidence
from passenger_trio.fronts.leased_session import Lease, LeasedSession
from passenger_trio.fronts.remote_process import RemoteProcess
from passenger_trio.pool.perform import refusal
from passenger_trio.pool.session import Process, Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.system.raw_stream import RawStream

__all__ = ["LeasedPool", "Outbox"]

_LOOK = 0.1
"""Seconds between two looks at idle slots and at the use of busy ones. The ledger decides what to do about them."""


_GRACE = 0.0005
"""Seconds for which a level that is due waits for the next request, which then sends it. That costs less than a timer."""


class Outbox(Protocol):
    """Takes messages to the owner, in order."""

    def send(self, message: FromFront) -> None: ...


class LeasedPool:
    """``run`` is its timer."""

    def __init__(self, outbox: Outbox, kernel: ErrorKernel, evidence: FindEvidence | None = None) -> None:
        """:param evidence: asks the owner why a request failed; None: error pages do not explain."""
        self._outbox = outbox
        self._evidence = evidence
        self._kernel = kernel
        self._ledger = FrontLedger()
        self._waiter_ids = itertools.count(1)
        self._waiters: dict[WaiterId, Waiter] = {}
        """Waiters without an answer."""
        self._leases: dict[SessionId, Lease] = {}
        self._processes: dict[ProcessId, Process[RemoteProcess]] = {}
        self._rejections: dict[GroupKey, Rejection | None] = {}
        self.current_time: Callable[[], float] = trio.lowlevel.current_clock().current_time
        """Monotonic seconds."""
        self._due = math.inf
        """When to call the ledger's ``tick``."""
        self._look = math.inf
        """When to look at idle slots, and at the use of busy ones."""
        self._sleep: trio.CancelScope | None = None
        self._failure: Exception | None = None

    @property
    def leased(self) -> int:
        """How many slots this front has."""
        return len(self._leases)

    def add_group(self, key: GroupKey, most_queued: int) -> None:
        """Serve a group, or change its limit.

        :param most_queued: the longest queue, over all fronts; 0: no limit.
        """
        self._ledger.add_group(key, most_queued)
        self._rejections.setdefault(key, None)

    def moved_in(self, now: float) -> None:
        """A connection has come from another front."""
        self._ledger.moved_in(now)

    async def run(self) -> None:
        """Call the ledger's ``tick`` when it is due, until cancelled.

        :raises Exception: the first exception that the ledger raised, in any call.
        """
        while True:
            with trio.CancelScope(deadline=self._due) as self._sleep:
                await trio.sleep_forever()
            self._sleep = None
            if self._failure is not None:
                raise self._failure
            self._tick(self.current_time())

    def _failed(self, error: Exception) -> None:
        """Keep the first exception, and end the front: from now on the ledger cannot be trusted."""
        if self._failure is None:
            self._failure = error
        self._wake_by(-math.inf)

    # -- called by server/ ----------------------------------------------------------------------------

    def checkout_or_queue(
        self, key: GroupKey, now: float, avoided: ProcessId | None = None, sticky_route: bytes = b""
    ) -> Session | Waiter:
        """See ``PoolInterface``."""
        try:
            if avoided is None and not sticky_route:
                slot = self._ledger.take_idle(key, now)
                if slot is not None:
                    return LeasedSession(self, slot, self._leases[slot.id])
            waiter = Waiter(self, WaiterId(next(self._waiter_ids)))
            self._waiters[waiter.id] = waiter
            self._perform(self._ledger.queue(waiter.id, key, now, avoided, sticky_route), now)
            if not waiter.answered:
                self._tell_levels(now)
            return waiter
        except Exception as error:
            self._failed(error)
            raise

    def rejection(self, key: GroupKey) -> Rejection | None:
        """See ``PoolInterface``."""
        return self._rejections[key]

    async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> Evidence | None:
        """See ``PoolInterface``. The owner knows."""
        if self._evidence is not None:
            return await self._evidence(key, pid, ends=ends)
        await trio.lowlevel.checkpoint()
        return None

    def left(self, waiter: Waiter) -> None:
        """Called by ``Waiter.leave``."""
        if self._waiters.pop(waiter.id, None) is not None:
            now = self.current_time()
            self._ledger.leave(waiter.id, now)
            self._tell_levels(now)

    def tell_levels(self) -> None:
        """Tell the owner at once which requests wait, and what the slots do."""
        now = self.current_time()
        self._perform(self._ledger.tell_levels(now), now)

    # -- called by sessions -------------------------------------------------------------------------------------

    def slot_pinned(self, slot: Slot, *, long_lived: bool, taken_over: bool, uncounted: bool) -> None:
        """Called by ``LeasedSession.set_long_lived`` and ``set_uncounted``."""
        send = self._ledger.pinned(slot, long_lived=long_lived, taken_over=taken_over, uncounted=uncounted)
        self._outbox.send(send.message)

    def slot_ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> None:
        """Called by ``LeasedSession.close``, once."""
        try:
            decisions = self._ledger.ended(slot, outcome, now, kept=kept)
            if decisions:
                self._perform(decisions, now)
        except Exception as error:
            self._failed(error)
            raise
        self._look_by(self._ledger.next_return(slot.process.group.key) if slot.state is SlotState.IDLE else now + _LOOK)

    def is_alone(self, process: Process[Any]) -> bool:
        """See ``SessionOwner``. Not called: the slot of a leased session has this fact."""
        raise InvariantBroken("a front does not know the other processes")

    def session_long_lived(self, session: Session) -> None:
        """See ``SessionOwner``. Not called: a leased session calls ``slot_pinned``."""
        raise InvariantBroken("a session in a front is not leased")

    session_uncounted = session_long_lived

    def oob_work_wanted(self, session: Session) -> None:
        """Called by ``Session.want_oob_work``."""
        self._outbox.send(OobWorkWanted(session.process.id))

    def session_closed(self, session: Session, outcome: SessionOutcome, now: float) -> None:
        """See ``SessionOwner``. Not called: a leased session calls ``slot_ended``."""
        raise InvariantBroken("a session in a front is not leased")

    # -- the owner ----------------------------------------------------------------------------------------------

    def receive(self, message: FromOwner, stream: RawStream | None) -> None:
        """A message of the owner has arrived.

        :param stream: the stream that came with a ``Grant``.
        """
        now, ledger = self.current_time(), self._ledger
        match message:
            case Grant():
                lease = Lease(self._processes[message.process], stream, message.reused, stream is not None)
                self._leases[message.slot] = lease
                self._perform(ledger.granted(message, now), now)
            case Recall():
                self._perform(ledger.recalled(message, now), now)
                self._look_by(ledger.next_return(message.group))
            case Refused():
                self._perform(ledger.refused(message, now), now)
            case ProcessCame():
                live = RemoteProcess.of(message)
                self._processes[message.process] = Process(
                    message.process, message.group, live, attached=now, route=message.route
                )
                ledger.process_came(message)
            case ProcessGoes():
                self._process_goes(message)
                self._perform(ledger.process_goes(message, now), now)
            case Withdraw():
                self._perform(ledger.withdrawn(message), now)
            case VersionRejected():
                self._rejections[message.group] = message.rejection
            case _:
                assert_never(message)
        self._tell_levels(now)
        self._look_by(now + _LOOK)

    def _process_goes(self, goes: ProcessGoes) -> None:
        process = self._processes.get(goes.process)
        if process is None:
            return
        process.drained = goes.drained
        process.killed = goes.killed
        process.overdue.update(goes.overdue)
        if goes.leaving and not process.leaving:
            process.leave()
        if not process.detach_announced:
            process.detach_announced = True
            for tell in tuple(process.on_detach):
                with self._kernel.contain("a step of a connection"):
                    tell()
        if goes.gone:
            process.live.close()
            del self._processes[goes.process]

    # -- decisions ----------------------------------------------------------------------------------------------

    def _perform(self, decisions: Iterable[FrontDecision], now: float) -> None:
        for decision in decisions:
            match decision:
                case Start():
                    session = LeasedSession(self, decision.slot, self._leases[decision.slot.id])
                    self._waiters.pop(decision.waiter).answer(session, now)
                case TurnAway():
                    refused = decision.refused
                    error = refusal(
                        commands.Refuse(decision.waiter, refused.reason, refused.failure, refused.retry_after)
                    )
                    self._waiters.pop(decision.waiter).answer(error, now)
                case Send():
                    self._send(decision.message)
                case _:
                    assert_never(decision)

    def _send(self, message: FromFront) -> None:
        if isinstance(message, Return):
            lease = self._leases.pop(message.slot)
            if not lease.reusable:
                message = attrs.evolve(message, reusable=False)
            if message.reusable and lease.stream is not None:
                lease.stream.close()
            else:
                lease.end()
        self._outbox.send(message)

    # -- time ---------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._perform(self._ledger.tick(now), now)
        self._due = self._look = math.inf
        self._look_by(self._ledger.next_deadline())

    def _tell_levels(self, now: float) -> None:
        """Send the levels that are due, and set the timer for those that will be due."""
        due = self._ledger.next_level()
        if due <= now:
            self._perform(self._ledger.tick(now), now)
            # Mostly the new time is later than the old one: no need to wake for a level that was just sent.
            self._wake_by(min(self._ledger.next_level() + _GRACE, self._look))
        elif due + _GRACE < self._due:
            self._wake_by(due + _GRACE)

    def _look_by(self, due: float) -> None:
        if due < self._look:
            self._look = due
            if due < self._due:
                self._wake_by(due)

    def _wake_by(self, due: float) -> None:
        if self._failure is not None:
            due = -math.inf
        self._due = due
        if self._sleep is not None:
            self._sleep.deadline = due
