"""What the owner's ledger decides: calls of the policy, and messages to fronts. ``pool/lease_desk.py`` performs them."""

from __future__ import annotations

from passenger_trio.core.fronts.messages import (
    FromOwner,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.late_classes import frozen

FrontId = int
"""Identity of a front: a counter, never its number or its pid (a front that is started again is another one)."""


TicketId = int


@frozen
class Ask:
    """Ask the policy for a session: ``checkout`` with the time of arrival. Answer with ``granted`` or ``refused``."""

    ticket: TicketId
    group: GroupKey
    avoided: ProcessId | None
    route: bytes
    since: float
    lent: int
    """Slots that other fronts have. If one is idle, it is recalled for the waiter, and no process need be started."""


@frozen
class Renew:
    """The ticket now stands for another request, which came at ``arrival``: tell the policy ``renew``. (If the policy has answered the ticket in the same moment, the answer is for the new request.)"""

    ticket: TicketId
    since: float


@frozen
class Abandon:
    """The ticket leaves the policy's queue. If it was answered in the same moment, close that session unused."""

    ticket: TicketId


@frozen
class Served:
    """Tell the policy ``session_served``."""

    session: SessionId
    count: int


@frozen
class Running:
    """Tell the policy ``session_running``."""

    session: SessionId
    since: float | None


@frozen
class LongLived:
    """Tell the policy ``session_long_lived``."""

    session: SessionId
    taken_over: bool


@frozen
class Uncounted:
    """Tell the policy ``session_uncounted``."""

    session: SessionId


@frozen
class Close:
    """Close the session."""

    session: SessionId
    outcome: SessionOutcome
    reusable: bool
    """Whether the owner's duplicate of the stream is at a boundary, and is kept for the next grant."""
    abandoned: bool = False
    """Whether the front is gone. If it left a request at the process, that request must end before the policy may learn of the close."""


@frozen
class Send:
    """Send a message to a front. With a ``Grant`` goes the stream."""

    front: FrontId
    message: FromOwner


@frozen
class AskForOobWork:
    """Tell the policy ``oob_work_wanted``."""

    process: ProcessId


OwnerDecision = Ask | Renew | Abandon | Served | Running | LongLived | Uncounted | AskForOobWork | Close | Send
