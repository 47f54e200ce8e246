"""What a front and the owner of the pool tell each other about leases: frozen values, without their encoding.

A front *leases* slots. A slot is an open stream to a process, and to the policy one session: the owner grants it, the front uses it for one request
after another and returns it. The channel keeps the order of messages, loses none and repeats none, until one side dies.

Two kinds of messages:

* *Levels* (``Want``, ``Recall``, ``Usage``, ``ProcessGoes``, ``VersionRejected``) replace the last one about the same subject. A sender may leave out
  all but the newest; a receiver needs only the newest. ``Want`` and ``Recall`` go out at most once in ``GAP``. A ``Want`` that asks for no more than
  the last one mostly goes out once in ``SLOW``. A ``Want`` that has changed goes out before each ``Return``. Otherwise the slot might come back for a
  request that was served meanwhile.
* *Events* (``ProcessCame``, ``Grant``, ``Return``, ``Pinned``, ``OobWorkWanted``, ``Refused``, ``Withdraw``) each count, and go out at once. Grants and returns are numbered
  from 1 upwards, for each front. ``Want.grants_seen`` and ``Recall.returns_seen`` say which of them the sender of a level had received: the receiver
  discounts the others, which were under way when the level was made.

The waiters of a busy front change with each request. So a ``Want`` also says how long its oldest waiter will wait at most (``age``). While that is
true, no new ``Want`` is needed: fronts whose own slots suffice send nearly no messages.

Times are monotonic seconds, which all processes of a machine share. The owner judges each value that a front sends (``owner_ledger``).
A front trusts the owner.
"""

from __future__ import annotations

import math

import attrs

from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.front_count import MOST_WANTED
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome, SpawnFailure
from passenger_trio.core.state import Rejection
from passenger_trio.late_classes import frozen

__all__ = [
    "GAP",
    "MOST_WANTED",
    "REFRESH",
    "SLOW",
    "FromFront",
    "FromOwner",
    "Grant",
    "OobWorkWanted",
    "Pinned",
    "ProcessCame",
    "ProcessGoes",
    "Recall",
    "Refused",
    "Return",
    "SlotUse",
    "Usage",
    "VersionRejected",
    "Waiting",
    "Want",
    "Withdraw",
]

GAP = 0.001
"""Seconds between two levels about the same subject, at least."""

REFRESH = 0.005
"""Seconds until a ``Want`` goes out that lists fewer waiters than the last one, or whose oldest waiter has changed."""

SLOW = 0.050
"""Seconds until a ``Want`` goes out that lists as many waiters as the last one, but other waiters: the front's own slots serve them."""


# --- front to owner ---------------------------------------------------------------------------------------------------


@frozen
class Waiting:
    """A request that waits at a front."""

    arrival: float
    avoided: ProcessId | None = None
    """A process that left this request unanswered: another one is to serve it, if there is another."""
    route: bytes = b""
    """The route of the process that the request's sticky session belongs to (``ProcessCame.route``): that process is to serve it, if it is in routing. Empty: any process."""

    @property
    def is_constrained(self) -> bool:
        """Whether the request does not accept every process."""
        return self.avoided is not None or bool(self.route)


@frozen
class Want:
    """Level, for each group: the waiters of this front."""

    group: GroupKey
    waiters: tuple[Waiting, ...]
    """The oldest ones, oldest first. At most ``Recall.most`` (before the first ``Recall``: ``MOST_WANTED``)."""
    waiting: int
    """All waiters, also those that are not listed."""
    grants_seen: int
    """The number of the last grant that the front had received; 0: none."""
    age: float = math.inf
    """Seconds. Until the next ``Want``, no waiter of this front waits for longer, although ``waiters`` grows old: each waiter that is served is followed by a newer one. ``inf``: the listed waiters stay."""


@frozen
class Return:
    """Event: a slot goes back. Its descriptor is closed at the front, unless ``outcome`` says why the stream ended."""

    number: int
    slot: SessionId
    served: int
    """Requests since the grant that ended with the stream at a boundary. If ``outcome`` describes the last one, it is not counted."""
    outcome: SessionOutcome
    """NOT_STARTED: the slot was idle. Otherwise how the last request ended, which has ended the stream, too."""
    reusable: bool
    """The stream that came with the grant is at a boundary, and may be granted again. Only with NOT_STARTED."""


@frozen
class Pinned:
    """Event: a session that does not end soon (a WebSocket, a relay) has the slot. It has no time limit and cannot be recalled; it comes back with ``Return``.

    The event may come again for the same slot, with another field set. A field that was set stays set.
    """

    slot: SessionId
    long_lived: bool
    """The session is exempt from ``max_request_time``."""
    taken_over: bool
    """The application has taken over the stream, which no longer occupies one of the worker's places."""
    uncounted: bool
    """The session no longer counts in the concurrency of its process."""


