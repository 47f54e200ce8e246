"""A session's stream: kept after a good end, taken last in first out, and never kept for a process that is on its way out."""

from __future__ import annotations

import pytest
import trio
from running_pool import KEY, checkout, checkout_nowait, counts, only, running_pool, until
from trio.testing import MockClock, wait_all_tasks_blocked

from passenger_trio.core.model import SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.errors import ProcessUnreachable
from passenger_trio.pool.session import Session
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner
from passenger_trio.system.raw_stream import RawStream

pytestmark = pytest.mark.usefixtures("nothing_left")

DONE = SessionOutcome.DONE
ONE = PoolLimits(max_pool_size=1)


class Counting(DummySpawner):
    """Counts the streams that its processes serve, now and at most; like a worker, each serves one at a time and thread."""

    def __init__(self, concurrency: int = 1) -> None:
        super().__init__(concurrency=concurrency, serve=self.echo)
        self.open = 0
        self.most = 0

    async def echo(self, process: DummyProcess, stream: RawStream) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while data := await stream.recv():
                await stream.send_all(data)
        finally:
            self.open -= 1


async def exchange(session: Session) -> None:
    """One request and its response on the session's stream."""
    assert session.stream is not None
    session.stream.send_nowait(b"ping")
    assert await session.stream.recv() == b"ping"


async def test_a_stream_is_used_again(autojump_clock: MockClock) -> None:
    spawner = Counting()
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        streams = set()
        for turn in range(3):
            session = checkout_nowait(pool, KEY)
            streams.add(session.connect_nowait())
            assert session.reused == (turn > 0)
            await exchange(session)
            session.close(DONE, keep_stream=True)
            assert session.stream is None
        assert len(streams) == 1
        assert spawner.most == 1


async def test_the_stream_that_was_used_last_is_used_first(autojump_clock: MockClock) -> None:
    """It is the warmest, and those that are never needed stay at the bottom."""
    async with running_pool(Counting(3), limits=ONE) as pool:
        await until(pool, 1)
        sessions = [checkout_nowait(pool, KEY) for _ in range(3)]
        first, second, third = [session.connect_nowait() for session in sessions]
        for index in (1, 0, 2):
            sessions[index].close(DONE, keep_stream=True)
        again = [checkout_nowait(pool, KEY) for _ in range(3)]
        assert [session.connect_nowait() for session in again] == [third, first, second]
        for session in again:
            session.close(DONE)


@pytest.mark.parametrize("outcome", list(SessionOutcome))
@pytest.mark.parametrize("keep", [True, False])
async def test_only_a_good_end_keeps_the_stream(outcome: SessionOutcome, keep: bool, autojump_clock: MockClock) -> None:
    spawner = Counting()
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        stream = session.connect_nowait()
        await exchange(session)
        session.close(outcome, keep_stream=keep)
        kept = outcome is DONE and keep
        assert (stream.fd >= 0) == kept
        await wait_all_tasks_blocked()
        assert spawner.open == kept


