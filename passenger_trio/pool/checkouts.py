"""The pool's step, and the facts of requests: they borrow processes, wait for them, and give them back.

For each kind of fact (something that has happened, told to the policy) there is one method, here or in ``process_facts`` and
``operator_orders``. The method calls
the policy and performs its commands in one step, so no other task can run in between. A waiter is answered exactly
once, with a ``Session`` or an error (``waiter``). ``_policy`` is a ``RecordedPolicy``: each of its methods notes the call, then calls the policy's
method of that name (``core/recorder``).

Law: when the policy, or performing its commands, raises, the caller gets the exception, and the pool ends with it (KE1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from passenger_trio.core.commands import Command, Grant
from passenger_trio.core.model import (
    GroupKey,
    ProcessId,
    SessionOutcome,
    WaiterId,
)
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.recorder import RecordedPolicy
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.log_lines import server as lines
from passenger_trio.pool.clock import Clock
from passenger_trio.pool.effects import Effects
from passenger_trio.pool.perform import perform
from passenger_trio.pool.session import Process, Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["Checkouts"]


_MANY = 64
"""With more active groups than this, the deadline is not read after each fact."""


class Checkouts(Effects):
    """What ``server/`` uses of the pool: ARCHITECTURE.md, the pool's interface."""

    def __init__(self, limits: PoolLimits, kernel: ErrorKernel) -> None:
        super().__init__(kernel, RecordedPolicy(limits, on_failure=self.failed))
        self._kernel.on_logged = self._fault_contained
        self._failure: Exception | None = None
        self._waiter_ids = itertools.count(1)
        self._clock = Clock(self._policy.next_deadline, self._tick, lambda: len(self._policy.state.active) > _MANY)
        self._routes: dict[bytes, ProcessId] = {}

    # -- the step -----------------------------------------------------------------------------------------------

    def failed(self, error: Exception) -> None:
        """Store the first exception, and end the pool: from now on the policy's decisions cannot be
        trusted.
        """
        if self._failure is None:
            self._failure = error
            lines.pool_failed(reason=f"{type(error).__name__}: {error}")
        self._over.set()

    def _fault_contained(self, task: str, what: str, times: int) -> None:
        self._policy.fault_contained(task, what, times, self.current_time())

    def _perform(self, commands: Iterable[Command]) -> None:
        try:
            perform(self, commands)
            self._clock.recheck()
        except Exception as error:
            self.failed(error)
            raise

    def _tick(self, now: float) -> None:
        self._perform(self._policy.tick(now))
        self.notify_changed()

    # -- the interface -----------------------------------------------------------------------------------------------

    def grant(self, grant: Grant, now: float) -> None:
        """Answer a waiter with its session."""
        assert grant.waiter is not None
        self._waiters.pop(grant.waiter).answer(Session(self, grant.session, self.processes[grant.process]), now)

    def has(self, key: GroupKey) -> bool:
        """Whether a group was added, and is not gone."""
        return key in self._policy.state.groups

    def checkout_or_queue(
        self, key: GroupKey, now: float, avoided: ProcessId | None = None, sticky_route: bytes = b""
    ) -> Session | Waiter:
        """Borrow a process that is free now, or enter the group's queue. The returned waiter may
        already be answered.

        :param now: the time, from a caller that has just read it.
        :param avoided: a process that left the request unanswered.
        :param sticky_route: ``Process.route`` of the process of the request's sticky session; empty: it has none.
        """
        if sticky_route or avoided is not None:
            wanted = self._routes.get(sticky_route)
            return self._queue_up(key, now, others_wait=False, avoided=avoided, wanted=wanted)
        if self._policy.has_queue(key):
            return self._queue_up(key, now, others_wait=True)
        return self._take(key, now) or self._queue_up(key, now, others_wait=False)

    def _take(self, key: GroupKey, now: float) -> Session | None:
        """A session with a process that is free now (``core/borrowing`` decides which); None: there is none."""
        # Borrowing.checkout_nowait: the recorder notes the call and passes it on.
        grant = self._policy.checkout_nowait(key, now)
        if grant is None:
            return None
        if self._policy.is_timed:
            self._clock.recheck()
        return Session(self, grant.session, self.processes[grant.process])

    def _queue_up(
        self,
        key: GroupKey,
        now: float,
        *,
        others_wait: bool,
        avoided: ProcessId | None = None,
        wanted: ProcessId | None = None,
    ) -> Waiter:
        waiter = Waiter(self, WaiterId(next(self._waiter_ids)))
        commands = self._policy.checkout(waiter.id, key, now, avoided, wanted)
        self._waiters[waiter.id] = waiter
        if commands or not others_wait:
            self._perform(commands)
        if self.watcher is not None and not waiter.answered:
            self.watcher.somebody_waits(key)
        return waiter

    def queue_for_front(
        self, key: GroupKey, since: float, avoided: ProcessId | None, sticky_route: bytes, lent: int
    ) -> Waiter:
        """Enter the queue for a request that has waited at a front since ``since``."""
        waiter = Waiter(self, WaiterId(next(self._waiter_ids)))
        wanted = self._routes.get(sticky_route)
        commands = self._policy.checkout(waiter.id, key, self.current_time(), avoided, wanted, since, lent)
        self._waiters[waiter.id] = waiter
        self._perform(commands)
        return waiter

    def left(self, waiter: Waiter) -> None:
        """Called by ``Waiter.leave``."""
        if self._waiters.pop(waiter.id, None) is not None:
            self._perform(self._policy.abandon(waiter.id, self.current_time()))

    def session_closed(self, session: Session, outcome: SessionOutcome, now: float) -> None:
        """Called by ``Session.close``, once. ``core/borrowing`` says who is served next, and what becomes of the process."""
        commands = self._policy.session_closed(session.id, outcome, now)  # Borrowing.session_closed
        if not commands:
            return
        if len(commands) == 1 and type(command := commands[0]) is Grant and not self._policy.is_timed:
            try:
                self.grant(command, now)  # a grant makes no deadline earlier
            except Exception as error:
                self.failed(error)
                raise
        else:
            self._perform(commands)

    def is_alone(self, process: Process[LiveProcess]) -> bool:
        """Whether no other process of the group serves."""
        return self._policy.is_alone(process.id)

    def session_long_lived(self, session: Session) -> None:
        """Called by ``Session.set_long_lived``."""
        self._perform(self._policy.session_long_lived(session.id, self.current_time()))

    def session_uncounted(self, session: Session) -> None:
        """Called by ``Session.set_uncounted``."""
        self._perform(self._policy.session_uncounted(session.id, self.current_time()))

    def oob_work_wanted(self, session: Session) -> None:
        """Called by ``Session.want_oob_work``."""
        self.oob_work_wanted_by(session.process.id)

    def oob_work_wanted_by(self, id: ProcessId) -> None:
        """A process asks for out-of-band work. Ignored if it speaks HTTP, which has no message that orders the work."""
        process = self.processes.get(id)
        if process is not None and process.live.worker_protocol.name == "session":
            self._perform(self._policy.oob_work_wanted(id, self.current_time()))
