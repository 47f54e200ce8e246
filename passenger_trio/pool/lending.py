"""The pool's policy as the lease desk uses it: facts about the slots of fronts (``core/fronts``), and questions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from passenger_trio.core.commands import Command
from passenger_trio.core.fronts.front_count import MOST_WANTED
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, WaiterId
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.state import EnabledStatus

__all__ = ["Lending", "PoolWatcher"]


class PoolWatcher(Protocol):
    """Gets the pool's facts that concern fronts. Called within a step of the pool, so it must not call the pool."""

    def process_goes(self, id: ProcessId) -> None:
        """A process gets no more requests, for now or for ever, or is gone."""

    def somebody_waits(self, key: GroupKey) -> None:
        """A request of the pool's own program waits for the group."""


class Lending:
    """The pool's policy, as the lease desk sees it."""

    def __init__(
        self, policy: PoolPolicy, perform: Callable[[Iterable[Command]], None], current_time: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._perform = perform
        self._current_time = current_time
        self.unlisted: Callable[[GroupKey], int] = lambda key: 0
        """Returns how many requests wait for a group at fronts without a place in the policy's queue. (A front lists only as many as there are slots.)"""

    def served(self, session: SessionId, count: int) -> None:
        """See ``PoolPolicy.session_served``."""
        self._perform(self._policy.session_served(session, count, self._current_time()))

    def running(self, session: SessionId, since: float | None) -> None:
        """See ``PoolPolicy.session_running``."""
        self._perform(self._policy.session_running(session, since, self._current_time()))

    def terms(self, session: SessionId, process: ProcessId) -> tuple[int, bool]:
        """How many requests a session may serve (0: no limit), and whether its process is the only one of its group."""
        return self._policy.budget(session), self._policy.is_alone(process)

    def slots(self, key: GroupKey) -> int:
        """How many sessions the processes of a group can have together, up to the number that a front has to know."""
        processes = self._policy.state.groups[key].enabled.values()
        return min(MOST_WANTED, sum(process.concurrency or MOST_WANTED for process in processes))

    def more_come(self, key: GroupKey) -> bool:
        """Whether a process is being started, which brings an unknown number of slots."""
        return bool(self._policy.state.groups[key].attempts)

    def renew(self, ticket: WaiterId, since: float) -> None:
        """See ``PoolPolicy.renew``."""
        self._policy.renew(ticket, since)

    def waiting_besides(self, key: GroupKey, tickets: Collection[WaiterId]) -> tuple[float, ...]:
        """The arrivals of the group's waiters without those of these tickets; oldest first."""
        waiters = self._policy.state.groups[key].waiters
        return tuple(since for waiter, since in waiters.items() if waiter not in tickets)

    def wants_each_fresh(self, key: GroupKey) -> bool:
        """Whether each request of the group is to find processes that have served none (``always_restart``)."""
        return self._policy.state.groups[key].always_restart

    def is_routed(self, id: ProcessId) -> bool:
        """Whether routing may give sessions to the process; False also if it is gone."""
        process = self._policy.state.processes.get(id)
        return process is not None and process.status is EnabledStatus.ENABLED