async def test_a_session_is_closed_once(autojump_clock: MockClock) -> None:
    async with running_pool(Counting(), limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        session.connect_nowait()
        session.close(DONE, keep_stream=True)
        again = checkout_nowait(pool, KEY)
        session.close(SessionOutcome.PROCESS_FAILED)
        assert counts(pool) == (1, 0)
        assert pool.processes
        again.close(DONE)


async def test_a_session_may_close_without_a_stream(autojump_clock: MockClock) -> None:
    async with running_pool(Counting(), limits=ONE) as pool:
        await until(pool, 1)
        checkout_nowait(pool, KEY).close(DONE, keep_stream=True)
        assert counts(pool) == (0, 0)


async def test_dropping_a_stream_keeps_the_session(autojump_clock: MockClock) -> None:
    async with running_pool(Counting(), limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        stream = session.connect_nowait()
        session.drop_stream()
        session.drop_stream()
        assert stream.fd == -1
        assert counts(pool) == (1, 0)
        session.connect_nowait()
        await exchange(session)
        session.close(DONE)


async def test_a_fresh_stream_takes_the_place_of_an_idle_one(autojump_clock: MockClock) -> None:
    """A worker of one thread that waits on an idle stream accepts no other: with both open the request would wait for ever."""
    spawner = Counting()
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        old = session.connect_nowait()
        await exchange(session)
        session.close(DONE, keep_stream=True)
        session = checkout_nowait(pool, KEY)
        fresh = session.connect_nowait(new=True)
        assert fresh is not old
        assert not session.reused
        assert old.fd == -1
        await exchange(session)
        session.close(DONE, keep_stream=True)
        await wait_all_tasks_blocked()
        assert spawner.open == 1


async def test_streams_are_never_more_than_sessions_may_be(autojump_clock: MockClock) -> None:
    spawner = Counting(2)
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        for turn in range(20):
            sessions = [checkout_nowait(pool, KEY) for _ in range(2)]
            for session in sessions:
                session.connect_nowait(new=turn % 3 == 0)
                await exchange(session)
            for session in sessions:
                session.close(DONE, keep_stream=turn % 4 != 0)
            (process,) = pool.processes.values()
            assert len(process.idle_streams) <= 2
        await wait_all_tasks_blocked()
        assert spawner.open <= 2


async def test_a_process_that_is_retired_gets_its_streams_closed_and_keeps_no_more(autojump_clock: MockClock) -> None:
    spawner = Counting(2)
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        only(spawner).obeys = False
        sessions = [checkout_nowait(pool, KEY) for _ in range(2)]
        idle, busy = (session.connect_nowait() for session in sessions)
        for session in sessions:
            await exchange(session)
        sessions[0].close(DONE, keep_stream=True)
        pool.shut_down()
        assert idle.fd >= 0, "it is not retired while a session is open"
        sessions[1].close(DONE, keep_stream=True)
        assert idle.fd == busy.fd == -1
        with trio.fail_after(100):
            await pool.empty.wait()


async def test_a_session_that_outlasts_the_retirement_does_not_give_its_stream_back(autojump_clock: MockClock) -> None:
    spawner = Counting(2)
    async with running_pool(spawner, limits=ONE, group=GroupLimits(min_instances=0)) as pool:
        sessions = [await checkout(pool, KEY) for _ in range(2)]
        streams = [session.connect_nowait() for session in sessions]
        sessions[0].close(SessionOutcome.PROCESS_FAILED)  # retires it
        only(spawner).obeys = False
        sessions[1].close(DONE, keep_stream=True)
        assert [stream.fd for stream in streams] == [-1, -1]


async def test_a_session_that_outlasts_the_process_does_not_give_its_stream_back(autojump_clock: MockClock) -> None:
    spawner = Counting()
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        stream = session.connect_nowait()
        only(spawner).exit(0)
        await until(pool, 0)
        session.close(DONE, keep_stream=True)
        assert stream.fd == -1


async def test_idle_streams_end_with_their_process(autojump_clock: MockClock) -> None:
    spawner = Counting()
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        stream = session.connect_nowait()
        session.close(DONE, keep_stream=True)
        only(spawner).exit(0)
        await until(pool, 0)
        assert stream.fd == -1


async def test_a_process_that_refuses_is_unreachable(autojump_clock: MockClock) -> None:
    spawner = Counting()
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        only(spawner).exit(0)
        with pytest.raises(ProcessUnreachable, match="1001 does not accept a connection: Connection refused"):
            session.connect_nowait()
        assert session.stream is None
        session.close(SessionOutcome.PROCESS_FAILED)


async def test_a_stream_that_the_worker_has_ended_is_found_out_by_its_user(autojump_clock: MockClock) -> None:
    async def once(process: DummyProcess, stream: RawStream) -> None:
        await stream.send_all(await stream.recv())

    async with running_pool(DummySpawner(serve=once), limits=ONE) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        session.connect_nowait()
        await exchange(session)
        session.close(DONE, keep_stream=True)
        session = checkout_nowait(pool, KEY)
        stream = session.connect_nowait()
        assert session.reused
        assert await stream.recv() == b""
        session.drop_stream()
        session.connect_nowait()
        assert not session.reused
        await exchange(session)
        session.close(DONE)
