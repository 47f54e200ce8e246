"""A front's side of its leases: who waits here, which slots are here, and what each slot does next.

The front ledger knows the messages of ``messages`` and the time that each call passes. It must not know a socket, a process
of the operating system or a clock. Each call is one step and returns decisions; the shell performs them in order, before the next call.

Laws:

* A slot that becomes free serves the oldest request that waits here, unless one that waits elsewhere is older by more than
  the slack: then the slot goes back. So requests are served in order of arrival, within the slack. (Without slack, two busy
  fronts would hand a slot to each other for each request.)
* The slack is ``SLACK``, or ``SLACK_OF_DELAY`` times what a message takes, up to ``MOST_SLACK``. On a machine whose processors are taken by others a message takes 10 ms: with a
  fixed slack each slot was nearly always under way, so requests became few, so each was older than the next by more than the slack, and it stayed like that.
* An idle slot goes back at once while somebody waits elsewhere, or if it came for one request only; otherwise after ``LINGER``, so that the owner sees which
  processes are idle. It lingers for less, down to ``LEAST_LINGER``, where idle slots are recalled before they are used again: a slot that is at the owner already
  comes with two messages, and not with four.
* A slot goes back when its stream has ended, its budget is used up, or its process goes. A held slot goes back when its session ends.
* Waiters are told as a level. So no demand is ever lost, and no demand that is over draws slots for longer than one level takes.
* A level that names as many waiters as there are now is true enough for ``REFRESH``: its arrivals are not younger than those of now, so nobody elsewhere is
  served before its turn. So a front whose own slots serve its waiters, one after another, sends nearly nothing.
* The limit on the queue counts all waiters: those here, and those that the owner has told of.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque

import attrs

from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.messages import (
    GAP,
    MOST_WANTED,
    REFRESH,
    FromFront,
    Grant,
    Held,
    ProcessCame,
    ProcessGoes,
    Recall,
    Refused,
    Return,
    SlotUse,
    Usage,
    Waiting,
    Want,
    Withdraw,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome, WaiterId
from passenger_trio.records import define, frozen

__all__ = [
    "LEAST_LINGER",
    "LINGER",
    "MOST_SLACK",
    "SLACK",
    "SLACK_OF_DELAY",
    "USAGE_GAP",
    "FrontDecision",
    "FrontLedger",
    "Send",
    "Slot",
    "SlotState",
    "Start",
    "TurnAway",
]

SLACK = 0.020
"""Seconds by which a request elsewhere must be older to be served first, at least.

What a front knows of the others is up to ``REFRESH`` old, and a front that shares its core with others is away from it for as long at a time: with 10 ms two
busy fronts handed over a slot for each fifteenth request, and each time two fronts waited for it.
"""
SLACK_OF_DELAY = 8.0
"""A slot is under way for two messages: so at least three quarters of its time are for requests."""
MOST_SLACK = 0.5
LINGER = 0.1
"""Seconds for which an idle slot stays."""
LEAST_LINGER = 0.002
USAGE_GAP = 0.25
"""Seconds between two ``Usage``, at least."""

_NOT_STARTED = SessionOutcome.NOT_STARTED


class SlotState(enum.Enum):
    IDLE = "idle"
    BUSY = "busy"
    HELD = "held"
    """Its session does not end soon."""


# eq=False: objects with an identity, not values.
@define(eq=False)
class Slot:
    """A leased slot."""

    id: SessionId
    process: _Process
    # After so many requests it goes back; 0: no limit.
    budget: int
    alone: bool
    # When it became idle, or its request began.
    since: float
    state: SlotState = SlotState.BUSY
    served: int = 0
    # It goes back after its request.
    withdrawn: bool = False
    # What the owner was told last: requests served, and since when one runs.
    told: tuple[int, float | None] = (0, None)

    @property
    def linger(self) -> float:
        """Seconds for which it stays when it is idle."""
        return self.process.group.linger


@define(eq=False)
class _Process:
    id: ProcessId
    group: _Group = attrs.field(repr=False)
    route: bytes = b""
    slots: dict[SessionId, Slot] = attrs.field(factory=dict, repr=False)
    # It gets no more requests.
    going: bool = False
    # It has ended, and is forgotten with its last slot.
    gone: bool = False


@define(eq=False)
class _Group:
    key: GroupKey
    # The longest queue, over all fronts; 0: no limit.
    most_queued: int
    # Since when each waits, and whom it avoids; oldest first.
    waiters: OrderedDict[WaiterId, Waiting] = attrs.field(factory=OrderedDict)
    # Those of them that do not take every process.
    choosy: int = 0
    # In the order in which they became idle. Empty while somebody waits elsewhere.
    idle: dict[SessionId, Slot] = attrs.field(factory=dict)
    # Who waits elsewhere, oldest first, as the last Recall listed them.
    listed: tuple[float, ...] = ()
    waiting_elsewhere: int = 0
    # The numbers of the returns that were made for somebody elsewhere and that no Recall has known of.
    returns: deque[int] = attrs.field(factory=deque)
    # How many of those slots may have come back to us, for a request that was served meanwhile.
    back: int = 0
    # The number of the last grant.
    grants_seen: int = 0
    most_wanted: int = MOST_WANTED
    told: Want | None = None
    told_at: float = -math.inf
    # How many it lists whom no grant has come for since; -1: more is to be told than who waits.
    known: int = 0
    # When the last waiter went.
    emptied_at: float = -math.inf
    # Seconds for which an idle slot stays.
    linger: float = LINGER

    @property
    def due(self) -> float:
        """When ``Want`` may go out next, if it has changed."""
        waiting = len(self.waiters)
        if not waiting:
            # Not for a moment only.
            return max(self.told_at, self.emptied_at) + GAP
        if min(waiting, self.most_wanted) > self.known or self.choosy or self.is_longer:
            return self.told_at + GAP
        return self.told_at + REFRESH

    @property
    def is_longer(self) -> bool:
        """Whether the queue is longer than others count."""
        return self.most_queued > 0 and self.told is not None and len(self.waiters) > self.told.waiting

    @property
    def oldest_elsewhere(self) -> float | None:
        """Since when the oldest waits for whom no slot was sent back."""
        served = max(0, len(self.returns) - self.back)
        return self.listed[served] if served < len(self.listed) else None

    def want(self) -> Want:
        listed: list[Waiting] = []
        for waiting in self.waiters.values():
            if len(listed) == self.most_wanted:
                break
            listed.append(waiting)
        return Want(self.key, tuple(listed), len(self.waiters), self.grants_seen)


@frozen
class Start:
    """The waiter's request begins, on the slot."""

    waiter: WaiterId
    slot: Slot


