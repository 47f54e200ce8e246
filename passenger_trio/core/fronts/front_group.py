"""What a front knows of one group: its waiters, the waiters at other fronts, its slots, and what follows from that.

``front_ledger`` enters the facts and makes the decisions. This module computes what follows from the facts: what to tell the owner and when, when an
idle slot goes back, and how many of all slots are for the front's own waiters.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque

import attrs

from passenger_trio.core.fronts.messages import GAP, MOST_WANTED, REFRESH, SLOW, Waiting, Want
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, WaiterId
from passenger_trio.late_classes import define

__all__ = [
    "LEAST_IDLE_TIME",
    "MOST_IDLE_TIME",
    "MOST_SLACKS",
    "PAUSE",
    "TOLD",
    "FrontGroup",
    "FrontProcess",
    "Slot",
    "SlotState",
]

TOLD = 0.75
"""The part of the slack by which a request elsewhere must be older, by what this front was told. The rest allows for what it was not told yet."""
MOST_SLACKS = 4
"""If the front has no more slots than its share, a request elsewhere must be older by so many slacks."""
_STEP = 0.005
"""Seconds. A ``Want.age`` is a multiple of this, so that two of them are mostly equal."""
_MOMENT = 0.008
"""Seconds for which ``FrontGroup.postpone`` does not act again."""
PAUSE = 0.001
"""Seconds for which a busy front keeps an idle slot for its own clients while another front has waiters. Its clients mostly send their next request at once."""
_ROUNDS_UP = 0.4
"""Added before a share is rounded down. A share of 0.6 slots is one slot, because the numbers of waiters are never exactly equal. A share of 0.5
is no slot: two fronts would both keep the same one."""
_PART_OF_ROOM = 16
"""A front tells of a longer queue once it has grown by this fraction (1/16) of the room that is left. So with fewer fronts than that, the waiters that
they have not told of cannot fill the queue."""
_BUSY = 4
"""After so many requests in a row on one slot, the front has steady work for it."""
MOST_IDLE_TIME = 0.1
"""Seconds for which an idle slot stays at most. Then it goes back, so that the owner sees which processes are idle."""
LEAST_IDLE_TIME = 0.002
"""The least of these times: for slots that are recalled before they are used again."""


class SlotState(enum.Enum):
    IDLE = "idle"
    BUSY = "busy"
    PINNED = "pinned"
    """Its session does not end soon."""


# eq=False: objects with an identity, not values.
@define(eq=False)
class Slot:
    """A leased slot."""

    id: SessionId
    process: FrontProcess
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


@define(eq=False)
class FrontProcess:
    id: ProcessId
    group: FrontGroup = attrs.field(repr=False)
    route: bytes = b""
    # Requests that it serves at a time; 0: no limit.
    concurrency: int = 1
    slots: dict[SessionId, Slot] = attrs.field(factory=dict, repr=False)
    # It gets no more requests.
    going: bool = False
    # It has ended, and is forgotten with its last slot.
    gone: bool = False


@define(eq=False)
class FrontGroup:
    key: GroupKey
    # The longest queue, over all fronts; 0: no limit.
    most_queued: int
    # Each with its arrival and the process that it avoids; oldest first.
    waiters: OrderedDict[WaiterId, Waiting] = attrs.field(factory=OrderedDict)
    # How many of them do not accept every process.
    constrained: int = 0
    # The processes that this front knows of, because it has had a slot of theirs.
    processes: dict[ProcessId, FrontProcess] = attrs.field(factory=dict, repr=False)
    # In the order in which they became idle. While another front has waiters, a slot stays in here only for a moment.
    idle: dict[SessionId, Slot] = attrs.field(factory=dict)
    # The arrivals of the waiters at other fronts, oldest first, as the last Recall listed them.
    listed: tuple[float, ...] = ()
    # For each of them, how long the waiters at its front wait at most.
    ages: tuple[float, ...] = ()
    waiting_elsewhere: int = 0
    # At other fronts, as the last Recall said; and at this one. Pinned slots do not count.
    slots_elsewhere: int = 0
    slots: int = 0
    # The numbers of the returns for waiters at other fronts that no Recall has counted yet.
    returns: deque[int] = attrs.field(factory=deque)
    # How many of those slots may have come back to us, for a request that was served meanwhile.
    back: int = 0
    # The number of the last grant.
    grants_seen: int = 0
    most_wanted: int = MOST_WANTED
    told: Want | None = None
    told_at: float = -math.inf
    # How many waiters of the last Want have got no grant since; -1: a new Want is due in any case.
    known: int = 0
    # When the last waiter left, and the queue became empty.
    emptied_at: float = -math.inf
    # When a waiter last began to wait for longer than the last Want said.
    late_since: float = -math.inf
    # Seconds for which an idle slot stays.
    idle_time: float = MOST_IDLE_TIME

    @property
    def due(self) -> float:
        """When ``Want`` may go out next, if it has changed."""
        waiting = len(self.waiters)
        if not waiting:
            # Wait whether the queue stays empty: it may be so only for a moment.
            return max(self.told_at, self.emptied_at) + GAP
        listed = min(waiting, self.most_wanted)
        told = self.told
        if listed > self.known or self.constrained or told is None or self.is_longer:
            return self.told_at + GAP
        if (listed < self.known and not self.is_alone) or (told.age == math.inf and not self.stays):
            return self.told_at + REFRESH
        # The last Want is true until its oldest waiter has waited for told.age.
        return max(self.told_at + GAP, min(self.told_at + SLOW, self.oldest + told.age), self.late_since + GAP)

    def postpone(self, now: float) -> bool:
        """Put ``due`` off by a ``GAP``, once, if a waiter has waited for longer than the last ``Want`` said. Returns whether it did.

        A front that did not run for a while finds slots that became ready meanwhile, and serves that waiter at once.
        """
        told = self.told
        if not self.waiters or told is None or now < self.oldest + told.age or now < self.late_since + _MOMENT:
            return False
        self.late_since = now
        return True

    @property
    def oldest(self) -> float:
        """When the oldest waiter came. There must be a waiter."""
        return next(iter(self.waiters.values())).arrival

    @property
    def is_alone(self) -> bool:
        """Whether no other front has waiters or slots, by what the owner has told. Then a list that is too long draws no slot away from anybody, and the next
        request makes it true again: the number of a busy front's waiters changes with each request.
        """
        return not self.waiting_elsewhere and not self.slots_elsewhere

    @property
    def stays(self) -> bool:
        """Whether the oldest waiter is still the oldest one of the last ``Want``."""
        told = self.told
        return told is not None and bool(told.waiters) and told.waiters[0].arrival == self.oldest

    @property
    def is_longer(self) -> bool:
        """Whether the queue is so much longer than in the last ``Want`` that the limit on the queue might be exceeded."""
        if not self.most_queued or self.told is None:
            return False
        waiting = len(self.waiters)
        room = max(0, self.most_queued - waiting - self.waiting_elsewhere)
        return waiting - self.told.waiting > room // _PART_OF_ROOM

    @property
    def free_elsewhere(self) -> float:
        """How many slots may be idle at the owner: what the processes serve at a time, without what the fronts have. So many of the waiters do not wait in
        vain, and do not count in the queue. If the front knows of no process yet, there may be one; if somebody waits elsewhere, there is none.
        """
        if self.waiting_elsewhere:
            return 0
        if not self.processes:
            return 1
        capacity = sum(process.concurrency or math.inf for process in self.processes.values() if not process.going)
        return max(0, capacity - self.slots - self.slots_elsewhere)

    def idle_slot_used(self) -> None:
        """An idle slot was used again: idle slots stay for longer."""
        if self.idle_time < MOST_IDLE_TIME:
            self.idle_time = min(MOST_IDLE_TIME, 2 * self.idle_time)

    def idle_slot_recalled(self) -> None:
        """An idle slot was recalled before it was used: the next ones stay for less time. A slot that is already at the owner reaches another front
        after two messages, instead of four.
        """
        self.idle_time = max(LEAST_IDLE_TIME, self.idle_time / 4)

    def leaves(self, slot: Slot, slack: float) -> float:
        """When an idle slot goes back. While another front has waiters, it stays only if the front is busy, and only for ``PAUSE``."""
        if not self.is_wanted_elsewhere:
            return slot.since + self.idle_time
        comes = slot.since + PAUSE
        was_busy = slot.served >= _BUSY and slot.since < self.emptied_at + REFRESH
        return comes if was_busy and comes - self.oldest_elsewhere(slot.since) <= TOLD * slack else slot.since

    @property
    def share(self) -> int:
        """How many of all slots are for the waiters of this front. (If two fronts have as many waiters each and there is one slot, neither has a share:
        the slot alternates between them.)
        """
        waiting = len(self.waiters)
        slots = self.slots + self.slots_elsewhere + max(0, len(self.returns) - self.back)
        return int(slots * waiting / (waiting + self.waiting_elsewhere) + _ROUNDS_UP)

    @property
    def is_wanted_elsewhere(self) -> bool:
        """Whether another front has a waiter for which this front has not sent back a slot."""
        return max(0, len(self.returns) - self.back) < len(self.listed)

    def oldest_elsewhere(self, now: float) -> float:
        """The earliest time at which the oldest of those waiters may have come. There must be one (``is_wanted_elsewhere``)."""
        served = max(0, len(self.returns) - self.back)
        return max(self.listed[served], now - self.ages[served])

    def age(self, now: float, slack: float) -> float:
        """How long the oldest waiter may wait before the owner must be told again (``Want.age``)."""
        if not self.waiters or self.stays:
            return math.inf
        generous = math.floor(TOLD * slack / _STEP)
        return _STEP * max(generous, math.ceil((now - self.oldest + (1 - TOLD) * slack) / _STEP))

    def want(self, age: float) -> Want:
        listed: list[Waiting] = []
        # A constrained waiter may wait for a busy process while other processes serve the waiters behind it. So it does not use up a place in the list.
        left = self.most_wanted
        for waiting in self.waiters.values():
            if not left or len(listed) == MOST_WANTED:
                break
            listed.append(waiting)
            left -= not waiting.is_constrained
        return Want(self.key, tuple(listed), len(self.waiters), self.grants_seen, age)
