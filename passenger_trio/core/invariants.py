"""The laws that hold between any two calls of the policy, as code.

This module reads a state and changes nothing. It is slow on purpose: it counts everything again, in the
naive way. So it runs after each step of the model test, and in production only if self-checking is
switched on. A broken law is a bug of ours and raises ``InvariantBroken``; no caller can handle it.

One state does not show the laws about earlier commands (no waiter is answered twice, no process is
retired twice). ``tests/model`` remembers the commands and checks those.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from passenger_trio.core import active_groups, capacity, making_room, retiring, routing, scaling
from passenger_trio.core.backoff_and_circuit import NOT_IN_FORCE
from passenger_trio.core.state import EnabledStatus, PoolState
from passenger_trio.errors import InvariantBroken


def check(state: PoolState) -> None:
    """Check every law on ``state``.

    :raises InvariantBroken: lists each law that does not hold.
    """
    broken = [
        f"{law.__name__}: {breach}"
        for law in (
            conservation,
            bookkeeping,
            within_limits,
            generations,
            routing_index,
            queues,
            progress,
            quiet,
            deadlines,
            out_of_band_work,
            drained,
            removals,
        )
        for breach in law(state)
    ]
    if broken:
        raise InvariantBroken("; ".join(broken))


def conservation(state: PoolState) -> Iterator[str]:
    """A process counts exactly its open grants, within its concurrency. A process that is gone is not in the pool."""
    if not state.uncounted <= state.sessions.keys():
        yield "an uncounted session is over"
    outstanding = Counter(process.id for process in state.sessions.values())
    seen = {process.id: process for process in (*state.sessions.values(), *state.processes.values())}
    for process in seen.values():
        if process.sessions != outstanding[process.id]:
            yield f"process {process.id} counts {process.sessions} sessions, {outstanding[process.id]} are open"
        if process.uncounted != sum(state.sessions.get(session) is process for session in state.uncounted):
            yield f"process {process.id} counts {process.uncounted} uncounted sessions"
        if process.concurrency and process.sessions - process.uncounted > process.concurrency:
            yield f"process {process.id} has {process.sessions} sessions, but takes {process.concurrency}"
        if process.killed and process.status is EnabledStatus.ENABLED:
            yield f"process {process.id} was killed, and is routed to"
        if (process.status is EnabledStatus.GONE) == (process.id in state.processes):
            yield f"process {process.id} is {process.status.value}, but the pool disagrees"


def bookkeeping(state: PoolState) -> Iterator[str]:
    """The pool and the groups hold the same processes, attempts and waiters, each once."""
    for name, whole, parts in (
        ("processes", state.processes, [{**group.enabled, **group.detached} for group in state.groups.values()]),
        ("attempts", state.attempts, [group.attempts for group in state.groups.values()]),
        ("waiters", state.waiters, [group.waiters for group in state.groups.values()]),
    ):
        if Counter(whole.keys()) != Counter(thing for part in parts for thing in part):
            yield f"the pool and its groups hold different {name}"
    for key, group in state.groups.items():
        if group.waits_as:
            if state.waiting.get(group.waits_as) is not group or key in state.active:
                yield f"{key} waits, and is in the wrong place"
            if not active_groups.only_waits(group):
                yield f"{key} does not only wait"
        elif not active_groups.is_inactive(group) and state.active.get(key) is not group:
            yield f"something happens in {key}, and nobody looks at it"
    if state.waiting.keys() != {group.waits_as for group in state.groups.values()} - {0}:
        yield "a group waits, and does not know"
    if not state.active.keys() <= state.groups.keys():
        yield "a group that is gone is looked at"
    if state.enabled_count != sum(len(group.enabled) for group in state.groups.values()):
        yield f"{state.enabled_count} enabled processes are counted"
    for group in state.groups.values():
        if not (group.avoiding.keys() | group.seeking.keys() | group.spawn_delays.keys()) <= group.waiters.keys():
            yield f"somebody who avoids or seeks a process of {group.key} does not wait"
        if any(state.waiters.get(waiter) is not group for waiter in group.waiters):
            yield f"a waiter of {group.key} belongs to another group"
        for status, processes in (
            (EnabledStatus.ENABLED, {id: one for id, one in group.enabled.items() if id not in group.disabled}),
            (EnabledStatus.DISABLED, group.disabled),
            (EnabledStatus.DETACHED, group.detached),
        ):
            if any(process.status is not status or process.group is not group for process in processes.values()):
                yield f"a process of {group.key} is not {status.value} there"
        if not group.disabled.keys() <= group.enabled.keys():
            yield f"a process of {group.key} is disabled, and does not count"
        for of in group.generations.values():
            if list(of.preloaders.values()).count(False) > 1:
                yield f"generation {of.number} of {group.key} has several preloaders, and keeps them"
        for process in group.detached.values():
            if process.leaving is not None and (process.killed or not process.sessions):
                yield f"process {process.id} is detached and idle, and was not retired"
            if process.leaving is not None and group.drain_due > process.drained_by:
                yield f"process {process.id} drains until {process.drained_by}, but nobody looks before {group.drain_due}"


def within_limits(state: PoolState) -> Iterator[str]:
    """The limits hold (``scaling`` lists them)."""
    limits = state.limits
    if state.capacity_used > max(limits.max_pool_size, state.allowed_used if limits.memory_share else 0):
        yield f"{state.capacity_used} processes and attempts, {limits.max_pool_size} are allowed"
    if state.total > max(state.ceiling + len(state.groups), state.allowed_total):
        yield f"{state.total} processes and attempts with the retired ones, {state.ceiling} and a replacement for each group are allowed"
    if state.slots_used > max(limits.max_concurrent_spawns + 1, state.allowed_attempts):
        yield f"{state.slots_used} attempts have slots, {limits.max_concurrent_spawns} may, and one more"
    least = sum(map(capacity.minimum, state.groups.values()))
    if limits.memory_share and state.open and limits.max_pool_size < least and not state.leaving:
        yield f"{limits.max_pool_size} processes may be, and the minimums are {least}"
    for group in state.groups.values():
        for attempt in group.attempts.values():
            if attempt.waits and (attempt.has_slot or not group.generations[attempt.generation].forks):
                yield f"attempt {attempt.id} waits for a preloader, and has a slot, or will be started directly"
            if not (attempt.waits or attempt.has_slot or attempt.slow or attempt.abandoned):
                yield f"attempt {attempt.id} loads the application without a slot"
        for number, attempts in Counter(attempt.generation for attempt in group.attempts.values()).items():
            if attempts > max(limits.max_concurrent_spawns, state.allowed_attempts):
                yield f"{attempts} attempts of generation {number} of {group.key}, {limits.max_concurrent_spawns} are allowed"
        most = group.limits.max_instances
        if most and len(group.enabled) + capacity.under_way(group) > most:
            yield f"{len(group.enabled)} + {capacity.under_way(group)} processes and attempts of {group.key}, not {most}"


def generations(state: PoolState) -> Iterator[str]:
    """Enabled processes of older generations are to be replaced; a group has one replacement at a time (``group_restarts``)."""
    for group in state.groups.values():
        for process in group.enabled.values():
            if process.generation > group.generation:
                yield f"process {process.id} is of generation {process.generation}, which does not serve yet"
            if process.generation < group.generation and process.id not in group.to_replace:
                yield f"process {process.id} is old, and nothing replaces it"
        if not group.to_replace.keys() <= group.enabled.keys():
            yield f"a process of {group.key} is to be replaced, but does not serve"
        replacements = [
            a for a in group.attempts.values() if a.reason in retiring.REPLACEMENT_REASONS and not a.abandoned
        ]
        if replacements != ([group.replacement] if group.replacement else []):
            yield f"the replacements of {group.key} are {replacements}"
        for attempt in group.attempts.values():
            if attempt.counts == (attempt.abandoned or attempt is group.replacement):
                yield f"attempt {attempt.id} counts: {attempt.counts}"
        used = {group.generation, group.candidate} | {attempt.generation for attempt in group.attempts.values()}
        used |= {process.generation for process in group.processes}
        for of in group.generations.values():
            if state.open and of.number not in used and not of.preloaders:
                yield f"generation {of.number} of {group.key} has ended, and nobody was told"
        if not used - {None} <= group.generations.keys():
            yield f"{used} of {group.key} are not all known"


def routing_index(state: PoolState) -> Iterator[str]:
    """``group.free`` equals the sorted list of all processes with room."""
    for group in state.groups.values():
        expected = sorted(
            (-process.generation, routing.busyness(process), process.order, process)
            for process in group.enabled.values()
            if routing.has_room(process) and process.status is EnabledStatus.ENABLED
        )
        if group.free != expected:
            yield f"the routing index of {group.key} is {group.free}, not {expected}"
        ranked = {rank[3].id: rank for rank in group.free}
        for process in (*group.enabled.values(), *group.detached.values()):
            if process.rank != ranked.get(process.id):
                yield f"process {process.id} has the rank {process.rank}"


def queues(state: PoolState) -> Iterator[str]:
    """A queue is not longer than allowed, and is in order of arrival."""
    for group in state.groups.values():
        if 0 < group.limits.max_request_queue_size < len(group.waiters) > group.allowed_queue:
            yield f"{len(group.waiters)} wait for {group.key}"
        if not group.running.keys() <= state.sessions.keys():
            yield f"a request of {group.key} is timed, and is over"
        since = list(group.waiters.values())
        if since != sorted(since):
            yield f"the queue of {group.key} is out of order"


def progress(state: PoolState) -> Iterator[str]:
    """No waiter waits in vain: no process has room for it, and something is coming that may answer it."""
    full = state.capacity_used >= state.limits.max_pool_size
    for group in state.groups.values():
        if not group.waiters:
            continue
        for *_, process in group.free:
            taken_by = [
                waiter
                for waiter in group.waiters
                if group.avoiding.get(waiter) != process.id or group.in_routing == 1
                if routing.sought(group, group.seeking.get(waiter), group.avoiding.get(waiter)) in (None, process)
            ]
            if taken_by:
                yield f"somebody waits for {group.key}, and process {process.id} has room"
        coming = group.attempts or group.backoff.until > NOT_IN_FORCE
        hindered = full or not (capacity.has_ground(state) and scaling.may_begin(state, group, group.generation))
        if not group.enabled and not (state.open and (coming or hindered)):
            yield f"somebody waits for {group.key}, and nothing will come of it"


def quiet(state: PoolState) -> Iterator[str]:
    """No spawn that is wanted and possible waits. A back-off counts until ``tick`` has seen its end."""
    if not state.open:
        return
    full = state.capacity_used >= state.limits.max_pool_size
    for group in state.groups.values():
        wanted = scaling.wants(group, NOT_IN_FORCE) and scaling.may_begin(state, group, group.generation)
        wanted = wanted and capacity.has_ground(state)
        replacement = scaling.wants_replacement(group, NOT_IN_FORCE) and capacity.has_headroom(state, group)
        if replacement and scaling.may_begin(state, group, group.candidate or group.generation):
            yield f"{group.key} could have a replacement and has none coming"
        if wanted and (not full or (capacity.is_starved(group) and making_room.longest_idle(state) is not None)):
            yield f"{group.key} could have a process and has none coming"


def deadlines(state: PoolState) -> Iterator[str]:
    """``idle_due`` and ``spare_due`` are never too late, and slow attempts have given up their slots."""
    idle_time = state.limits.pool_idle_time
    for attempt in state.attempts.values():
        if attempt.slow != (attempt.slow_at == math.inf) or (attempt.slow and attempt.has_slot):
            yield f"attempt {attempt.id} is slow: {attempt.slow}, and nobody looks before {attempt.slow_at}"
    full = state.capacity_used >= state.limits.max_pool_size
    if state.open and full and capacity.has_ground(state) and len(state.groups) > 1:
        idle_at = making_room.longest_idle(state)
        spare_at = idle_at.last_used + making_room.SPARE_AFTER if idle_at is not None else math.inf
        for group in state.groups.values():
            hungry = group.waiters and scaling.wants(group, NOT_IN_FORCE)
            hungry = hungry and not capacity.is_starved(group) and scaling.may_begin(state, group, group.generation)
            if hungry and (state.spare_due > spare_at or state.spare_due == math.inf):
                yield f"{group.key} may have the place of another at {spare_at}, but nobody looks before {state.spare_due}"
    for group in state.groups.values():
        frozen = not state.open or group.holds_on
        if idle_time and len(group.enabled) > capacity.minimum(group) and not frozen:
            idle = [
                process.last_used + idle_time
                for process in group.enabled.values()
                if not process.sessions and process.status is EnabledStatus.ENABLED
            ]
            if idle and group.idle_due > min(idle):
                yield f"a process of {group.key} is due at {min(idle)}, but nobody looks before {group.idle_due}"


def out_of_band_work(state: PoolState) -> Iterator[str]:
    """A process is out of routing for a reason, and its work begins when it has no sessions (``oob_work``)."""
    for group in state.groups.values():
        process = group.oob_process
        for one in group.disabled.values():
            if not one.disabled_by_operator and one is not process:
                yield f"process {one.id} is disabled for nothing"
        if not group.oob_wanted.keys() <= group.enabled.keys():
            yield f"a process of {group.key} wants out-of-band work, and does not serve"
        if process is None:
            if group.oob_begun:
                yield f"nobody of {group.key} works out of band"
        elif process.id not in group.disabled:
            yield f"process {process.id} works out of band, and is in routing"
        elif state.open and not group.oob_begun and not process.sessions:
            yield f"process {process.id} is out of routing and idle, and its work has not begun"
        elif group.oob_begun and process.sessions:
            yield f"process {process.id} works out of band, and serves"
        elif state.open and not group.oob_begun and group.oob_due > group.oob_give_up:
            yield f"process {process.id} may be out of routing for ever"


def drained(state: PoolState) -> Iterator[str]:
    """After a shutdown no idle process stays, and the pool is empty exactly when it has said so."""
    left = state.total or any(group.preloaders for group in state.groups.values())
    if state.emptied and (state.open or state.total):
        yield "the pool is not empty, but said so"
    if not state.open and not left and not state.emptied:
        yield "the pool is empty and did not say so"
    for group in state.groups.values():
        if not state.open and any(not process.sessions for process in group.enabled.values()):
            yield f"an idle process of {group.key} outlives the shut-down"


def removals(state: PoolState) -> Iterator[str]:
    """A removed group keeps only what its waiters need, and is forgotten when nothing of it is left (OP1)."""
    if {key for key, group in state.groups.items() if group.leaving} != state.leaving.keys():
        yield f"{list(state.leaving)} leave, and the groups disagree"
    for group in state.leaving.values():
        if group.candidate is not None or group.replacement is not None or group.always_restart:
            yield f"{group.key} was removed, and is restarted"
        if not state.open or group.waiters:
            continue
        if group.enabled or not all(attempt.abandoned for attempt in group.attempts.values()):
            yield f"{group.key} was removed, and has processes that nobody waits for"
        if not (group.detached or group.attempts or group.preloaders):
            yield f"{group.key} was removed, nothing of it is left, and it is not forgotten"
