"""OB10: what the pool knows of a request that failed, for the page that explains it."""

from __future__ import annotations

import trio
from running_pool import KEY, checkout_nowait, only, running_pool, until
from trio.testing import MockClock

from passenger_trio.core.model import GroupKey, SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.spawning.dummy import DummySpawner


async def test_OB10_the_evidence_of_an_end_waits_for_the_exit(autojump_clock: MockClock) -> None:
    """A connection sees the end of the stream first; the status comes later, and the page has it."""
    spawner = DummySpawner()
    async with running_pool(spawner, limits=PoolLimits(max_pool_size=3), group=GroupLimits(max_instances=2)) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        process = only(spawner)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def crash() -> None:
                await trio.sleep(0.1)
                process.exit(-11)

            found = await pool.evidence(KEY, process.pid, ends=True)
        assert found is not None
        assert found.end is not None
        assert (found.end.how, found.end.reason) == ("killed by signal 11 (SIGSEGV)", "")
        assert found.most_processes == 2
        other = GroupKey("other", "test")
        await pool.add_group(other, GroupLimits(), DummySpawner(), 1.0)
        stranger = await pool.evidence(other, process.pid, ends=True)
        assert stranger is not None
        assert stranger.end is None, "it is another application's"
        session.close(SessionOutcome.UNANSWERED)


async def test_OB10_a_process_that_lives_is_waited_for_a_moment_only(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        process = only(spawner)
        begun = trio.current_time()
        found = await pool.evidence(KEY, process.pid, ends=True)
        assert trio.current_time() - begun <= 0.2
        assert found is not None
        assert found.end is None
        assert [(one.pid, one.sessions, one.state) for one in found.processes] == [(process.pid, 1, "enabled")]
        begun = trio.current_time()
        assert await pool.evidence(KEY, process.pid, ends=False) is not None
        assert await pool.evidence(KEY, 0, ends=True) is not None
        assert trio.current_time() == begun
        begun = trio.current_time()
        assert (await pool.evidence(KEY, 999_999_999, ends=True)) is not None, "it ended long ago"
        assert trio.current_time() - begun <= 1.2
        assert await pool.evidence(GroupKey("nobody", "x"), 0, ends=False) is None
        session.close(SessionOutcome.DONE)
