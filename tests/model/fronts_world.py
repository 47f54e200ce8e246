"""The world of several fronts on one pool, as the ledgers see it: messages under way, processes, requests, and a clock that goes from event to event.

It performs what the policy and the ledgers decide, keeps books of its own, and complains when a law of ``core/fronts`` does not hold.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from passenger_trio.core import commands as c
from passenger_trio.core import invariants
from passenger_trio.core.fronts import front_ledger, messages, owner_ledger
from passenger_trio.core.fronts.front_group import MOST_SLACKS, PAUSE, Slot, SlotState
from passenger_trio.core.fronts.front_ledger import SLACK, FrontLedger
from passenger_trio.core.fronts.messages import GAP, Recall, Usage, Want
from passenger_trio.core.fronts.owner_ledger import OwnerLedger
from passenger_trio.core.model import AttemptId, GroupKey, ProcessId, SessionId, SessionOutcome, WaiterId
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import EnabledStatus

KEY = GroupKey("shop", "test")
OTHER = GroupKey("blog", "test")
MOST_DELAY = 0.0003
"""d: seconds that a message is under way, at most."""
TOLD = 2 * GAP + 2 * MOST_DELAY
"""From then on every front knows of a waiter."""
STRANDED = 2 * GAP + 4 * MOST_DELAY + PAUSE
"""For so long a slot may be idle at one front while somebody waits at another."""
_ROUNDING = 1e-9
NOT_STARTED = SessionOutcome.NOT_STARTED


class LawBroken(AssertionError):
    """A law does not hold."""


@attrs.define(eq=False)
class Request:
    key: GroupKey
    front: TheFront = attrs.field(repr=False)
    arrival: float
    avoided: ProcessId | None = None
    sought: ProcessId | None = None
    """The process of its sticky session."""
    slot: Slot | None = None
    listed: float = math.inf
    """Since when it is among the oldest at its front, as many as the front lists."""

    @property
    def is_constrained(self) -> bool:
        return self.avoided is not None or self.sought is not None

    def takes(self, slot: Slot) -> bool:
        """Whether it is sure to take this process. (Whose session has a process that is gone takes another one: the policy knows.)"""
        return self.takes_process(slot.process.id) or (slot.alone and self.sought is None)

    def takes_process(self, process: ProcessId) -> bool:
        return self.avoided != process and self.sought in (None, process)


@attrs.define(eq=False)
class TheFront:
    id: int
    ledger: FrontLedger
    alive: bool = True
    waiting: dict[WaiterId, Request] = attrs.field(factory=dict)
    running: dict[SessionId, Request] = attrs.field(factory=dict)
    idle_since: dict[SessionId, float] = attrs.field(factory=dict)
    to_owner: deque[Any] = attrs.field(factory=deque)
    from_owner: deque[Any] = attrs.field(factory=deque)
    """Messages under way, and when each comes."""
    pinned: set[SessionId] = attrs.field(factory=set)


@attrs.define(eq=False)
class FrontsWorld:
    """:param delay: gives a number in [0, 1] for each message."""

    limits: GroupLimits
    pool_limits: PoolLimits
    delay: Callable[[], float]
    coalesces: bool = True
    owner_class: type[OwnerLedger] = OwnerLedger
    front_class: type[FrontLedger] = FrontLedger
    now: float = 1.0
    fronts: list[TheFront] = attrs.field(factory=list)
    concurrency: int = 1
    spawn_time: float = 0.05
    log: list[str] = attrs.field(factory=list)
    answers: deque[c.Grant | c.Refuse] = attrs.field(factory=deque)
    tickets: dict[int, int] = attrs.field(factory=dict)
    """Ticket -> waiter of the policy, and the other way round: both are the same number."""
    places: dict[SessionId, object] = attrs.field(factory=dict)
    """Session -> the front that has its slot; or a text: it is under way, or at the owner."""
    named: dict[SessionId, float] = attrs.field(factory=dict)
    """Slots that came to a front and have not served there -> when the waiter came that the grant is for."""
    process_of: dict[SessionId, ProcessId] = attrs.field(factory=dict)
    uncounted: set[SessionId] = attrs.field(factory=set)
    processes: dict[ProcessId, tuple[GroupKey, int]] = attrs.field(factory=dict)
    retired: set[ProcessId] = attrs.field(factory=set)
    attempts: list[tuple[float, AttemptId]] = attrs.field(factory=list)
    vanished: deque[float] = attrs.field(factory=deque)
    """When slots that were under way led to nothing."""
    came: float = -math.inf
    """When a process last came. More slots may come with it than the fronts have listed waiters; their next levels list the rest."""
    was_out: bool = False
    """Some process was disabled: those that sought it took others."""
    starts: int = 0
    served: int = 0
    messages: int = 0
    abandoned: set[SessionId] = attrs.field(factory=set)
    """Sessions of a dead front whose request is not over."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    policy: PoolPolicy = attrs.field(init=False)
    owner: OwnerLedger = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.policy = PoolPolicy(self.pool_limits)
        self.owner = self.owner_class()
        for key in (KEY, OTHER):
            self.owner.add_group(key)
            self.perform(self.policy.add_group(key, self.limits, self.now))

    # --- things that happen -------------------------------------------------------------------------------------------

    def front_comes(self) -> TheFront:
        front = TheFront(next(self._numbers), self.front_class())
        for key in (KEY, OTHER):
            front.ledger.add_group(key, self.limits.max_request_queue_size)
        self.fronts.append(front)
        self.owner.front_came(front.id)
        self.look()
        return front

    def front_dies(self, front: TheFront) -> None:
        """Its connections are gone, and what was under way to and from it. The owner hears of it at once or later: the law is about its ledger."""
        self.owner_does(())
        front.alive = False
        self.fronts.remove(front)
        self.owner_does(self.owner.front_gone(front.id))
        for session, place in self.places.items():
            if place is front and session not in self.abandoned:
                raise LawBroken(f"front {front.id} is dead, and has slot {session}")
        self.look()

    def request(
        self, front: TheFront, key: GroupKey, avoided: ProcessId | None = None, sought: ProcessId | None = None
    ) -> WaiterId:
        waiter = WaiterId(next(self._numbers))
        request = Request(key, front, self.now, avoided, sought)
        if not request.is_constrained and not front.ledger.waiting(key):
            slot = front.ledger.take_idle(key, self.now)
            if slot is not None:
                self._start(front, request, slot)
                return waiter
        front.waiting[waiter] = request
        self.front_does(front, front.ledger.queue(waiter, key, self.now, avoided, _route(sought)))
        self.look()
        return waiter

    def gives_up(self, front: TheFront, waiter: WaiterId) -> None:
        del front.waiting[waiter]
        front.ledger.leave(waiter, self.now)
        self.look()

    def ends(self, front: TheFront, session: SessionId, outcome: SessionOutcome = SessionOutcome.DONE) -> None:
        request = front.running.pop(session)
        kept = outcome is SessionOutcome.DONE and session not in front.pinned
        kept = kept and self.process_of[session] in self.processes
        if kept:
            front.idle_since[session] = self.now
        assert request.slot is not None
        self.served += outcome is SessionOutcome.DONE
        front.pinned.discard(session)
        self.front_does(front, front.ledger.ended(request.slot, outcome, self.now, kept=kept))
        if outcome is SessionOutcome.UNANSWERED:
            self.request(front, request.key, self.process_of[session])
        self.look()

    def pins(self, front: TheFront, session: SessionId, *, uncounted: bool) -> None:
        request = front.running[session]
        assert request.slot is not None
        front.pinned.add(session)
        self.front_does(front, [front.ledger.pinned(request.slot, long_lived=True, uncounted=uncounted)])
        self.look()

    def process_exits(self, process: ProcessId) -> None:
        self.perform(self.policy.process_exited(process, self.now, 0.5))
        del self.processes[process]
        self.retired.discard(process)
        self._tell_of(process, gone=True)
        for front in self.fronts:
            for session in [s for s in front.running if self.process_of[s] == process]:
                self.ends(front, session, SessionOutcome.BROKEN_OFF)
        self.look()

    def detach(self, process: ProcessId) -> None:
        self.perform(self.policy.detach(process, self.now))
        self.look()

    def disable(self, process: ProcessId) -> None:
        commands = self.policy.disable(process, self.now)
        self.was_out = True
        self.perform(commands)
        if self.policy.state.processes[process].status is EnabledStatus.DISABLED:
            self.owner_does(self.owner.withdraw(messages.Withdraw(process)))
        self.look()

    def enable(self, process: ProcessId) -> None:
        self.perform(self.policy.enable(process, self.now))
        self.look()

    def restart(self, *, hard: bool) -> None:
        self.perform(self.policy.restart(KEY, self.now, hard=hard))
        self.look()

    # --- time -----------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """From event to event."""
        end = self.now + seconds
        spins = 0
        while True:
            due = self._next_event()
            if due > end:
                break
            spins = spins + 1 if due <= self.now else 0
            if spins > 50:
                raise LawBroken("a ledger wakes, does nothing, and wakes")
            self.now = max(self.now, due)
            self._events()
            self._concurrency()
            self._idle_slots()
        self.now = end
        self._events()
        self.look()

    def _next_event(self) -> float:
        due = min(self.policy.next_deadline(), self.owner.next_deadline())
        for front in self.fronts:
            due = min(due, front.ledger.next_deadline())
            for line in (front.to_owner, front.from_owner):
                if line:
                    due = min(due, line[0][0])
        if self.attempts:
            due = min(due, self.attempts[0][0])
        return due

    def _events(self) -> None:
        for front in list(self.fronts):
            while front.to_owner and front.to_owner[0][0] <= self.now:
                self._owner_hears(front, front.to_owner.popleft()[1])
            while front.from_owner and front.from_owner[0][0] <= self.now:
                self._front_hears(front, front.from_owner.popleft()[1])
            self.front_does(front, front.ledger.tick(self.now))
        self.owner_does(())
        self.owner_does(self.owner.tick(self.now))
        while self.attempts and self.attempts[0][0] <= self.now:
            _, attempt = heapq.heappop(self.attempts)
            process = ProcessId(next(self._numbers))
            self.came = self.now
            self.processes[process] = self.policy.state.attempts[attempt].group.key, self.concurrency
            self.perform(self.policy.spawn_succeeded(attempt, process, self.concurrency, self.now, 0.5))
        if self.policy.next_deadline() <= self.now:
            self.perform(self.policy.tick(self.now))

    # --- messages -------------------------------------------------------------------------------------------------

    def _post(self, line: deque[Any], message: object) -> None:
        self.messages += 1
        due = self.now + MOST_DELAY * self.delay()
        if line:
            due = max(due, line[-1][0])
            last = line[-1][1]
            level = isinstance(message, Want | Recall | Usage) and type(last) is type(message)
            if self.coalesces and level and getattr(last, "group", None) == getattr(message, "group", None):
                line[-1] = (line[-1][0], message)
                return
        line.append((due, message))

    def _owner_hears(self, front: TheFront, message: Any) -> None:
        self.owner_does(())  # first what the policy has answered, as in ``LeaseDesk``
        match message:
            case messages.Want():
                self.owner_does(self.owner.want(front.id, message, self.now))
            case messages.Return():
                self.places[message.slot] = "at the owner"
                self.owner_does(self.owner.returned(front.id, message, self.now))
            case messages.Pinned():
                if message.uncounted:
                    self.uncounted.add(message.slot)
                self.owner_does(self.owner.pinned(front.id, message, self.now))
            case messages.Usage():
                self.owner_does(self.owner.usage(front.id, message, self.now))

    def _front_hears(self, front: TheFront, message: Any) -> None:
        ledger = front.ledger
        match message:
            case messages.ProcessCame():
                ledger.process_came(message)
            case messages.Grant():
                self.places[message.slot] = front
                front.idle_since[message.slot] = self.now
                self.named[message.slot] = message.arrival
                named = self._named_by(front, message)
                self.front_does(front, ledger.granted(message, self.now))
                if named and all(waiter in front.waiting for waiter in named):
                    raise LawBroken(f"{message} serves another than the one that it names, who waits")
            case messages.Recall():
                self.front_does(front, ledger.recalled(message, self.now))
            case messages.Refused():
                self.front_does(front, ledger.refused(message, self.now))
            case messages.Withdraw():
                self.front_does(front, ledger.withdrawn(message))
            case messages.ProcessGoes():
                self.front_does(front, ledger.process_goes(message, self.now))

    def _named_by(self, front: TheFront, grant: messages.Grant) -> list[WaiterId]:
        """Who waits at the front, and is the one that the owner's queue has chosen: it knows more than the front.

        By the ledger's own times: it makes those of requests that came together different.
        """
        group = front.ledger._processes[grant.process].group
        return [waiter for waiter, waiting in group.waiters.items() if waiting.arrival == grant.arrival]

    def front_does(self, front: TheFront, decisions: Iterable[object]) -> None:
        for decision in decisions:
            self.log.append(f"{self.now:.4f} front {front.id}: {decision}")
            match decision:
                case front_ledger.Start():
                    self._start(front, front.waiting.pop(decision.waiter), decision.slot)
                case front_ledger.TurnAway():
                    del front.waiting[decision.waiter]
                case front_ledger.Send():
                    if isinstance(decision.message, messages.Return):
                        slot = decision.message.slot
                        if self.places.get(slot) is not front:
                            raise LawBroken(f"front {front.id} returns slot {slot}, which is {self.places.get(slot)}")
                        if slot in front.running:
                            raise LawBroken(f"front {front.id} returns slot {slot}, which serves a request")
                        self.places[slot] = "under way"
                        front.idle_since.pop(slot, None)
                    self._post(front.to_owner, decision.message)

    def owner_does(self, decisions: Iterable[object]) -> None:
        for decision in decisions:
            self.log.append(f"{self.now:.4f} owner: {decision}")
            match decision:
                case owner_ledger.Ask():
                    waiter = WaiterId(-decision.ticket)
                    sought = ProcessId(int(decision.route)) if decision.route else None
                    self.tickets[decision.ticket] = decision.ticket
                    self.perform(
                        self.policy.checkout(
                            waiter,
                            decision.group,
                            self.now,
                            decision.avoided,
                            sought,
                            decision.since,
                            decision.lent,
                        )
                    )
                case owner_ledger.Renew():
                    assert decision.ticket in self.tickets
                    self.policy.renew(WaiterId(-decision.ticket), decision.since)
                case owner_ledger.Abandon():
                    self._abandon(decision.ticket)
                case owner_ledger.Served():
                    self.perform(self.policy.session_served(decision.session, decision.count, self.now))
                case owner_ledger.Running():
                    self.perform(self.policy.session_running(decision.session, decision.since, self.now))
                case owner_ledger.LongLived():
                    self.perform(self.policy.session_long_lived(decision.session, self.now))
                case owner_ledger.Uncounted():
                    self.perform(self.policy.session_uncounted(decision.session, self.now))
                case owner_ledger.Close():
                    self._close(decision)
                case owner_ledger.Send():
                    front = next(front for front in self.fronts if front.id == decision.front)
                    if isinstance(decision.message, messages.Grant):
                        self.places[decision.message.slot] = "under way"
                    self._post(front.from_owner, decision.message)
        while self.answers:
            self._answer(self.answers.popleft())

    def _abandon(self, ticket: int) -> None:
        """It may have been answered in the same moment: that session is not used."""
        del self.tickets[ticket]
        self.policy.abandon(WaiterId(-ticket), self.now)
        for answer in list(self.answers):
            if answer.waiter == -ticket:
                self.answers.remove(answer)
                if isinstance(answer, c.Grant):
                    self.vanished.append(self.now)
                    self.perform(self.policy.session_closed(answer.session, NOT_STARTED, self.now))

    def _close(self, decision: owner_ledger.Close) -> None:
        session = decision.session
        if session not in self.places:
            raise LawBroken(f"slot {session} is closed twice")
        if decision.abandoned and isinstance(self.places[session], TheFront):
            self.abandoned.add(session)
            return
        del self.places[session]
        self.uncounted.discard(session)
        self.perform(self.policy.session_closed(session, decision.outcome, self.now))

    def abandoned_request_ends(self, session: SessionId) -> None:
        self.abandoned.remove(session)
        del self.places[session]
        self.uncounted.discard(session)
        self.perform(self.policy.session_closed(session, NOT_STARTED, self.now))
        self.owner_does(())
        self.look()

    def _answer(self, answer: c.Grant | c.Refuse) -> None:
        assert answer.waiter is not None
        ticket = self.tickets.pop(-answer.waiter, None)
        if ticket is None:
            return  # one message has refused it with others
        if isinstance(answer, c.Refuse):
            self.owner_does(self.owner.refused(ticket, answer.reason, answer.failure, answer.retry_after))
            return
        self.process_of[answer.session] = answer.process
        self.places[answer.session] = "at the owner"
        key, concurrency = self.processes.get(answer.process, (KEY, 1))
        came = messages.ProcessCame(
            answer.process, key, 1000 + answer.process, concurrency, "session", False, "unix:/p", _route(answer.process)
        )
        budget = self.policy.budget(answer.session)
        alone = self.policy.is_alone(answer.process)
        self.owner_does(self.owner.granted(ticket, answer.session, came, budget=budget, alone=alone, reused=False))
        if answer.process not in self.processes or answer.process in self.retired:
            self._tell_of(answer.process, gone=answer.process not in self.processes)

    def perform(self, commands: Iterable[c.Command]) -> None:
        for command in commands:
            self.log.append(f"{self.now:.4f} policy: {command}")
            match command:
                case c.Grant() | c.Refuse():
                    self.answers.append(command)
                case c.StartSpawn():
                    self._is_needed(command)
                    heapq.heappush(self.attempts, (self.now + self.spawn_time, command.attempt))
                case c.Detach():
                    self.retired.add(command.process)
                    self._tell_of(command.process)
                case c.Retire() | c.Kill():
                    self.retired.add(command.process)
                    self._tell_of(command.process, leaving=True)
        for key, group in self.policy.state.groups.items():
            slots = [process.concurrency or messages.MOST_WANTED for process in group.enabled.values()]
            self.owner.set_slots(key, sum(slots), more_come=bool(group.attempts))

    def _tell_of(self, process: ProcessId, *, leaving: bool = False, gone: bool = False) -> None:
        self.owner_does(self.owner.process_goes(messages.ProcessGoes(process, leaving or gone, gone=gone)))

    # --- the laws -------------------------------------------------------------------------------------------------

    def _start(self, front: TheFront, request: Request, slot: Slot) -> None:
        """Order: from 2g + 2d after its arrival nothing starts before a request that is younger by more than four slacks (by more than one, if the front has more than its
        share of slots: ``test_front_ledger``). A slot that is under way for it counts for it."""
        if self.places.get(slot.id) is not front or slot.id in front.running:
            raise LawBroken(f"front {front.id} uses slot {slot.id}, which is {self.places.get(slot.id)}")
        front.idle_since.pop(slot.id, None)
        request.slot = slot
        front.running[slot.id] = request
        self.starts += 1
        if request.avoided == slot.process.id and not slot.alone:
            raise LawBroken("a request meets the process again that left it unanswered")
        sought = self.policy.state.processes.get(request.sought) if request.sought is not None else None
        serves = sought is not None and sought.status is EnabledStatus.ENABLED and sought.since < request.arrival
        if serves and request.sought not in (slot.process.id, request.avoided) and not self.was_out:
            raise LawBroken(f"{request} was not served by the process of its session, which serves")
        self._in_turn_for_the_constrained(request, slot)
        if not request.is_constrained and (self.concurrency or self.now > self.came + TOLD + 2 * MOST_DELAY):
            older = [
                other
                for other in self._waiting(request.key)
                if other.front is not front
                and other.arrival < request.arrival - MOST_SLACKS * SLACK - _ROUNDING
                and other.listed < self.now - TOLD - _ROUNDING
            ]
            if len(older) > self._on_the_way(request.key, TOLD):
                raise LawBroken(f"{request} starts before {older}")

    def _in_turn_for_the_constrained(self, request: Request, slot: Slot) -> None:
        """Order, for those that take not every process: what is younger by more than the slack does not get a slot that they take. Once more it may if the slot came
        for somebody who is gone meanwhile: the front knows its own waiters only.
        """
        came_for = self.named.pop(slot.id, None)
        if came_for is not None and abs(came_for - request.arrival) > _ROUNDING:
            return
        if slot.process.id in self.retired or slot.process.id not in self.processes or self._is_out(slot.process.id):
            return
        older = [
            other
            for other in self._waiting(request.key, constrained=True)
            if other.takes(slot)
            and other.arrival < request.arrival - SLACK - _ROUNDING
            and other.arrival < self.now - TOLD - _ROUNDING
        ]
        # Only what it takes can be meant for it.
        others = sum(
            place == "under way" and not any(other.takes_process(self.process_of[session]) for other in older)
            for session, place in self.places.items()
        )
        if len(older) > self._on_the_way(request.key, TOLD) - others:
            raise LawBroken(f"{request} starts before {older}, on a process that they take")

    def _waiting(self, key: GroupKey, *, constrained: bool = False) -> list[Request]:
        return [
            request
            for front in self.fronts
            for request in front.waiting.values()
            if request.key == key and request.is_constrained == constrained and not self._is_overdue(request)
        ]

    def _is_overdue(self, request: Request) -> bool:
        """Whether it has waited for too long: it was refused, and its front may not know yet."""
        return 0 < self.limits.max_request_queue_time <= self.now - request.arrival + _ROUNDING

    def _on_the_way(self, key: GroupKey, window: float) -> int:
        """Slots that may be meant for somebody who waits: under way, or lost on their way not long ago."""
        while self.vanished and self.vanished[0] < self.now - 1:
            self.vanished.popleft()
        under_way = sum(place == "under way" for place in self.places.values())
        return under_way + sum(at >= self.now - window - 2 * MOST_DELAY for at in self.vanished)

    def look(self) -> None:
        """The laws that hold at any time."""
        self.owner_does(())
        self._list()
        invariants.check(self.policy.state)
        if self.places.keys() != self.policy.state.sessions.keys():
            raise LawBroken(f"slots {self.places.keys()} are not the sessions {self.policy.state.sessions.keys()}")
        self._concurrency()
        self._idle_slots()
        self._budgets()

    def _list(self) -> None:
        for front in self.fronts:
            for key in (KEY, OTHER):
                plain = [one for one in front.waiting.values() if one.key == key and not one.is_constrained]
                for request in plain[: front.ledger._group(key).most_wanted]:
                    request.listed = min(request.listed, self.now)

    def _concurrency(self) -> None:
        """As many streams of a process are in use as it serves at a time, wherever they are."""
        for process, (_, concurrency) in self.processes.items():
            if not concurrency:
                continue
            running = {s for front in self.fronts for s in front.running if self.process_of[s] == process}
            running |= {s for s in self.abandoned if self.process_of[s] == process}
            if len(running - self.uncounted) > concurrency:
                raise LawBroken(f"process {process} serves {running} at a time")
        for front in self.fronts:
            here = {session for session, place in self.places.items() if place is front}
            if here != front.ledger.slots.keys() or here != front.running.keys() | front.idle_since.keys():
                raise LawBroken(f"front {front.id} has {here}, and its ledger {front.ledger.slots.keys()}")

    def _idle_slots(self) -> None:
        """While somebody waits, no slot that it takes is idle at one other front for longer than 2g + 4d and the pause."""
        before = self.now - STRANDED - _ROUNDING
        for key in (KEY, OTHER):
            waiting = self._waiting(key)
            constrained = self._waiting(key, constrained=True)
            if not waiting and not constrained:
                continue
            for front in self.fronts:
                idle = [
                    slot
                    for slot in front.ledger.slots.values()
                    if slot.state is SlotState.IDLE
                    and not self._is_out(slot.process.id)
                    and self.processes.get(slot.process.id, (None,))[0] == key
                    and slot.process.id not in self.retired
                ]
                for slot in idle:
                    if any(request.front is front and request.takes(slot) for request in (*waiting, *constrained)):
                        raise LawBroken(f"front {front.id} has an idle slot, and a request waits there")
                stranded = [slot for slot in idle if front.idle_since[slot.id] < before]
                if not stranded:
                    continue
                long = [request for request in waiting if request.arrival < before]
                long += [
                    request
                    for request in constrained
                    if request.arrival < before and any(request.takes(slot) for slot in stranded)
                ]
                if len(long) > self._on_the_way(key, STRANDED):
                    raise LawBroken(f"{stranded} at front {front.id}, while {long} wait")

    def _is_needed(self, spawn: c.StartSpawn) -> None:
        """No process is started for requests that all of them came just now, while as many slots are idle at other fronts.

        At its own front a request may have been served since it asked, and its slot be idle: as with one front, whoever finds
        no process idle is a reason for one more.
        """
        group = self.policy.state.groups[spawn.group]
        if spawn.reason is not c.Reason.DEMAND or group.avoiding or group.seeking:
            return
        if any(since < self.now - TOLD for since in group.waiters.values()):
            return
        asking = {desk.front for ticket, desk in self.owner._tickets.items() if WaiterId(-ticket) in group.waiters}
        idle = [
            session
            for front in self.fronts
            if front.id not in asking
            for session in front.idle_since
            if self.process_of[session] in group.enabled and self.process_of[session] not in group.disabled
        ]
        if len(group.waiters) <= len(idle):
            raise LawBroken(f"a process is started while slots {idle} are idle for those that wait")

    def _is_out(self, process: ProcessId) -> bool:
        known = self.policy.state.processes.get(process)
        return known is not None and known.status is EnabledStatus.DISABLED

    def _budgets(self) -> None:
        for front in self.fronts:
            for slot in front.ledger.slots.values():
                if 0 < slot.budget < slot.served + (slot.state is SlotState.BUSY):
                    raise LawBroken(f"{slot} serves more than it may")

    def quiesce(self) -> None:
        """Every request ends, and nobody comes: all slots are back, and nobody was forgotten."""
        for process in list(self.policy.state.processes):
            self.enable(process)
        for _ in range(400):
            for front in list(self.fronts):
                for session in list(front.running):
                    if session in front.running:
                        self.ends(front, session)
            for session in list(self.abandoned):
                self.abandoned_request_ends(session)
            for process in list(self.retired):
                if process in self.policy.state.processes and not self.policy.state.processes[process].sessions:
                    self.process_exits(process)
            self.advance(0.02)
            if not any(front.waiting or front.running for front in self.fronts):
                break
        self.advance(1.0)
        for front in self.fronts:
            if front.waiting:
                raise LawBroken(f"{front.waiting} wait for ever at front {front.id}")
            if front.ledger.slots:
                raise LawBroken(f"front {front.id} keeps {front.ledger.slots}")
        if self.policy.state.sessions:
            raise LawBroken(f"sessions {self.policy.state.sessions} do not end")
        due = min(self.owner.next_deadline(), *(front.ledger.next_deadline() for front in self.fronts), math.inf)
        if due < math.inf:
            raise LawBroken(f"nothing is left to do, and a ledger wakes at {due}")


def _route(process: ProcessId | None) -> bytes:
    return b"" if process is None else b"%d" % process
