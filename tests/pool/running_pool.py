"""A pool that runs over a dummy spawner, and what has to be true of both at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from passenger_trio.core import invariants
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner

KEY = GroupKey("shop", "test")
GRACE = 10.0
"""The shutdown timeout of the group."""
TERM_TIME = 2.0
LONG = 1000.0
"""Virtual seconds in which everything must have come about."""

NONE_TO_START_WITH = GroupLimits(min_instances=0)


class TimedSpawner(DummySpawner):
    """Notes when each spawn was begun."""

    def __init__(self, *, delays: tuple[float, ...] = (0.0,), **how: object) -> None:
        super().__init__(delays=delays, **how)  # type: ignore[arg-type]
        self.begun: list[float] = []

    async def spawn(self) -> DummyProcess:
        self.begun.append(trio.current_time())
        return await super().spawn()


def checkout_nowait(pool: Pool, key: GroupKey) -> Session:
    """Borrow a process that is free now.

    :raises trio.WouldBlock: none is free, or somebody waits already.
    """
    found = None if pool._policy.has_queue(key) else pool._take(key, pool.current_time())
    if found is None:
        raise trio.WouldBlock
    return found


def queue_up(pool: Pool, key: GroupKey) -> Waiter:
    """Wait for a process also where one is free; the place may be answered already."""
    return pool._queue_up(key, pool.current_time(), others_wait=pool._policy.has_queue(key))


async def checkout(pool: Pool, key: GroupKey) -> Session:
    """Borrow a process; wait for one if need be."""
    waiter = queue_up(pool, key)
    try:
        return await waiter.wait()
    except trio.Cancelled:
        waiter.leave()
        raise


@asynccontextmanager
async def running_pool(
    spawner: DummySpawner,
    *,
    limits: PoolLimits | None = None,
    group: GroupLimits | None = None,
    kernel: ErrorKernel | None = None,
) -> AsyncIterator[Pool]:
    """The pool, with one group; cut off at the end of the block, and checked."""
    pool = Pool(limits or PoolLimits(), kernel)
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(KEY, group or GroupLimits(), spawner, GRACE)
        yield pool
        check(pool)
        nursery.cancel_scope.cancel()
    check_end(pool, [spawner])


def check(pool: Pool) -> None:
    """The laws of the policy; and what the shell knows is what the policy knows."""
    state = pool._policy.state
    invariants.check(state)
    assert set(pool.processes) == set(state.processes)
    assert set(pool._waiters) == set(state.waiters)
    for key, home in pool.group_tasks.items():
        assert set(home.keepers) == {id for id, process in pool.processes.items() if process.group == key}
        assert set(home.attempts) == set(state.groups[key].attempts)


def check_end(pool: Pool, spawners: Iterable[DummySpawner]) -> None:
    """Nothing is left, however it ended."""
    for spawner in spawners:
        for process in spawner.processes:
            assert process.exit_status is not None, "it lives"
            assert process.closed, "what belongs to it was not let go"
    assert not pool.processes
    assert not any(home.keepers for home in pool.group_tasks.values())


async def until(pool: Pool, processes: int) -> None:
    """Until the pool has so many processes."""
    with trio.fail_after(LONG):
        while len(pool.processes) != processes:
            await pool.changed.wait()


def only(spawner: DummySpawner) -> DummyProcess:
    (process,) = spawner.processes
    return process


def counts(pool: Pool) -> tuple[int, int]:
    """Sessions that are open, and places in the queue."""
    (group,) = pool.statistics().groups
    return sum(process.sessions for process in group.processes), group.queue_length
