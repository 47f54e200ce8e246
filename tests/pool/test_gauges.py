"""OP6: which processes a round of the gauges measures."""

from __future__ import annotations

import pytest
from running_pool import KEY, checkout_nowait, running_pool

from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.pool.gauges import Gauges
from passenger_trio.pool.pool import Pool
from passenger_trio.spawning.dummy import DummySpawner


def measured(gauges: Gauges, pool: Pool) -> bool:
    """Whether the next round measures the only process."""
    pids = {id: process.live.pid for id, process in pool.processes.items()}
    assert len(pids) == 1
    due, _ = gauges._due(pids, {})
    return due == pids


@pytest.mark.parametrize("limit", [0, 2**30])
async def test_OP6_a_process_that_rests_is_measured_rarely_unless_its_memory_is_limited(limit: int) -> None:
    group = GroupLimits(min_instances=1, memory_limit=limit)
    async with running_pool(DummySpawner(), limits=PoolLimits(max_pool_size=2), group=group) as pool:
        while not pool.processes:
            await pool.changed.wait()
        gauges = Gauges(pool, 1.0)
        assert [measured(gauges, pool) for _ in range(6)] == (
            [True] * 6 if limit else [True, True, False, True, False, False]
        )
        session = checkout_nowait(pool, KEY)
        assert [measured(gauges, pool) for _ in range(3)] == [True] * 3, "it serves"
        session.close(SessionOutcome.DONE)
        assert measured(gauges, pool), "it has served"
        pool.shut_down()
        await pool.empty.wait()
