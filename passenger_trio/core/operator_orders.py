"""What an operator orders: detach, disable or enable a process, restart groups, shut down.

``policy`` has the contract of each function, under the same name.

Law: an order that cannot apply any more (the process is gone, the pool is shut down) changes nothing and raises nothing.
"""

from __future__ import annotations

from passenger_trio.core import (
    active_groups,
    follow_up,
    group_restarts,
    oob_work,
    retiring,
    routing,
    scaling,
    waitlist,
)
from passenger_trio.core.commands import AbandonSpawn, Command, Reason
from passenger_trio.core.model import GroupKey, ProcessId
from passenger_trio.core.state import EnabledStatus, PoolState


def detach(state: PoolState, process: ProcessId, now: float) -> list[Command]:
    detached = state.processes.get(process)
    if detached is None or not detached.is_attached:
        return []
    commands = retiring.retire(state, detached, Reason.DETACHED, now)
    return commands + follow_up.left(state, detached, now, lost=detached.group)


def may_disable(state: PoolState, process: ProcessId) -> bool:
    known = state.processes.get(process)
    if known is None or not known.is_attached:
        return False
    return known.status is EnabledStatus.DISABLED or known.group.in_routing > 1


def disable(state: PoolState, process: ProcessId, now: float) -> list[Command]:
    if not may_disable(state, process):
        return []
    disabled = state.processes[process]
    group = disabled.group
    disabled.disabled_by_operator = True
    if disabled.status is EnabledStatus.ENABLED:
        routing.disable(disabled)
    retiring.watch_idleness(state, group, now)
    commands = waitlist.serve(state, group, now)  # those that sought it take any other
    return commands + scaling.start_spawns(state, now, (group,))


def enable(state: PoolState, process: ProcessId, now: float) -> list[Command]:
    known = state.processes.get(process)
    if known is None or not known.disabled_by_operator or not known.is_attached:
        return []
    known.disabled_by_operator = False
    group = known.group
    if group.oob_process is known:
        return []
    routing.enable(known)
    known.last_used = now
    retiring.watch_idleness(state, group, now)
    commands = waitlist.serve(state, group, now) + oob_work.begin(state, group, now)
    return commands + scaling.start_spawns(state, now)


def restart_all(state: PoolState, keys: tuple[GroupKey, ...], now: float, *, hard: bool) -> list[Command]:
    if not state.open:
        return []
    groups = [group for group in map(state.groups.__getitem__, keys) if not group.leaving]
    commands: list[Command] = []
    for group in groups:
        active_groups.set_active(state, group)
        # By restarting, the operator says that the application is repaired: the back-off ends.
        group.backoff.lift()
        commands += group_restarts.begin_hard(state, group, now) if hard else group_restarts.begin(group)
        retiring.watch_idleness(state, group, now)
    # A rolling restart makes no room for other groups.
    return commands + scaling.start_spawns(state, now, None if hard else groups)


def shut_down(state: PoolState, now: float) -> list[Command]:
    if not state.open:
        return []
    state.open = False
    commands: list[Command] = [
        AbandonSpawn(attempt.group.key, attempt.id, Reason.SHUT_DOWN)
        for attempt in state.attempts.values()
        if not attempt.abandoned
    ]
    active_groups.set_all_active(state)
    for group in state.active.values():
        commands += waitlist.refuse_if_unservable(state, group, now)
        for process in list(group.enabled.values()):
            commands += follow_up.retire_unneeded(state, process, now)
        commands += waitlist.refuse_if_unservable(state, group, now)  # its processes may all have been out of routing
        for of in group.generations.values():
            if of.has_preloader:
                commands.append(group_restarts.retire_preloader(group, of, Reason.SHUT_DOWN))
    return commands + follow_up.empty(state)
