"""Which process gets the next session, and which processes can be chosen.

This module knows the processes of a group that may be chosen, and how busy each is. It never knows waiters, limits
of the pool or time, and it decides nothing about spawning.

Laws:

* The newest generation comes first: once a new version serves, the old one gets only the sessions for
  which the new one has no room.
* Within a generation the least busy process is chosen; among equals, the one attached first. So the
  oldest process, whose caches are warm, serves a quiet application; the younger ones become idle and
  can be retired.
* Busyness is open sessions divided by concurrency. A process without a limit counts as one with room
  for 2**31 sessions. Uncounted sessions weigh as little at any process: they take no room, and only
  break ties.
* A request that one process left unanswered goes to another, if the group has another: it waits for
  that one rather than try the same process again.
* A request of a sticky session goes to the process of that session, however busy that is: it waits for
  it while others are idle. If that process is not enabled any more, the request goes to any other.
* A totally busy process is never chosen. If none is chosen, every enabled process is totally busy, or
  there is none.
* No scan. ``group.free`` is a sorted list of exactly the processes with room. A binary search finds a
  position in it, and an insertion is one ``memmove`` of a few hundred bytes, so the cost is flat for
  any number of processes a machine can hold. (A heap is no faster, and would need lazy deletion and
  the collection of its garbage.)
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from passenger_trio.core.model import ProcessId
from passenger_trio.core.state import EnabledStatus, GroupState, PoolState, ProcessState

UNLIMITED = 2**31


def busyness(process: ProcessState) -> float:
    """0.0 is idle, 1.0 is totally busy."""
    uncounted = process.uncounted
    if not uncounted:
        return process.sessions / (process.concurrency or UNLIMITED)
    return (process.sessions - uncounted) / (process.concurrency or UNLIMITED) + uncounted / UNLIMITED


def has_room(process: ProcessState) -> bool:
    """Whether the process can take one more session."""
    return not process.concurrency or process.sessions - process.uncounted < process.concurrency


def take_least_busy(group: GroupState) -> ProcessState | None:
    """Count one more session at the least busy process and return it; None: no process has room."""
    if not group.free:
        return None
    process = group.free.pop(0)[3]
    process.sessions += 1
    if process.concurrency == 1 or not has_room(process):
        process.rank = None
    else:
        _insert(process)
    return process


def take_other(group: GroupState, avoided: ProcessId | None) -> ProcessState | None:
    """Like ``take_least_busy``, but never the avoided process, unless it is the only enabled one."""
    if avoided is None or group.in_routing == 1:
        return take_least_busy(group)
    process = next((rank[3] for rank in group.free if rank[3].id != avoided), None)
    if process is not None:
        _remove(process)
        process.sessions += 1
        if has_room(process):
            _insert(process)
    return process


def sought(group: GroupState, wanted: ProcessId | None, avoided: ProcessId | None = None) -> ProcessState | None:
    """The process that a request of a sticky session goes to, and waits for; None: any process will do."""
    if wanted is None or wanted == avoided:
        return None
    process = group.enabled.get(wanted)
    if process is None or process.disabled_by_operator:
        return None
    return process  # out-of-band work does not last long


def take_for(group: GroupState, avoided: ProcessId | None, wanted: ProcessId | None) -> ProcessState | None:
    """Like ``take_other``, but only the wanted process while it can be had."""
    process = sought(group, wanted, avoided)
    if process is None:
        return take_other(group, avoided)
    if process.rank is None:
        return None
    _remove(process)
    process.sessions += 1
    if has_room(process):
        _insert(process)
    return process


def give_back(process: ProcessState) -> None:
    """Count one session less at a process, whatever its status."""
    if process.rank is not None:
        _remove(process)
    process.sessions -= 1
    if process.status is EnabledStatus.ENABLED:
        _insert(process)


def give_back_uncounted(process: ProcessState) -> None:
    """Like ``give_back`` for an uncounted session, whose end makes no room."""
    if process.rank is not None:
        _remove(process)
    process.sessions -= 1
    process.uncounted -= 1
    if process.status is EnabledStatus.ENABLED and has_room(process):
        _insert(process)


def set_uncounted(process: ProcessState) -> None:
    """One session of the process becomes uncounted: another may take its room."""
    if process.rank is not None:
        _remove(process)
    process.uncounted += 1
    if process.status is EnabledStatus.ENABLED:
        _insert(process)


def attach(pool: PoolState, process: ProcessState) -> None:
    """Add a new process to the pool; it may be chosen from now on."""
    group = process.group
    pool.processes[process.id] = process
    pool.enabled_count += 1
    group.enabled[process.id] = process
    _insert(process)


def disable(process: ProcessState) -> None:
    """Take an enabled process out of routing. It still counts, and may come back."""
    if process.rank is not None:
        _remove(process)
    process.status = EnabledStatus.DISABLED
    process.group.disabled[process.id] = process


def enable(process: ProcessState) -> None:
    """Put a disabled process back into routing."""
    process.status = EnabledStatus.ENABLED
    del process.group.disabled[process.id]
    if has_room(process):
        _insert(process)


def end_oob_work(group: GroupState) -> None:
    """No process is out of routing for out-of-band work any more."""
    group.oob_process = None
    group.oob_begun = False
    group.oob_give_up = group.oob_due = math.inf


def attach_detached(pool: PoolState, process: ProcessState) -> None:
    """Add a new process to the pool that is to leave at once: it counts, but is never chosen."""
    process.status = EnabledStatus.DETACHED
    pool.processes[process.id] = process
    process.group.detached[process.id] = process


def detach(pool: PoolState, process: ProcessState) -> None:
    """Never choose an enabled or disabled process again. Its open sessions continue."""
    _leave(pool, process)
    process.status = EnabledStatus.DETACHED
    process.group.detached[process.id] = process


def forget(pool: PoolState, process: ProcessState) -> None:
    """Remove a process that is gone. Its open sessions still refer to it until each is closed."""
    if process.is_attached:
        _leave(pool, process)
    else:
        del process.group.detached[process.id]
    process.status = EnabledStatus.GONE
    process.leaving = None
    del pool.processes[process.id]


def _leave(pool: PoolState, process: ProcessState) -> None:
    if process.rank is not None:
        _remove(process)
    del process.group.enabled[process.id]
    group = process.group
    group.to_replace.pop(process.id, None)
    group.disabled.pop(process.id, None)
    pool.enabled_count -= 1
    group.oob_wanted.pop(process.id, None)
    if group.oob_process is process:
        end_oob_work(group)
    if group.oob_wanted or (group.oob_process is not None and not group.oob_begun):
        group.oob_due = 0.0  # ``oob_work.look`` is to decide anew


def _insert(process: ProcessState) -> None:
    process.rank = rank = (-process.generation, busyness(process), process.order, process)
    insort(process.group.free, rank)


def _remove(process: ProcessState) -> None:
    assert process.rank is not None
    free = process.group.free
    del free[bisect_left(free, process.rank)]
    process.rank = None
