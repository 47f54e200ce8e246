"""KE1, KE10: what the error kernel contains is in the flight recorder."""

from __future__ import annotations

import json

from running_pool import running_pool

from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.core.recorder import replay
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.spawning.dummy import DummySpawner


async def test_what_is_contained_is_a_fact_in_the_flight_recorder() -> None:
    """KE1: a dump shows the fault among what the pool was told, as rarely as the log does, and replays (KE10)."""
    kernel, spawner = ErrorKernel(), DummySpawner()
    async with running_pool(spawner, group=GroupLimits(min_instances=1), kernel=kernel) as pool:
        for _ in range(5):
            with kernel.contain("a hook"):
                raise OSError("no")
        dump = json.loads(json.dumps(pool.trace()()))
    entries = list(replay(dump))
    assert all(entry.answer == answer for entry, answer in entries)
    faults = [entry.arguments[:3] for entry, _ in entries if entry.fact == "fault_contained"]
    assert faults == [("a hook", "OSError: no", times) for times in (1, 2, 4)]
    assert next(entry.fact for entry, _ in entries) == "add_group"
