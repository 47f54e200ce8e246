"""What a decision costs: the median of ``checkout_nowait`` + ``session_closed``, by groups and processes.

    python tests/bench/policy_cost.py

The goal is 10 us or less, and flat as processes grow. Not a test: run it when the machine is calm.
"""

from __future__ import annotations

import statistics
import time

from measure import Figures, table

from passenger_trio.core.commands import StartSpawn
from passenger_trio.core.model import GroupKey, ProcessId, SessionOutcome, WaiterId
from passenger_trio.core.policy import PoolPolicy
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits

SHAPES = ((1, 1), (10, 5), (10, 50))
ROUNDS, BATCH = 400, 100


def a_pool(groups: int, processes: int, concurrency: int) -> tuple[PoolPolicy, list[GroupKey]]:
    """Groups of idle processes."""
    policy = PoolPolicy(PoolLimits(max_pool_size=groups * processes, max_concurrent_spawns=groups * processes))
    keys = [GroupKey(f"app{number}", "production") for number in range(groups)]
    number = 0
    for key in keys:
        for command in policy.add_group(key, GroupLimits(min_instances=processes), 0.0):
            assert isinstance(command, StartSpawn)
            number += 1
            policy.spawn_succeeded(command.attempt, ProcessId(number), concurrency, 0.0)
    return policy, keys


def fast_lane(policy: PoolPolicy, keys: list[GroupKey]) -> float:
    """Microseconds for one checkout and its close, half of the processes busy with somebody else."""
    for key in keys:
        for _ in range(len(policy.state.groups[key].enabled) // 2):
            policy.checkout_nowait(key, 1.0)
    costs = []
    for turn in range(ROUNDS):
        key = keys[turn % len(keys)]
        begun = time.perf_counter()
        for _ in range(BATCH):
            grant = policy.checkout_nowait(key, 2.0)
            assert grant is not None
            policy.session_closed(grant.session, SessionOutcome.DONE, 2.0)
        costs.append((time.perf_counter() - begun) / BATCH)
    return statistics.median(costs) * 1e6


def queue_lane(policy: PoolPolicy, keys: list[GroupKey]) -> float:
    """Microseconds for one checkout that has to queue and the close that serves it, the whole pool busy."""
    sessions = {key: [] for key in keys}
    for key in keys:
        while grant := policy.checkout_nowait(key, 3.0):
            sessions[key].append(grant.session)
    costs = []
    waiter = 0
    for turn in range(ROUNDS):
        key = keys[turn % len(keys)]
        mine = sessions[key]
        begun = time.perf_counter()
        for _ in range(BATCH):
            waiter += 1
            policy.checkout(WaiterId(waiter), key, 4.0)
            [granted] = policy.session_closed(mine.pop(), SessionOutcome.DONE, 4.0)
            mine.append(granted.session)  # type: ignore[union-attr]
        costs.append((time.perf_counter() - begun) / BATCH)
    return statistics.median(costs) * 1e6


def work(rounds: int, seconds: int) -> Figures:
    """A decision of the pool: checkout and close, at once and through the queue, by groups and processes."""
    del rounds, seconds
    rows: Figures = {}
    for groups, processes in SHAPES:
        for concurrency in (1, 4):
            policy, keys = a_pool(groups, processes, concurrency)
            fast = fast_lane(policy, keys)
            fresh, keys = a_pool(groups, processes, concurrency)
            rows[f"{groups} x {processes}, concurrency {concurrency}"] = {
                "fast_us": fast,
                "queue_us": queue_lane(fresh, keys),
            }
    table(
        "groups x processes",
        ("at once us", "through the queue us"),
        {name: (f"{row['fast_us']:.2f}", f"{row['queue_us']:.2f}") for name, row in rows.items()},
    )
    return {"rows": rows}


if __name__ == "__main__":
    work(1, 1)
