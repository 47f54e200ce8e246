"""A front's side of its leases: its waiters, its slots, and what each slot does next.

The front ledger knows the messages of ``messages`` and the time that each call passes. It must not know a socket, a process
of the operating system or a clock. Each call is one step and returns decisions; the shell performs them in order, before the next call.

Laws:

* A slot that becomes free serves the oldest request that waits at this front, unless a request at another front is older by
  more than the slack: then the slot goes back. So requests are served in order of arrival, within the slack. (Without slack,
  two busy fronts would hand a slot to each other for each request.)
* A front that has no more slots than its share (by the numbers of waiters here and elsewhere) keeps them for ``MOST_SLACKS`` slacks. Without this law,
  all slots went to the front that had waited for the slack, and all came back after the next slack: each fifteenth request changed fronts, and half
  of the clients waited meanwhile.
* The slack is ``SLACK``, or ``SLACK_OF_DELAY`` times what a message takes, up to ``MOST_SLACK``. On a busy machine a message takes 10 ms. With a fixed
  slack, each slot was nearly always under way there. So few requests were served, so each was older than the next by more than the slack, and the
  slots kept moving.
* An idle slot goes back at once while another front has waiters (after ``PAUSE`` if this front is busy), or if it came for one request only;
  otherwise after ``FrontGroup.idle_time``.
* A slot goes back when its stream has ended, its budget is used up, or its process goes. A pinned slot goes back when its session ends.
* A front tells the owner its waiters as a level. So no demand is ever lost, and a demand that is over draws slots only until the next level.
* A level that lists as many waiters as there are now stays true while the oldest has waited for no longer than ``Want.age``. That age is generous (three
  quarters of the slack), because it makes no other front give a slot back. So a front whose own slots serve its waiters sends nearly no messages.
* The limit on the queue counts all waiters: those at this front, and those elsewhere that the owner has told of. But a client whose
  connection has come from another front within ``_COUNTED`` may have been counted there, and waits here now.
"""

from __future__ import annotations

import math
from collections import deque