@frozen
class OobWorkWanted:
    """Event: the process has asked for out-of-band work, at the end of a request."""

    process: ProcessId


@frozen
class SlotUse:
    slot: SessionId
    served: int
    """Like ``Return.served``, so far."""
    since: float | None
    """When the running request began. None: idle."""


@frozen
class Usage:
    """Level: what the leased slots do. For ``max_request_time``, ``max_requests`` and ``status``; at most once in ``USAGE_GAP`` (front_ledger)."""

    slots: tuple[SlotUse, ...]


# --- owner to front ---------------------------------------------------------------------------------------------------


@frozen
class ProcessCame:
    """Event: facts about a process, before its first grant to this front."""

    process: ProcessId
    group: GroupKey
    pid: int
    concurrency: int
    """0: no limit."""
    protocol: str
    """The name of its protocol: "session" or "http"."""
    websocket: bool
    """Whether it takes sessions of WebSockets."""
    address: str
    """Where it listens, as a URL (``unix:/path`` or ``tcp://127.0.0.1:port``): for a second try on a new stream (R30)."""
    route: bytes
    """The name of the process in the cookies of sticky sessions."""


@frozen
class Grant:
    """Event, with one descriptor: the stream. The front has the slot until it sends a ``Return`` for it."""

    number: int
    slot: SessionId
    process: ProcessId
    budget: int
    """After so many requests the slot goes back; 0: no limit."""
    alone: bool
    """No other process of the group serves, so the front may use the slot even for a request that avoids the process."""
    reused: bool
    """The stream has carried requests before."""
    arrival: float
    """When the waiter came that the policy has answered. If that waiter is constrained, the slot is for it."""


@frozen
class Recall:
    """Level, for each group: the waiters of the other fronts. Idle slots go back at once, one for each of ``arrivals``; busy ones by the front's rule
    (``front_ledger``).
    """

    group: GroupKey
    arrivals: tuple[float, ...]
    """The oldest waiters elsewhere, oldest first: at most one for each slot that the front has or waits for."""
    waiting: int
    """All waiters elsewhere. The limit on the queue counts them as well."""
    returns_seen: int
    """The number of the last return that the owner had received; 0: none."""
    most: int
    """How many waiters ``Want`` may list: one for each slot of the group."""
    ages: tuple[float, ...] = attrs.field(
        default=attrs.Factory(lambda self: (math.inf,) * len(self.arrivals), takes_self=True)
    )
    """For each of ``arrivals``, the ``Want.age`` of its front: no waiter there has waited for longer. So the oldest waiter there came at the arrival, or so many seconds ago, whichever is later."""
    slots: int = attrs.field(default=0, eq=False)
    """Slots that other fronts had when the message was sent. Not a part of the level."""
    sent: float = attrs.field(default=0.0, eq=False)
    """When the message was sent: so the front knows how long a message takes. Not a part of the level."""


@frozen
class Refused:
    """Event: waiters get an error (as ``commands.Refuse``)."""

    group: GroupKey
    reason: Reason
    arrivals: tuple[float, ...] | None
    """The arrivals of the waiters; None: all waiters of the group."""
    failure: SpawnFailure | None = None
    retry_after: float | None = None


@frozen
class ProcessGoes:
    """Level, for each process: it gets no more requests. The front returns its idle slots at once and busy ones after their requests.

    The front tells its pinned sessions of that process.
    """

    process: ProcessId
    leaving: bool
    """The process was retired, or is gone; False: it is only detached."""
    drained: bool = False
    """The time in which the process may drain is over."""
    killed: bool = False
    """The process got SIGKILL."""
    overdue: tuple[SessionId, ...] = ()
    """Slots whose requests lasted too long, for which it was killed."""
    gone: bool = False
    """The process has ended. This is the last message about it."""


@frozen
class Withdraw:
    """Event: the front returns all slots of the process that it has now: idle ones at once, busy ones after their requests. The owner may grant it others later.

    For a process that is disabled, or that is about to do its out-of-band work.
    """

    process: ProcessId


@frozen
class VersionRejected:
    """Level, for each group: the last restart, if it failed; None: it did not fail."""

    group: GroupKey
    rejection: Rejection | None


FromFront = Want | Return | Pinned | Usage | OobWorkWanted
FromOwner = ProcessCame | Grant | Recall | Refused | ProcessGoes | Withdraw | VersionRejected
