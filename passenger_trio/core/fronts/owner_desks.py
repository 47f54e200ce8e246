"""What the owner knows of each front: its leases, the waiters that it has for each group, and what it was told.

``owner_ledger`` enters the facts and makes the decisions. This module also decides which ``Recall`` says nothing new and need not be sent.
"""

from __future__ import annotations

import math
from collections import deque
from operator import ge

import attrs

from passenger_trio.core.fronts.messages import ProcessGoes, Recall, Waiting
from passenger_trio.core.fronts.owner_decisions import FrontId, TicketId
from passenger_trio.core.model import GroupKey, ProcessId, SessionId
from passenger_trio.late_classes import define

__all__ = ["Desk", "FrontAtOwner", "FrontLease", "only_counts", "says_the_same"]


@define(eq=False)
class FrontLease:
    """A slot that a front has."""

    session: SessionId
    group: GroupKey
    process: ProcessId
    number: int
    served: int = 0
    long_lived: bool = False
    uncounted: bool = False

    @property
    def is_pinned(self) -> bool:
        return self.long_lived or self.uncounted


@define(eq=False)
class Desk:
    """What one front wants of one group."""

    front: FrontId
    key: GroupKey
    # Ticket -> the waiter that it stands for; oldest first. The policy has not answered them.
    tickets: dict[TicketId, Waiting] = attrs.field(factory=dict)
    # For how long each of them waits, at most: ``Want.age``.
    age: float = math.inf
    # How many requests wait at the front, as its last Want said.
    waiting: int = 0
    # Grants of this group that no Want has seen yet: the number of each, and the arrival of the waiter that it names.
    unseen: deque[tuple[int, float]] = attrs.field(factory=deque)
    # Slots that are not pinned.
    slots: int = 0
    told: Recall | None = None
    told_at: float = -math.inf
    # Since when the only news for the front is the number of waiters elsewhere.
    counted_at: float = math.inf


@define(eq=False)
class FrontAtOwner:
    id: FrontId
    desks: dict[GroupKey, Desk]
    leases: dict[SessionId, FrontLease] = attrs.field(factory=dict)
    # Processes that it knows -> the last message to it about the process; None: it got none.
    processes: dict[ProcessId, ProcessGoes | None] = attrs.field(factory=dict)
    # Every process of which it ever had a slot.
    known: set[ProcessId] = attrs.field(factory=set)
    granted: int = 0
    returned: int = 0


def only_counts(recall: Recall, told: Recall | None) -> bool:
    """Whether the only news is the number of waiters elsewhere. Mostly those are served before the number matters."""
    return told is not None and recall.most == told.most and _waits_as_long(recall, told)


def _waits_as_long(recall: Recall, told: Recall) -> bool:
    """Whether as many listed waiters wait elsewhere as the front was told, and none for longer. (Without listed waiters the number of seen returns does not matter.)"""
    if not recall.arrivals and not told.arrivals:
        return True
    if recall.returns_seen != told.returns_seen or recall.ages != told.ages:
        return False
    if recall.arrivals == told.arrivals:
        return True
    return max(recall.ages) < math.inf and all(map(ge, recall.arrivals, told.arrivals))


def says_the_same(recall: Recall, told: Recall | None, *, slots: int = 0) -> bool:
    """Whether the front knows everything that the ``Recall`` says.

    :param slots: that the front has. Once it has one it is to know how many waiters to list: until it is told, it lists all of them, and so each one that
        comes is news for its next ``Want``.
    """
    if told is None:
        return not (recall.arrivals or recall.waiting or slots)
    return recall.waiting == told.waiting and recall.most == told.most and _waits_as_long(recall, told)
