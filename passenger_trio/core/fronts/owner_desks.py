"""What the owner knows of each front: its leases, what it wants of each group, and what it was told of it.

``owner_ledger`` enters the facts and makes the decisions. Here is also what need not be told: a ``Recall`` that says nothing new.
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
    # Ticket -> what it is for; oldest first. The policy has not answered them.
    tickets: dict[TicketId, Waiting] = attrs.field(factory=dict)
    # For how long each of them waits, at most: ``Want.age``.
    age: float = math.inf
    # All that wait at the front, as it said last.
    waiting: int = 0
    # Grants of this group that no Want has known of: the number of each, and when the waiter came that it names.
    unseen: deque[tuple[int, float]] = attrs.field(factory=deque)
    # Slots that are not pinned.
    slots: int = 0
    told: Recall | None = None
    told_at: float = -math.inf
    # Since when it is to be told of nothing but the number of those that wait elsewhere.
    counted_at: float = math.inf


@define(eq=False)
class FrontAtOwner:
    id: FrontId
    desks: dict[GroupKey, Desk]
    leases: dict[SessionId, FrontLease] = attrs.field(factory=dict)
    # Processes that it knows, with the last that it was told of each; None: nothing.
    processes: dict[ProcessId, ProcessGoes | None] = attrs.field(factory=dict)
    # Every process that it ever had.
    known: set[ProcessId] = attrs.field(factory=set)
    granted: int = 0
    returned: int = 0


def only_counts(recall: Recall, told: Recall | None) -> bool:
    """Whether it is only the number of those that wait elsewhere that a front is to hear. Mostly they are served before it matters."""
    return told is not None and recall.most == told.most and _waits_as_long(recall, told)


def _waits_as_long(recall: Recall, told: Recall) -> bool:
    """Whether as many wait elsewhere as the front was told, and for no longer. While nobody waits it does not matter how many returns are known."""
    if not recall.arrivals and not told.arrivals:
        return True
    if recall.returns_seen != told.returns_seen or recall.ages != told.ages:
        return False
    if recall.arrivals == told.arrivals:
        return True
    return max(recall.ages) < math.inf and all(map(ge, recall.arrivals, told.arrivals))


def says_the_same(recall: Recall, told: Recall | None) -> bool:
    """Whether a front need not be told."""
    if told is None:
        return not recall.arrivals and not recall.waiting
    return recall.waiting == told.waiting and recall.most == told.most and _waits_as_long(recall, told)
