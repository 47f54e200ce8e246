"""The owner's side of the leases: which front has which slots and which waiters, and what each front is told.

The owner ledger stands beside ``PoolPolicy`` and decides nothing about capacity. The ledger asks the policy for a session for each waiter that a front lists.
Such a waiter is a *ticket* in the policy's queue, with the arrival that the front told. A slot is one session of the policy. The ledger knows the
messages and the time that each call passes; it must not know a socket or a clock.

Each call returns decisions. The shell performs them in order. Some of them are facts for the policy, which answers by ``granted`` or ``refused``. The
shell passes on those answers after it has performed the last decision of the call, and before its next call: an answer is for the waiter that its ticket
had when the policy chose it, and a ``Want`` gives tickets to other waiters.

Laws:

* A slot is in one place: leased to one front, until that front returns it or is gone. A grant counts from the step that decides it.
* The tickets of a front are the waiters of its last ``Want``, minus one for each grant that the ``Want`` had not seen: the waiter that the grant names, or, if
  that one is gone, the oldest waiter that accepts every process. (Otherwise a constrained waiter would lose its ticket to each grant of a younger one.)
* A ticket says how many slots other fronts have. An idle slot there comes back soon, so it is no reason for one more process
  (``waitlist.SPAWN_DELAY``). With a low load most slots are such idle ones.
* A front is told the oldest tickets of the other fronts that accept every process, at most one for each slot that it has or waits for.
* The ledger checks each value of a front before it uses the value. A value that cannot be true raises ``BadFrontMessage`` and changes nothing:
  the shell ends that front.
* When a front is gone, all of its tickets and slots come back in one step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from heapq import merge
from itertools import islice

import attrs

from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.messages import (
    GAP,
    MOST_WANTED,
    REFRESH,
    Grant,
    OobWorkWanted,
    Pinned,
    ProcessCame,
    ProcessGoes,
    Recall,
    Refused,
    Return,
    Usage,
    VersionRejected,
    Waiting,
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
from passenger_trio.core.fronts.owner_desks import Desk, FrontAtOwner, FrontLease, only_counts, says_the_same
from passenger_trio.core.model import GroupKey, SessionId, SessionOutcome, SpawnFailure
from passenger_trio.errors import BadFrontMessage

__all__ = [
    "OwnerLedger",
]


_ROUNDING = 1e-6
"""Seconds. A front makes arrivals unique, so one may be slightly later than the time of its message."""
_FEW = 4
"""A front may always list so many waiters, even if fewer slots can come: some are served before the next ``Want``, and the owner must know the next ones."""
_LEAST_LISTED = 32
"""A front may list this many waiters while a process may come, which may bring as many slots. Otherwise it lists as many as the group has slots, or ``_FEW``, because each
listed waiter costs time in each ``Want``."""


class OwnerLedger:
    """The ledger of all fronts."""

    def __init__(self) -> None:
        self._fronts: dict[FrontId, FrontAtOwner] = {}
        # How many waiters a front may list, for each group.
        self._groups: dict[GroupKey, int] = {}
        # The arrivals of waiters at no front: requests of the owner's own program.
        self._others: dict[GroupKey, tuple[float, ...]] = {}
        # Every ticket without an answer -> the desk that it belongs to.
        self._tickets: dict[TicketId, Desk] = {}
        self._last_ticket = 0
        # Groups for which a Recall may be due, and when to look.
        self._changed: dict[GroupKey, float] = {}

    # --- what there is --------------------------------------------------------------------------------------------

    def add_group(self, key: GroupKey) -> None:
        self._groups[key] = _LEAST_LISTED
        for front in self._fronts.values():
            front.desks[key] = Desk(front.id, key)

    def set_slots(self, key: GroupKey, slots: int, *, more_come: bool) -> None:
        """The group has this many slots at all fronts together; ``MOST_WANTED`` if there is no limit.

        :param more_come: a process is being started.
        """
        listed = max(_FEW, min(slots, MOST_WANTED))
        if more_come or not slots:
            listed = max(_LEAST_LISTED, listed)
        if self._groups[key] != listed:
            self._groups[key] = listed
            self._changed[key] = -math.inf

    def set_others(self, key: GroupKey, arrivals: tuple[float, ...]) -> None:
        """Set the requests that wait for the group at no front.

        :param arrivals: when they came, oldest first.
        """
        if self._others.get(key, ()) != arrivals:
            self._others[key] = arrivals
            self._changed[key] = -math.inf

    def front_came(self, front: FrontId) -> None:
        self._fronts[front] = FrontAtOwner(front, {key: Desk(front, key) for key in self._groups})
        self._changed.update(dict.fromkeys(self._groups, -math.inf))

    def front_gone(self, front: FrontId) -> list[OwnerDecision]:
        """The front has ended, or the shell ends it for a message that cannot be true."""
        gone = self._fronts.pop(front)
        decisions: list[OwnerDecision] = []
        for desk in gone.desks.values():
            self._changed[desk.key] = -math.inf
            decisions += self._abandon(desk, list(desk.tickets))
        for lease in gone.leases.values():
            decisions.append(Close(lease.session, SessionOutcome.NOT_STARTED, reusable=False, abandoned=True))
        return decisions

    def leases(self, front: FrontId) -> int:
        """How many slots the front has."""
        return len(self._fronts[front].leases)

    def waiting(self, key: GroupKey) -> int:
        """How many requests wait at all fronts, by their last ``Want``."""
        return sum(front.desks[key].waiting for front in self._fronts.values())

    def unlisted(self, key: GroupKey) -> int:
        """How many of those requests have no ticket."""
        desks = [front.desks[key] for front in self._fronts.values() if key in front.desks]
        return sum(max(0, desk.waiting - len(desk.unseen) - len(desk.tickets)) for desk in desks)

    # --- what fronts say ------------------------------------------------------------------------------------------

    def want(self, front: FrontId, want: Want, now: float) -> list[OwnerDecision]:
        """:raises BadFrontMessage: the message cannot be true."""
        desk = self._fronts[front].desks.get(want.group)
        if desk is None:
            raise BadFrontMessage(f"it wants processes of {want.group}, which is not served")
        arrivals = [waiting.arrival for waiting in want.waiters]
        if len(arrivals) > MOST_WANTED or want.waiting < len(arrivals) or arrivals != sorted(arrivals):
            raise BadFrontMessage(f"its list of {len(arrivals)} of {want.waiting} waiters is not in order, or too long")
        if not all(0 <= arrival <= now + _ROUNDING for arrival in arrivals):
            raise BadFrontMessage("a request waits at it since a time that has not come")
        if not 0 <= want.grants_seen <= self._fronts[front].granted:
            raise BadFrontMessage(f"it has seen grant {want.grants_seen}, which was not made")
        desk.waiting, desk.age = want.waiting, want.age
        while desk.unseen and desk.unseen[0][0] <= want.grants_seen:
            desk.unseen.popleft()
        self._changed[want.group] = -math.inf
        decisions = self._set_tickets(desk, self._unserved(desk, want.waiters))
        if any(isinstance(ask, Ask) and (ask.avoided is not None or ask.route) for ask in decisions):
            decisions += self.withdraw_all(want.group)
        return decisions

    def returned(self, front: FrontId, message: Return, now: float) -> list[OwnerDecision]:
        """:raises BadFrontMessage: the message cannot be true."""
        of = self._fronts[front]
        lease = of.leases.get(message.slot)
        if lease is None or message.number != of.returned + 1:
            raise BadFrontMessage(f"it returns slot {message.slot} as number {message.number}")
        if message.served < lease.served or (message.reusable and message.outcome is not SessionOutcome.NOT_STARTED):
            raise BadFrontMessage(f"it says of slot {message.slot} what cannot be: {message.served} requests served")
        del of.leases[message.slot]
        of.returned = message.number
        of.desks[lease.group].slots -= not lease.is_pinned
        self._changed[lease.group] = -math.inf
        decisions: list[OwnerDecision] = []
        if message.served > lease.served:
            decisions.append(Served(lease.session, message.served - lease.served))
        return [*decisions, Close(lease.session, message.outcome, message.reusable and not lease.is_pinned)]

    def pinned(self, front: FrontId, message: Pinned, now: float) -> list[OwnerDecision]:
        """:raises BadFrontMessage: the message cannot be true."""
        of = self._fronts[front]
        lease = of.leases.get(message.slot)
        if lease is None:
            raise BadFrontMessage(f"it pins slot {message.slot}, which it does not have")
        decisions: list[OwnerDecision] = []
        desk = of.desks[lease.group]
        desk.slots -= not lease.is_pinned
        if message.long_lived and not lease.long_lived:
            lease.long_lived = True
            decisions.append(LongLived(lease.session, message.taken_over))
        if message.uncounted and not lease.uncounted:
            lease.uncounted = True
            decisions.append(Uncounted(lease.session))
        desk.slots += not lease.is_pinned
        self._changed[lease.group] = -math.inf
        return decisions

    def usage(self, front: FrontId, usage: Usage, now: float) -> list[OwnerDecision]:
        """The use of the front's slots. A slot that the front has returned meanwhile is ignored.

        :raises BadFrontMessage: the message cannot be true.
        """
        leases = self._fronts[front].leases
        for use in usage.slots:
            lease = leases.get(use.slot)
            if lease is not None and use.served < lease.served:
                raise BadFrontMessage(f"slot {use.slot} has served {use.served} requests, and {lease.served} before")
            if use.since is not None and not 0 <= use.since <= now:
                raise BadFrontMessage("a request runs since a time that has not come")
        decisions: list[OwnerDecision] = []
        for use in usage.slots:
            lease = leases.get(use.slot)
            if lease is None or lease.is_pinned:
                continue
            if use.served > lease.served:
                decisions.append(Served(lease.session, use.served - lease.served))
                lease.served = use.served
            decisions.append(Running(lease.session, use.since))
        return decisions

    def oob_work_wanted(self, front: FrontId, wanted: OobWorkWanted) -> list[OwnerDecision]:
        """A process asks for out-of-band work. It may be gone by now.

        :raises BadFrontMessage: the front never had this process.
        """
        if wanted.process not in self._fronts[front].known:
            raise BadFrontMessage(f"process {wanted.process} asks for out-of-band work, which the front never had")
        return [AskForOobWork(wanted.process)]

    # --- what the policy answers ----------------------------------------------------------------------------------

    def granted(
        self, ticket: TicketId, session: SessionId, process: ProcessCame, *, budget: int, alone: bool, reused: bool
    ) -> list[OwnerDecision]:
        """The policy has granted a ticket a session.

        :param reused: the stream that goes with it has carried requests before.
        """
        waiting = self._tickets[ticket].tickets[ticket]
        desk = self._answered(ticket)
        front = self._fronts[desk.front]
        front.granted += 1
        desk.unseen.append((front.granted, waiting.arrival))
        desk.slots += 1
        front.leases[session] = FrontLease(session, desk.key, process.process, front.granted)
        decisions: list[OwnerDecision] = []
        if process.process not in front.processes:
            front.processes[process.process] = None
            front.known.add(process.process)
            decisions.append(Send(front.id, process))
        if any(
            waiting.is_constrained
            for other in self._fronts.values()
            for waiting in other.desks[desk.key].tickets.values()
        ):
            budget = 1
        grant = Grant(front.granted, session, process.process, budget, alone, reused, waiting.arrival)
        return [*decisions, Send(front.id, grant)]

    def unreachable(self, ticket: TicketId) -> list[OwnerDecision]:
        """The process that a ticket was granted accepts no stream: ask again, with the same arrival."""
        desk = self._tickets.pop(ticket)
        waiting = desk.tickets.pop(ticket)
        return self._set_tickets(desk, tuple(sorted((*desk.tickets.values(), waiting), key=_arrival)))

    def refused(
        self, ticket: TicketId, reason: Reason, failure: SpawnFailure | None, retry_after: float | None
    ) -> list[OwnerDecision]:
        """The policy has refused a ticket. A group that cannot be served refuses all of its waiters."""
        waiting = self._tickets[ticket].tickets[ticket]
        desk = self._answered(ticket)
        if reason is not Reason.SPAWN_FAILED and reason is not Reason.SHUT_DOWN:
            return [Send(desk.front, Refused(desk.key, reason, (waiting.arrival,), failure, retry_after))]
        # One message for all of them.
        others = self._abandon(desk, list(desk.tickets))
        return [*others, Send(desk.front, Refused(desk.key, reason, None, failure, retry_after))]

    def process_goes(self, goes: ProcessGoes) -> list[OwnerDecision]:
        """A process gets no more requests. Tell each front that knows the process, once for each change."""
        decisions: list[OwnerDecision] = []
        for front in self._fronts.values():
            if goes.process in front.processes and front.processes[goes.process] != goes:
                front.processes[goes.process] = goes
                decisions.append(Send(front.id, goes))
                if goes.gone:
                    del front.processes[goes.process]
        return decisions

    def withdraw(self, withdraw: Withdraw) -> list[OwnerDecision]:
        """A process gets no requests for now: the fronts give back its slots."""
        return [Send(front.id, withdraw) for front in self._fronts.values() if withdraw.process in front.processes]

    def version_rejected(self, message: VersionRejected) -> list[OwnerDecision]:
        """The last restart of a group has failed; or, after a failed one, a restart has succeeded."""
        return [Send(front, message) for front in self._fronts]

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[OwnerDecision]:
        """Send the levels that are due. Harmless at any time."""
        decisions: list[OwnerDecision] = []
        for key in [key for key, due in self._changed.items() if due <= now]:
            later = math.inf
            for front in self._fronts.values():
                desk = front.desks[key]
                recall = self._recall(front, desk)
                if says_the_same(recall, desk.told, slots=desk.slots):
                    desk.counted_at = math.inf
                    continue
                due = desk.told_at + GAP
                if only_counts(recall, desk.told):
                    desk.counted_at = min(desk.counted_at, now)
                    due = max(due, desk.counted_at + REFRESH)
                if due > now:
                    later = min(later, due)
                    continue
                desk.told, desk.told_at, desk.counted_at = recall, now, math.inf
                decisions.append(Send(front.id, attrs.evolve(recall, sent=now)))
            if later < math.inf:
                self._changed[key] = later
            else:
                del self._changed[key]
        return decisions

    def next_deadline(self) -> float:
        """When to call ``tick`` next; ``math.inf``: only after another call."""
        return min(self._changed.values(), default=math.inf)

    # --- steps ----------------------------------------------------------------------------------------------------

    def _answered(self, ticket: TicketId) -> Desk:
        desk = self._tickets.pop(ticket)
        del desk.tickets[ticket]
        self._changed[desk.key] = -math.inf
        return desk

    def _abandon(self, desk: Desk, tickets: list[TicketId]) -> list[OwnerDecision]:
        for ticket in tickets:
            del self._tickets[ticket], desk.tickets[ticket]
        return [Abandon(ticket) for ticket in tickets]

    def _unserved(self, desk: Desk, waiters: tuple[Waiting, ...]) -> tuple[Waiting, ...]:
        """The waiters for which no grant is under way."""
        if not desk.unseen:
            return waiters
        named = {arrival for _, arrival in desk.unseen}
        left = [waiting for waiting in waiters if waiting.arrival not in named]
        for _ in range(len(desk.unseen) - (len(waiters) - len(left))):
            # The waiter that the grant names is gone: the front serves another one on the slot.
            if left:
                left.remove(next((waiting for waiting in left if not waiting.is_constrained), left[0]))
        return tuple(left)

    def _set_tickets(self, desk: Desk, wanted: tuple[Waiting, ...]) -> list[OwnerDecision]:
        """Make the tickets of a front equal to the waiters that it lists. A waiter that stays keeps its ticket; a new one gets the ticket of a waiter that is gone, if there is one."""
        there: dict[Waiting, list[TicketId]] = {}
        for ticket, waiting in desk.tickets.items():
            there.setdefault(waiting, []).append(ticket)
        kept = [(tickets.pop(0) if (tickets := there.get(waiting)) else 0, waiting) for waiting in wanted]
        void = [ticket for tickets in there.values() for ticket in tickets]
        spare = deque(ticket for ticket in void if not desk.tickets[ticket].is_constrained)
        asked: list[OwnerDecision] = []
        lent = -1
        tickets_now: dict[TicketId, Waiting] = {}
        for ticket, waiting in kept:
            if not ticket and spare and not waiting.is_constrained:
                ticket = spare.popleft()
                void.remove(ticket)
                asked.append(Renew(ticket, waiting.arrival))
            elif not ticket:
                if lent < 0:
                    lent = self._slots_elsewhere(desk)
                self._last_ticket = ticket = self._last_ticket + 1
                self._tickets[ticket] = desk
                asked.append(Ask(ticket, desk.key, waiting.avoided, waiting.route, waiting.arrival, lent))
            tickets_now[ticket] = waiting
        for ticket in void:
            del self._tickets[ticket]
        desk.tickets = tickets_now
        return [*(Abandon(ticket) for ticket in void), *asked]

    def withdraw_all(self, key: GroupKey) -> list[OwnerDecision]:
        """Ask for all slots of a group back, once: because each request is to find a new process from now on, or because a constrained waiter has come.

        No recall lists a constrained waiter, because the wrong slots would come back for it, again and again. Instead each slot comes back once, and is granted for
        one request at a time while that waiter waits. The policy knows which slots it accepts.
        """
        return [
            Send(front.id, Withdraw(process))
            for front in self._fronts.values()
            for process in dict.fromkeys(lease.process for lease in front.leases.values() if lease.group == key)
        ]

    def _recall(self, front: FrontAtOwner, desk: Desk) -> Recall:
        # One for each slot that the front has or waits for: when a slot comes, it must know which waiters elsewhere are older.
        most = min(desk.slots + len(desk.tickets), MOST_WANTED)
        listed = tuple(islice(self._waiting_elsewhere(front, desk.key), most)) if most else ()
        waiting = sum(other.desks[desk.key].waiting for other in self._fronts.values() if other is not front)
        waiting += len(self._others.get(desk.key, ()))
        arrivals, ages = zip(*listed, strict=True) if listed else ((), ())
        slots = self._slots_elsewhere(desk)
        return Recall(desk.key, arrivals, waiting, front.returned, self._groups[desk.key], ages, slots)

    def _slots_elsewhere(self, desk: Desk) -> int:
        return sum(front.desks[desk.key].slots for front in self._fronts.values() if front.id != desk.front)

    def _waiting_elsewhere(self, front: FrontAtOwner, key: GroupKey) -> Iterator[tuple[float, float]]:
        """(Arrival, ``Want.age``) of each waiter at another front, oldest first."""
        return merge(
            ((arrival, math.inf) for arrival in self._others.get(key, ())),
            *(
                [
                    (waiting.arrival, other.desks[key].age)
                    for waiting in other.desks[key].tickets.values()
                    if not waiting.is_constrained
                ]
                for other in self._fronts.values()
                if other is not front
            ),
        )


def _arrival(waiting: Waiting) -> float:
    return waiting.arrival
