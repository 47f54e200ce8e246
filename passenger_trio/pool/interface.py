"""The pool's interface: all that ``server/`` uses of a pool.

Two classes implement it: ``pool.Pool`` if connections are served in the pool's own process, and
``fronts.leased_pool.LeasedPool`` if they are served in a front. ``server/`` does not know which.

Waiters and sessions are the same classes on both sides. They report to their owner through
``session.SessionOwner`` and ``waiter.WaiterQueue``.
"""

from __future__ import annotations

from typing import Protocol

from passenger_trio.core.evidence import Evidence
from passenger_trio.core.model import GroupKey, ProcessId
from passenger_trio.core.state import Rejection
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter

__all__ = ["PoolInterface"]


class PoolInterface(Protocol):
    """Lends processes to requests."""

    def checkout_or_queue(
        self, key: GroupKey, now: float, avoided: ProcessId | None = None, sticky_route: bytes = b""
    ) -> Session | Waiter:
        """Borrow a process that is free now, or enter the group's queue. The returned waiter may
        already be answered.

        :param now: the time, in monotonic seconds, from a caller that has just read it.
        :param avoided: a process that left the request unanswered.
        :param sticky_route: ``Process.route`` of the process of the request's sticky session; empty: it has none.
        """

    def rejection(self, key: GroupKey) -> Rejection | None:
        """The last restart of a group, if it was given up."""

    async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> Evidence | None:
        """Return what is known of a request that failed, for a page that explains it; None: nothing. Takes at most 1.2 seconds.

        :param pid: of the process that had the request; 0: none had it.
        :param ends: whether that process seems to be ending, so that its exit is worth waiting for.
        """
