"""The owner's end of the leases: ``core/fronts/owner_ledger.py`` with the pool, streams and channels around it.

A waiter of a front is a waiter of the pool (a *ticket*), and a slot is a session of the pool, with its stream. The front gets a copy of the
stream's descriptor; ours stays open, so that the stream can be granted again, or ended when the front dies.

Every fact enters through one method here, which asks the ledger and performs its decisions in one step. No method waits. The pool answers
tickets within its own steps, in which nobody may call it: the desk keeps such answers until the step is over.

The ledger is a part of the pool's policy, so an unexpected exception in it ends the server (KE1). ``BadFrontMessage`` ends only the front.
"""

from __future__ import annotations

import errno
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import assert_never

import trio

from passenger_trio.core.commands import Reason
from passenger_trio.core.evidence import Evidence
from passenger_trio.core.fronts.messages import (
    FromFront,
    FromOwner,
    Grant,
    OobWorkWanted,
    Pinned,
    ProcessCame,
    ProcessGoes,
    Return,
    Usage,
    VersionRejected,
    Want,
    Withdraw,
)
from passenger_trio.core.fronts.owner_decisions import (
    Abandon,
    Ask,
    AskForOobWork,
    Close,
    FrontId,
    LongLived,
    OwnerDecision,
    Renew,
    Running,
    Send,
    Served,
    TicketId,
    Uncounted,
)
from passenger_trio.core.fronts.owner_ledger import OwnerLedger
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.core.state import Rejection
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import (
    ApplicationRemoved,
    BadFrontMessage,
    CheckoutError,
    ProcessUnreachable,
    RequestQueueFull,
    RequestQueueTimeout,
    SpawnError,
)
from passenger_trio.log_lines import processes as lines
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Process, Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["LeaseDesk"]

_SHORT_OF_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def _nothing() -> None:
    """The callback of a leased session: the front itself tells its sessions when their process goes."""