from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.front_group import (
    MOST_SLACKS,
    TOLD,
    FrontGroup,
    FrontProcess,
    Slot,
    SlotState,
)
from passenger_trio.core.fronts.messages import (
    MOST_WANTED,
    SLOW,
    FromFront,
    Grant,
    Pinned,
    ProcessCame,
    ProcessGoes,
    Recall,
    Refused,
    Return,
    SlotUse,
    Usage,
    Waiting,
    Withdraw,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome, WaiterId
from passenger_trio.late_classes import frozen

__all__ = [
    "MOST_SLACK",
    "SLACK",
    "SLACK_OF_DELAY",
    "USAGE_GAP",
    "FrontDecision",
    "FrontLedger",
    "Send",
    "Start",
    "TurnAway",
]

SLACK = 0.020
"""The least slack: seconds by which a request elsewhere must be older to be served first.

A front that shares its core with other programs does not run for 5 ms at a time. With a slack of 10 ms, two busy fronts handed over a slot for each
fifteenth request, and two fronts waited for it each time.
"""
SLACK_OF_DELAY = 8.0
"""A slot that changes fronts is under way for two messages. With a slack of eight messages, slots serve for at least three quarters of their time."""
MOST_SLACK = 0.5
_COUNTED = 2 * SLOW
"""Seconds after which a request that has ended at another front is in no count of waiters any more."""
USAGE_GAP = 0.25
"""The least seconds between two ``Usage``."""


_NOT_STARTED = SessionOutcome.NOT_STARTED


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
        self._groups: dict[GroupKey, FrontGroup] = {}
        self._processes: dict[ProcessId, FrontProcess] = {}
        self.slots: dict[SessionId, Slot] = {}
        """Every slot that this front has. Read-only for others."""
        self._waiters: dict[WaiterId, FrontGroup] = {}
        # When each of the connections came from other fronts that came within ``_COUNTED``.
        self._moved_in: deque[float] = deque()
        self._returned = 0
        # Seconds that a message from the owner takes: a moving average.
        self._delay = 0.0
        # When the last waiter came.
        self._arrival = -math.inf
        # Groups whose Want may have changed.
        self._changed: dict[GroupKey, FrontGroup] = {}
        # Some slot's use may have changed.
        self._used = False
        self._usage_at = -math.inf

    def add_group(self, key: GroupKey, most_queued: int) -> None:
        """Serve a group, or change its limit.

        :param most_queued: the longest queue of the group, over all fronts; 0: no limit.
        """
        self._group(key).most_queued = most_queued

    def _group(self, key: GroupKey) -> FrontGroup:
        """The group. The owner may send messages about a group before this front serves it, because other fronts serve it already."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = FrontGroup(key, 0)
        return group

    def waiting(self, key: GroupKey) -> int:
        """How many requests wait here."""
        return len(self._groups[key].waiters)

    @property
    def slack(self) -> float:
        """Seconds by which a request elsewhere must be older to be served first, by the current delay of messages."""
        return max(SLACK, min(MOST_SLACK, SLACK_OF_DELAY * self._delay))

    # --- requests -------------------------------------------------------------------------------------------------

    def take_idle(self, key: GroupKey, now: float) -> Slot | None:
        """Use an idle slot for a request that has just come. None: call ``queue``."""
        group = self._groups[key]
        if not group.idle:
            return None
        # The slot that was used last: so the others become old enough to go back.
        _, slot = group.idle.popitem()
        group.idle_slot_used()
        return self._begin(slot, now)

    def queue(
        self, waiter: WaiterId, key: GroupKey, now: float, avoided: ProcessId | None = None, route: bytes = b""
    ) -> list[FrontDecision]:
        """A request comes: start it on an idle slot, refuse it, or let it wait.

        :param avoided: a process that left this request unanswered.
        :param route: the route of the process of its sticky session. The owner knows whether that process serves.

        If the request waits, call ``tick`` when ``next_level`` says so, which may be now.
        """
        group = self._groups[key]
        # Each arrival of a front is unique: a grant names its waiter by the arrival.
        self._arrival = arrival = now if now > self._arrival else math.nextafter(self._arrival, math.inf)
        waiting = Waiting(arrival, avoided, route)
        for slot in reversed(group.idle.values()):
            if _may_serve(slot, waiting):
                del group.idle[slot.id]
                return [Start(waiter, self._begin(slot, now))]
        in_vain = len(group.waiters) + group.waiting_elsewhere
        most = group.most_queued
        if 0 < most <= in_vain and most <= in_vain - group.free_elsewhere - self._counted_elsewhere(group, now):
            return [TurnAway(waiter, Refused(key, Reason.QUEUE_FULL, (now,)))]
        group.waiters[waiter] = waiting
        group.constrained += waiting.is_constrained
        self._waiters[waiter] = group
        self._changed[key] = group
        return []

    def moved_in(self, now: float) -> None:
        """A connection has come from another front."""
        self._moved_in.append(now)
        self._forget_moves(now)

    def _forget_moves(self, now: float) -> None:
        moved = self._moved_in
        while moved and moved[0] <= now - _COUNTED:
            moved.popleft()

    def _counted_elsewhere(self, group: FrontGroup, now: float) -> int:
        """How many of those who wait elsewhere, by what the owner has told, may be here now."""
        self._forget_moves(now)
        return min(len(self._moved_in), group.waiting_elsewhere)

    def leave(self, waiter: WaiterId, now: float) -> None:
        """The waiter gives up. Nothing happens if it was answered."""
        group = self._waiters.get(waiter)
        if group is not None:
            self._forget(group, waiter, now)

    def ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> list[FrontDecision]:
        """The slot's request, or its pinned session, has ended.

        :param kept: whether the stream is at a boundary, and the process keeps it open.
        """
        group = slot.process.group
        self._used = True
        if not kept or slot.state is SlotState.PINNED:
            return [self._give_back(slot, outcome, reusable=False)]
        # A request that did not start was not served.
        slot.served += outcome is not _NOT_STARTED
        slot.state = SlotState.IDLE
        slot.since = now
        if slot.process.going or slot.withdrawn or 0 < slot.budget <= slot.served:
            # Tell the waiters before the slot goes: the owner may know only as many of them as there were slots, and would grant the slot to a younger one.
            told = self._tell(group, now) if group.waiters else []
            return [*told, self._give_back(slot)]
        return self._next(group, slot, now)

    def pinned(
        self, slot: Slot, *, long_lived: bool = False, taken_over: bool = False, uncounted: bool = False
    ) -> Send:
        """The slot's session does not end soon."""
        slot.process.group.slots -= slot.state is not SlotState.PINNED
        slot.state = SlotState.PINNED
        return Send(Pinned(slot.id, long_lived, taken_over, uncounted))

    # --- the owner ------------------------------------------------------------------------------------------------

    def process_came(self, came: ProcessCame) -> None:
        group = self._groups[came.group]
        process = FrontProcess(came.process, group, came.route, came.concurrency)
        self._processes[came.process] = group.processes[came.process] = process

    def granted(self, grant: Grant, now: float) -> list[FrontDecision]:
        process = self._processes[grant.process]
        group = process.group
        slot = Slot(grant.slot, process, grant.budget, grant.alone, now, SlotState.IDLE)
        self.slots[slot.id] = process.slots[slot.id] = slot
        group.slots += 1
        group.grants_seen = grant.number
        group.known -= 1
        group.back = min(group.back + 1, len(group.returns))
        self._changed[group.key] = group
        # The owner's queue has chosen this waiter, and knows more than the last Recall. If the front chose again, slots would go back and forth.
        for waiter, waiting in group.waiters.items():
            if waiting.arrival == grant.arrival:
                self._forget(group, waiter, now)
                return [Start(waiter, self._begin(slot, now))]
        return self._next(group, slot, now)

    def recalled(self, recall: Recall, now: float) -> list[FrontDecision]:
        self._delay += (max(0.0, now - recall.sent) - self._delay) / 8 if recall.sent else 0.0
        group = self._group(recall.group)
        group.most_wanted = max(1, min(recall.most, MOST_WANTED))
        group.waiting_elsewhere, group.slots_elsewhere = recall.waiting, recall.slots
        while group.returns and group.returns[0] <= recall.returns_seen:
            group.returns.popleft()
        group.back = min(group.back, len(group.returns))
        group.listed, group.ages = recall.arrivals, recall.ages
        self._changed[group.key] = group
        decisions: list[FrontDecision] = []
        while group.idle and group.is_wanted_elsewhere:
            slot = next(iter(group.idle.values()))
            if group.leaves(slot, self.slack) > now:
                break
            group.idle_slot_recalled()
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
        # The owner has forgotten their tickets. So it needs a new Want, even an empty one.
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
            self._forget_process(process)
        return decisions

    def _forget_process(self, process: FrontProcess) -> None:
        del self._processes[process.id]
        del process.group.processes[process.id]

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
                if group.leaves(slot, self.slack) > now:
                    break
                if group.is_wanted_elsewhere:
                    decisions += self._hand_over(group, slot, now)
                else:
                    decisions.append(self._give_back(slot))
        for group in list(self._changed.values()):
            if group.due <= now and not group.postpone(now):
                decisions += self._tell(group, now)
        if self._used and self._usage_at + USAGE_GAP <= now:
            decisions += self.tell_usage(now)
        return decisions

    def tell_usage(self, now: float) -> list[FrontDecision]:
        """Send the use of the slots at once, if it has changed, because an operator asks for it."""
        usage = self._usage()
        if usage is None:
            return []
        self._usage_at = now
        return [Send(usage)]

    def tell_levels(self, now: float) -> list[FrontDecision]:
        """Send the waiters and the use of the slots at once, if they have changed, because an operator asks for them."""
        decisions = [decision for group in list(self._changed.values()) for decision in self._tell(group, now)]
        return decisions + self.tell_usage(now)

    def next_deadline(self) -> float:
        """When to call ``tick`` next; ``math.inf``: only after another call."""
        due = self.next_level()
        for group in self._groups.values():
            if group.idle:
                due = min(due, group.leaves(next(iter(group.idle.values())), self.slack))
        if self._used:
            due = min(due, self._usage_at + USAGE_GAP)
        return due

    def next_return(self, key: GroupKey) -> float:
        """When the next idle slot of the group goes back; ``math.inf``: it has none."""
        group = self._group(key)
        return next((group.leaves(slot, self.slack) for slot in group.idle.values()), math.inf)

    def next_level(self) -> float:
        """When a ``Want`` is due: the part of ``next_deadline`` that must not be late."""
        due = math.inf
        for group in self._changed.values():
            due = min(due, group.due)
        return due

    # --- steps ----------------------------------------------------------------------------------------------------

    def _empty(self, process: FrontProcess) -> list[FrontDecision]:
        """Give back the idle slots of a process."""
        return [self._give_back(slot) for slot in list(process.slots.values()) if slot.state is SlotState.IDLE]

    def _begin(self, slot: Slot, now: float) -> Slot:
        slot.state = SlotState.BUSY
        slot.since = now
        self._used = True
        return slot

    def _forget(self, group: FrontGroup, waiter: WaiterId, now: float) -> None:
        waiting = group.waiters.pop(waiter)
        if waiting.is_constrained:
            group.constrained -= 1
            group.known = -1
        del self._waiters[waiter]
        if not group.waiters:
            group.emptied_at = now
        self._changed[group.key] = group

    def _next(self, group: FrontGroup, slot: Slot, now: float) -> list[FrontDecision]:
        """What an idle slot does next."""
        waiter = self._oldest(group, slot)
        wanted = group.is_wanted_elsewhere
        if waiter is not None and (not wanted or self._is_in_turn(group, waiter, now)):
            self._forget(group, waiter, now)
            return [Start(waiter, self._begin(slot, now))]
        if wanted and (waiter is not None or group.leaves(slot, self.slack) <= now):
            return self._hand_over(group, slot, now)
        if slot.budget == 1:
            # The slot came for a waiter that is gone. Its budget may be 1 because of a constrained waiter at another front, which no recall lists: so it goes back at once.
            return [self._give_back(slot)]
        group.idle[slot.id] = slot
        return []

    def _is_in_turn(self, group: FrontGroup, waiter: WaiterId, now: float) -> bool:
        """Whether no waiter elsewhere is older by more than the slack. Compares with ``TOLD`` of it, because that waiter may be older than its front has told."""
        slack = TOLD * self.slack
        older = group.waiters[waiter].arrival - group.oldest_elsewhere(now)
        return older <= slack or (older <= MOST_SLACKS * slack and group.slots <= group.share)

    def _oldest(self, group: FrontGroup, slot: Slot) -> WaiterId | None:
        """The oldest waiter that the slot may serve."""
        if not group.constrained:
            return next(iter(group.waiters), None)
        return next((waiter for waiter, waiting in group.waiters.items() if _may_serve(slot, waiting)), None)

    def _hand_over(self, group: FrontGroup, slot: Slot, now: float) -> list[FrontDecision]:
        """Send a slot back for the oldest waiter elsewhere. Tell the waiters here first: otherwise the slot might come back for one that was served meanwhile."""
        told = self._tell(group, now)
        sent = self._give_back(slot)
        group.returns.append(self._returned)
        return [*told, sent]

    def _tell(self, group: FrontGroup, now: float) -> list[FrontDecision]:
        """Tell the owner which waiters are here, if that has changed."""
        want = group.want(group.age(now, self.slack))
        told = group.told
        group.known = len(want.waiters)
        if want.age == math.inf:
            self._changed.pop(group.key, None)
        if want == told or not (want.waiters or (told is not None and told.waiters)):
            return []
        group.told, group.told_at = want, now
        return [Send(want)]

    def _give_back(self, slot: Slot, outcome: SessionOutcome = _NOT_STARTED, *, reusable: bool = True) -> Send:
        process = slot.process
        process.group.idle.pop(slot.id, None)
        process.group.slots -= slot.state is not SlotState.PINNED
        del process.slots[slot.id], self.slots[slot.id]
        if process.gone and not process.slots:
            self._forget_process(process)
        self._returned += 1
        return Send(Return(self._returned, slot.id, slot.served, outcome, reusable))

    def _usage(self) -> Usage | None:
        """The use of the slots, if it has changed since the owner was last told. Pinned slots do not change."""
        self._used = False
        changed = False
        uses = []
        for slot in self.slots.values():
            if slot.state is SlotState.PINNED:
                continue
            since = slot.since if slot.state is SlotState.BUSY else None
            told = (slot.served, since)
            changed = changed or told != slot.told
            slot.told = told
            uses.append(SlotUse(slot.id, *told))
        return Usage(tuple(uses)) if changed else None


def _may_serve(slot: Slot, waiting: Waiting) -> bool:
    """Whether the request accepts the process of this slot."""
    if waiting.avoided == slot.process.id and not slot.alone:
        return False
    return not waiting.route or waiting.route == slot.process.route