@frozen
class TurnAway:
    """The waiter gets an error."""

    waiter: WaiterId
    refused: Refused


@frozen
class Send:
    """Send a message to the owner. Before a ``Return``, close the stream of its slot."""

    message: FromFront


FrontDecision = Start | TurnAway | Send


class FrontLedger:
    """One front's ledger."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, _Group] = {}
        self._processes: dict[ProcessId, _Process] = {}
        self.slots: dict[SessionId, Slot] = {}
        """Every slot that is here. Read-only for others."""
        self._waiters: dict[WaiterId, _Group] = {}
        self._returned = 0
        # Seconds that a message from the owner takes, smoothed.
        self._delay = 0.0
        # When the last waiter came.
        self._arrival = -math.inf
        # Groups whose Want may have changed.
        self._changed: dict[GroupKey, _Group] = {}
        # Some slot's use may have changed.
        self._used = False
        self._usage_at = -math.inf

    def add_group(self, key: GroupKey, most_queued: int) -> None:
        """Serve a group, or change its limit.

        :param most_queued: the longest queue of the group, over all fronts; 0: no limit.
        """
        self._group(key).most_queued = most_queued

    def _group(self, key: GroupKey) -> _Group:
        """What the owner tells of a group may come before it is served here: others serve it already."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, 0)
        return group

    def waiting(self, key: GroupKey) -> int:
        """How many requests wait here."""
        return len(self._groups[key].waiters)

    @property
    def slack(self) -> float:
        """Seconds by which a request elsewhere must be older to be served first, now."""
        return max(SLACK, min(MOST_SLACK, SLACK_OF_DELAY * self._delay))

    # --- requests -------------------------------------------------------------------------------------------------

    def take_idle(self, key: GroupKey, now: float) -> Slot | None:
        """An idle slot for a request that has just come. None: call ``queue``."""
        group = self._groups[key]
        if not group.idle:
            return None
        # The one that was used last: the others become old enough to go back.
        _, slot = group.idle.popitem()
        if group.linger < LINGER:
            group.linger = min(LINGER, 2 * group.linger)
        return self._begin(slot, now)

    def queue(
        self, waiter: WaiterId, key: GroupKey, now: float, avoided: ProcessId | None = None, route: bytes = b""
    ) -> list[FrontDecision]:
        """A request comes: start it on an idle slot, refuse it, or let it wait.

        :param avoided: a process that left this request unanswered.
        :param route: of the process of its sticky session. The owner knows whether that one serves.

        If it waits, ``tick`` when ``next_level`` says so, which may be now.
        """
        group = self._groups[key]
        # No two of a front are equal: a grant names its waiter by that.
        self._arrival = arrival = now if now > self._arrival else math.nextafter(self._arrival, math.inf)
        waiting = Waiting(arrival, avoided, route)
        for slot in reversed(group.idle.values()):
            if _may_serve(slot, waiting):
                del group.idle[slot.id]
                return [Start(waiter, self._begin(slot, now))]
        if 0 < group.most_queued <= len(group.waiters) + group.waiting_elsewhere:
            return [TurnAway(waiter, Refused(key, Reason.QUEUE_FULL, (now,)))]
        group.waiters[waiter] = waiting
        group.choosy += waiting.is_choosy
        self._waiters[waiter] = group
        self._changed[key] = group
        return []

    def leave(self, waiter: WaiterId, now: float) -> None:
        """The waiter gives up. Nothing happens if it was answered."""
        group = self._waiters.get(waiter)
        if group is not None:
            self._forget(group, waiter, now)

    def ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> list[FrontDecision]:
        """The slot's request, or its held session, has ended.

        :param kept: its stream is at a boundary, and the process keeps it.
        """
        group = slot.process.group
        self._used = True
        if not kept or slot.state is SlotState.HELD:
            return [self._give_back(slot, outcome, reusable=False)]
        # What did not start is no request that was served.
        slot.served += outcome is not _NOT_STARTED
        slot.state = SlotState.IDLE
        slot.since = now
        if slot.process.going or slot.withdrawn or 0 < slot.budget <= slot.served:
            return [self._give_back(slot)]
        return self._next(group, slot, now)

    def held(self, slot: Slot, *, long_lived: bool = False, taken_over: bool = False, uncounted: bool = False) -> Send:
        """The slot's session does not end soon."""
        slot.state = SlotState.HELD
        return Send(Held(slot.id, long_lived, taken_over, uncounted))

    # --- the owner ------------------------------------------------------------------------------------------------

    def process_came(self, came: ProcessCame) -> None:
        self._processes[came.process] = _Process(came.process, self._groups[came.group], came.route)

    def granted(self, grant: Grant, now: float) -> list[FrontDecision]:
        process = self._processes[grant.process]
        group = process.group
        slot = Slot(grant.slot, process, grant.budget, grant.alone, now, SlotState.IDLE)
        self.slots[slot.id] = process.slots[slot.id] = slot
        group.grants_seen = grant.number
        group.known -= 1
        group.back = min(group.back + 1, len(group.returns))
        self._changed[group.key] = group
        # The owner's queue has decided for that waiter, and knows more than the last Recall. Else slots would go back and forth.
        for waiter, waiting in group.waiters.items():
            if waiting.arrival == grant.arrival:
                self._forget(group, waiter, now)
                return [Start(waiter, self._begin(slot, now))]
        return self._next(group, slot, now)

    def recalled(self, recall: Recall, now: float) -> list[FrontDecision]:
        self._delay += (max(0.0, now - recall.sent) - self._delay) / 8 if recall.sent else 0.0
        group = self._group(recall.group)
        group.most_wanted = max(1, min(recall.most, MOST_WANTED))
        group.waiting_elsewhere = recall.waiting
        while group.returns and group.returns[0] <= recall.returns_seen:
            group.returns.popleft()
        group.back = min(group.back, len(group.returns))
        group.listed = recall.arrivals
        self._changed[group.key] = group
        decisions: list[FrontDecision] = []
        while group.idle and group.oldest_elsewhere is not None:
            group.linger = max(LEAST_LINGER, group.linger / 4)
            slot = next(iter(group.idle.values()))
            decisions += self._hand_over(group, slot, now)
        return decisions

    def refused(self, refused: Refused, now: float) -> list[FrontDecision]:
        group = self._groups[refused.group]
        if refused.arrivals is None:
            chosen = list(group.waiters)
        else:
            left = list(refused.arrivals)
            chosen = []
            for waiter, waiting in group.waiters.items():
                if waiting.arrival in left:
                    left.remove(waiting.arrival)
                    chosen.append(waiter)
        for waiter in chosen:
            self._forget(group, waiter, now)
        # The owner has forgotten them: even if nobody is left to ask for, it must hear what is true now.
        group.known = -1
        self._changed[group.key] = group
        return [TurnAway(waiter, refused) for waiter in chosen]

    def process_goes(self, goes: ProcessGoes, now: float) -> list[FrontDecision]:
        process = self._processes.get(goes.process)
        if process is None:
            return []
        process.going = True
        decisions = self._empty(process)
        process.gone = goes.gone
        if goes.gone and not process.slots:
            del self._processes[goes.process]
        return decisions

    def withdrawn(self, withdraw: Withdraw) -> list[FrontDecision]:
        process = self._processes.get(withdraw.process)
        if process is None:
            return []
        decisions = self._empty(process)
        for slot in process.slots.values():
            slot.withdrawn = True
        return decisions

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[FrontDecision]:
        """Send the levels that are due, and the slots that were idle for long enough. Harmless at any time."""
        decisions: list[FrontDecision] = []
        for group in self._groups.values():
            while group.idle:
                slot = next(iter(group.idle.values()))
                if slot.since + group.linger > now:
                    break
                decisions.append(self._give_back(slot))
        for group in list(self._changed.values()):
            if group.due <= now:
                decisions += self._tell(group, now)
        if self._used and self._usage_at + USAGE_GAP <= now:
            decisions += self.tell_usage(now)
        return decisions

    def tell_usage(self, now: float) -> list[FrontDecision]:
        """Send what the slots do, if that has changed: an operator asks, and is to see the truth."""
        usage = self._usage()
        if usage is None:
            return []
        self._usage_at = now
        return [Send(usage)]

    def next_deadline(self) -> float:
        """When to call ``tick`` next; ``math.inf``: only after another call."""
        due = self.next_level()
        for group in self._groups.values():
            if group.idle:
                due = min(due, next(iter(group.idle.values())).since + group.linger)
        if self._used:
            due = min(due, self._usage_at + USAGE_GAP)
        return due

    def next_level(self) -> float:
        """When a ``Want`` is due: the part of ``next_deadline`` that is told to the moment."""
        due = math.inf
        for group in self._changed.values():
            due = min(due, group.due)
        return due

    # --- steps ----------------------------------------------------------------------------------------------------

    def _empty(self, process: _Process) -> list[FrontDecision]:
        """Give back the idle slots of a process."""
        return [self._give_back(slot) for slot in list(process.slots.values()) if slot.state is SlotState.IDLE]

    def _begin(self, slot: Slot, now: float) -> Slot:
        slot.state = SlotState.BUSY
        slot.since = now
        self._used = True
        return slot

    def _forget(self, group: _Group, waiter: WaiterId, now: float) -> None:
        waiting = group.waiters.pop(waiter)
        if waiting.is_choosy:
            group.choosy -= 1
            group.known = -1
        del self._waiters[waiter]
        if not group.waiters:
            group.emptied_at = now
        self._changed[group.key] = group

    def _next(self, group: _Group, slot: Slot, now: float) -> list[FrontDecision]:
        """What an idle slot does next."""
        waiter = self._oldest(group, slot)
        elsewhere = group.oldest_elsewhere
        if waiter is not None and (elsewhere is None or group.waiters[waiter].arrival - elsewhere <= self.slack):
            self._forget(group, waiter, now)
            return [Start(waiter, self._begin(slot, now))]
        if elsewhere is not None:
            return self._hand_over(group, slot, now)
        if slot.budget == 1:
            # It came for one who is gone. It may be for one request because somebody elsewhere does not take every process: no recall lists that one.
            return [self._give_back(slot)]
        group.idle[slot.id] = slot
        return []

    def _oldest(self, group: _Group, slot: Slot) -> WaiterId | None:
        """The oldest waiter that the slot may serve."""
        if not group.choosy:
            return next(iter(group.waiters), None)
        return next((waiter for waiter, waiting in group.waiters.items() if _may_serve(slot, waiting)), None)

    def _hand_over(self, group: _Group, slot: Slot, now: float) -> list[FrontDecision]:
        """Send a slot back for the oldest waiter elsewhere. Before it goes who waits here: else the slot might come back for one that was served meanwhile."""
        told = self._tell(group, now)
        sent = self._give_back(slot)
        group.returns.append(self._returned)
        return [*told, sent]

    def _tell(self, group: _Group, now: float) -> list[FrontDecision]:
        """Who waits here, if that has changed."""
        self._changed.pop(group.key, None)
        want = group.want()
        told = group.told
        group.known = len(want.waiters)
        if want == told or not (want.waiters or (told is not None and told.waiters)):
            return []
        group.told, group.told_at = want, now
        return [Send(want)]

    def _give_back(self, slot: Slot, outcome: SessionOutcome = _NOT_STARTED, *, reusable: bool = True) -> Send:
        process = slot.process
        process.group.idle.pop(slot.id, None)
        del process.slots[slot.id], self.slots[slot.id]
        if process.gone and not process.slots:
            del self._processes[process.id]
        self._returned += 1
        return Send(Return(self._returned, slot.id, slot.served, outcome, reusable))

    def _usage(self) -> Usage | None:
        """What the slots do, if that has changed since it was last told. Held ones do not change."""
        self._used = False
        changed = False
        uses = []
        for slot in self.slots.values():
            if slot.state is SlotState.HELD:
                continue
            since = slot.since if slot.state is SlotState.BUSY else None
            told = (slot.served, since)
            changed = changed or told != slot.told
            slot.told = told
            uses.append(SlotUse(slot.id, *told))
        return Usage(tuple(uses)) if changed else None


def _may_serve(slot: Slot, waiting: Waiting) -> bool:
    """Whether the request takes this process."""
    if waiting.avoided == slot.process.id and not slot.alone:
        return False
    return not waiting.route or waiting.route == slot.process.route