class LeaseDesk:
    """``run`` is its task, which does what is due."""

    def __init__(self, pool: Pool, kernel: ErrorKernel) -> None:
        self._pool = pool
        self._kernel = kernel
        self._ledger = OwnerLedger()
        self._front_ids = itertools.count(1)
        self._senders: dict[FrontId, Callable[[FromOwner, int], None]] = {}
        self._tickets: dict[TicketId, Waiter] = {}
        self._sessions: dict[SessionId, Session] = {}
        self._processes: dict[ProcessId, Process[LiveProcess]] = {}
        """Processes that some front may know. A process stays in here until the fronts were told that it is gone."""
        self._disabled: set[ProcessId] = set()
        """Which of those processes had their slots withdrawn."""
        self._rejections: dict[GroupKey, Rejection | None] = {}
        self._fresh: set[GroupKey] = set()
        """Groups in which each request is to find a fresh process. Their slots were withdrawn when that began."""
        self._others: set[GroupKey] = set()
        """Groups with waiters in the owner's own program."""
        self._answered: deque[TicketId] = deque()
        """Tickets that the pool has answered, in order."""
        self._pool_changed = True
        self._due = math.inf
        self._sleep: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None
        pool.watcher = self
        pool.lending.unlisted = self._ledger.unlisted

    async def run(self) -> None:
        """Do what is due, until cancelled, or until the pool has failed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._look_when_the_pool_changes)
                while True:
                    with trio.CancelScope(deadline=self._due) as self._sleep:
                        await trio.sleep_forever()
                    self._sleep = None
                    self._due = math.inf
                    try:
                        self._step(self._look if self._pool_changed else tuple)
                    except Exception:  # noqa: BLE001  the pool has it, and ends the server
                        nursery.cancel_scope.cancel()
        finally:
            self._nursery = None

    async def _look_when_the_pool_changes(self) -> None:
        while True:
            changed = self._pool.changed
            self._pool_changed = True
            self._wake_by(-math.inf)
            await changed.wait()

    async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> Evidence | None:
        """See ``PoolInterface``."""
        return await self._pool.evidence(key, pid, ends=ends)

    # -- fronts: called by fronts/ ------------------------------------------------------------------------------

    def front_came(self, send: Callable[[FromOwner, int], None]) -> int:
        """A front has a channel. Returns its identity.

        :param send: sends a message, with a copy of a descriptor (-1: with none); never waits.
        """
        self._step(self._look)
        front = next(self._front_ids)
        self._senders[front] = send
        self._ledger.front_came(front)
        rejections = [VersionRejected(key, found) for key, found in self._rejections.items() if found is not None]
        self._step(lambda: [Send(front, message) for message in rejections])
        return front

    def received(self, front: int, message: FromFront) -> None:
        """A front has sent a message.

        :raises BadFrontMessage: the message cannot be true.
        """
        now, ledger = self._pool.current_time(), self._ledger
        match message:
            case Want():
                if message.group not in self._rejections:
                    self._step(self._look)  # it was added just now
                self._step(partial(ledger.want, front, message, now))
            case Return():
                self._step(partial(ledger.returned, front, message, now))
            case Pinned():
                self._step(partial(ledger.pinned, front, message, now))
            case Usage():
                self._step(partial(ledger.usage, front, message, now))
            case OobWorkWanted():
                self._step(partial(ledger.oob_work_wanted, front, message))
            case _:
                assert_never(message)

    def front_gone(self, front: int) -> None:
        """A front has ended: its slots and its waiters come back."""
        del self._senders[front]
        self._step(partial(self._ledger.front_gone, front))

    # -- the pool's watcher -------------------------------------------------------------------------------------

    def process_goes(self, id: ProcessId) -> None:
        """See ``PoolWatcher``."""
        if id in self._processes:
            self._wake_by(-math.inf)

    def somebody_waits(self, key: GroupKey) -> None:
        """See ``PoolWatcher``."""
        self._others.add(key)
        self._wake_by(-math.inf)

    # -- steps --------------------------------------------------------------------------------------------------

    def _step(self, decide: Callable[[], Iterable[OwnerDecision]]) -> None:
        """Perform the decisions of ``decide``, and what follows from them. First what the pool has answered: an answer is for the waiter that the
        queue knew, and what a front says now could make it another one's.
        """
        try:
            self._take_answers()
            self._perform(decide())
            self._settle()
        except BadFrontMessage:
            raise
        except Exception as error:
            self._pool.failed(error)
            raise

    def _settle(self) -> None:
        """Take the pool's answers, tell the fronts about processes, and send the levels that are due."""
        self._take_answers()
        self._tell_of_processes()
        self._look_at_others()
        now = self._pool.current_time()
        if self._ledger.next_deadline() <= now:
            self._perform(self._ledger.tick(now))
        self._wake_by(self._ledger.next_deadline())

    def _take_answers(self) -> None:
        while self._answered:
            self._take_answer(self._answered.popleft())

    def _look_at_others(self) -> None:
        for key in list(self._others):
            tickets = {waiter.id for waiter in self._tickets.values()}
            arrivals = self._pool.lending.waiting_besides(key, tickets) if self._pool.has(key) else ()
            self._ledger.set_others(key, arrivals)
            if not arrivals:
                self._others.discard(key)

    def _wake_by(self, due: float) -> None:
        if due < self._due:
            self._due = due
            if self._sleep is not None:
                self._sleep.deadline = due

    def _perform(self, decisions: Iterable[OwnerDecision]) -> None:
        for decision in decisions:
            match decision:
                case Send():
                    if decision.front in self._senders:
                        self._send(decision)
                case Ask():
                    self._ask(decision)
                case Renew():
                    self._pool.lending.renew(self._tickets[decision.ticket].id, decision.since)
                case Abandon():
                    self._tickets.pop(decision.ticket).leave()
                case Close():
                    self._close(self._sessions.pop(decision.session), decision)
                case Served():
                    self._pool.lending.served(decision.session, decision.count)
                case Running():
                    self._pool.lending.running(decision.session, decision.since)
                case LongLived():
                    self._sessions[decision.session].set_long_lived(_nothing, taken_over=decision.taken_over)
                case Uncounted():
                    self._sessions[decision.session].set_uncounted()
                case AskForOobWork():
                    self._pool.oob_work_wanted_by(decision.process)
                case _:
                    assert_never(decision)

    def _send(self, send: Send) -> None:
        descriptor = -1
        if isinstance(send.message, Grant):
            stream = self._sessions[send.message.slot].stream
            assert stream is not None
            descriptor = stream.fd
        self._senders[send.front](send.message, descriptor)

    # -- tickets ------------------------------------------------------------------------------------------------

    def _ask(self, ask: Ask) -> None:
        waiter = self._pool.queue_for_front(ask.group, ask.since, ask.avoided, ask.route, ask.lent)
        self._tickets[ask.ticket] = waiter
        if waiter.answered:
            self._answered.append(ask.ticket)
        else:
            waiter.on_granted = partial(self._answer, ask.ticket)

    def _answer(self, ticket: TicketId, now: float) -> None:
        """Called within a step of the pool."""
        self._answered.append(ticket)
        self._wake_by(-math.inf)

    def _take_answer(self, ticket: TicketId) -> None:
        waiter = self._tickets.pop(ticket, None)
        if waiter is None:
            return  # it was abandoned in the same step
        if waiter.error is not None:
            failed = waiter.error if isinstance(waiter.error, SpawnError) else None
            self._perform(
                self._ledger.refused(
                    ticket,
                    _reason(waiter.error),
                    failed.failure if failed else None,
                    failed.retry_after if failed else None,
                )
            )
            return
        session = waiter.take()
        try:
            session.connect_nowait()
        except ProcessUnreachable as error:
            short = isinstance(error.__cause__, OSError) and error.__cause__.errno in _SHORT_OF_DESCRIPTORS
            session.close(SessionOutcome.NOT_STARTED if short else SessionOutcome.PROCESS_FAILED)
            if short:
                lines.no_stream_for_front(group=session.process.group, pid=session.pid, reason=str(error))
                self._perform(self._ledger.refused(ticket, Reason.NO_STREAM, None, None))
            else:
                self._perform(self._ledger.unreachable(ticket))
            return
        self._sessions[session.id] = session
        process = self._pool.processes[session.process.id]
        self._processes[process.id] = process
        budget, alone = self._pool.lending.terms(session.id, process.id)
        self._perform(
            self._ledger.granted(ticket, session.id, _facts(process), budget=budget, alone=alone, reused=session.reused)
        )

    # -- sessions -----------------------------------------------------------------------------------------------

    def _close(self, session: Session, close: Close) -> None:
        # The server's time may be over, and the desk may have ended before a front that stood still: then nobody waits for what that left.
        if close.abandoned and self._nursery is not None:
            self._nursery.start_soon(self._end_abandoned, session)
            return
        if close.reusable:
            session.put_back_stream()
        session.close(close.outcome)

    async def _end_abandoned(self, session: Session) -> None:
        """A front is gone: end its stream to the process. Until the process has ended its side, too, the session stays open."""
        stream = session.stream
        try:
            with self._kernel.contain("the end of a request that a front left"):
                if stream is not None and session.worker_protocol.awaits_end:
                    try:
                        stream.send_eof()
                        while await stream.recv():
                            pass
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        pass
        finally:
            session.close(SessionOutcome.NOT_STARTED)
        self._step(tuple)

    # -- the pool -----------------------------------------------------------------------------------------------

    def _look(self) -> list[OwnerDecision]:
        """Tell the ledger what may have changed in the pool: groups, their slots, and rejected versions."""
        self._pool_changed = False
        decisions: list[OwnerDecision] = []
        for key in filter(self._pool.has, self._pool.group_tasks):
            if key not in self._rejections:
                self._rejections[key] = None
                self._ledger.add_group(key)
            lending = self._pool.lending
            self._ledger.set_slots(key, lending.slots(key), more_come=lending.more_come(key))
            fresh = self._pool.lending.wants_each_fresh(key)
            if fresh and key not in self._fresh:
                decisions += self._ledger.withdraw_all(key)
            (self._fresh.add if fresh else self._fresh.discard)(key)
            rejection = self._pool.rejection(key)
            if rejection is not self._rejections[key]:
                self._rejections[key] = rejection
                decisions += self._ledger.version_rejected(VersionRejected(key, rejection))
        return decisions

    def _tell_of_processes(self) -> None:
        for id, process in list(self._processes.items()):
            gone = id not in self._pool.processes
            if gone or process.leaving or process.detach_announced:
                overdue = tuple(sorted(process.overdue))
                goes = ProcessGoes(id, process.leaving or gone, process.drained, process.killed, overdue, gone)
                self._perform(self._ledger.process_goes(goes))
                if gone:
                    del self._processes[id]
                    self._disabled.discard(id)
            elif self._pool.lending.is_routed(id):
                self._disabled.discard(id)
            elif id not in self._disabled:
                self._disabled.add(id)
                self._perform(self._ledger.withdraw(Withdraw(id)))


def _reason(error: CheckoutError) -> Reason:
    """Why a ticket was refused (``perform.refusal`` is the way back)."""
    if isinstance(error, SpawnError):
        return Reason.SPAWN_FAILED
    if isinstance(error, RequestQueueFull):
        return Reason.QUEUE_FULL
    if isinstance(error, RequestQueueTimeout):
        return Reason.QUEUE_TIME
    if isinstance(error, ApplicationRemoved):
        return Reason.REMOVED
    return Reason.SHUT_DOWN


def _facts(process: Process[LiveProcess]) -> ProcessCame:
    live = process.live
    return ProcessCame(
        process.id,
        process.group,
        live.pid,
        live.concurrency,
        live.worker_protocol.name,
        live.websocket,
        live.address,
        process.route,
    )
