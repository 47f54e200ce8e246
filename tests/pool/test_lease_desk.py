"""FR2, FR4: the desk that leases processes to fronts, over a pool with dummy processes. The fronts are real but for their process: the
leased pool of each, on a channel that copies descriptors and delivers in a later turn of the loop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from running_pool import KEY, check, check_end, checkout, only, until
from trio.testing import MockClock

from passenger_trio.core.fronts.front_group import MOST_IDLE_TIME
from passenger_trio.core.fronts.messages import FromFront, FromOwner, Grant, Return, Waiting, Want
from passenger_trio.core.model import SessionId, SessionOutcome
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import BadFrontMessage, RequestQueueFull, SpawnError
from passenger_trio.fronts.leased_pool import LeasedPool
from passenger_trio.pool.lease_desk import LeaseDesk
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Session
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner, dummy_failure
from passenger_trio.system.raw_stream import RawStream

pytestmark = pytest.mark.usefixtures("nothing_left")

DONE = SessionOutcome.DONE
LONG = 30.0


class NearFront:
    """A front in this process."""

    def __init__(self, desk: LeaseDesk, most_queued: int = 0) -> None:
        self._desk = desk
        self._to_owner, self._from_front = trio.open_memory_channel[FromFront](1000)
        self._to_front, self._from_owner = trio.open_memory_channel[tuple[FromOwner, int]](1000)
        self.pool = LeasedPool(self, ErrorKernel())
        self.pool.add_group(KEY, most_queued)
        self._streams: list[RawStream] = []
        self.sent: list[FromFront] = []
        self.got: list[FromOwner] = []
        self.id = desk.front_came(self._deliver)

    def _deliver(self, message: FromOwner, descriptor: int) -> None:
        self._to_front.send_nowait((message, os.dup(descriptor) if descriptor >= 0 else -1))

    def send(self, message: FromFront) -> None:
        """See ``Outbox``."""
        self.sent.append(message)
        self._to_owner.send_nowait(message)

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.pool.run)
                nursery.start_soon(self._hear)
                async for message in self._from_front:
                    self._desk.received(self.id, message)
        finally:
            for stream in self._streams:  # as the kernel does for a process that ends
                stream.close()

    async def _hear(self) -> None:
        async for message, descriptor in self._from_owner:
            stream = None
            if descriptor >= 0:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                stream = RawStream(sock)
                self._streams.append(stream)
            self.got.append(message)
            self.pool.receive(message, stream)

    async def checkout(self) -> Session:
        found = self.pool.checkout_or_queue(KEY, trio.current_time())
        return found if isinstance(found, Session) else await found.wait()


class Fronts:
    def __init__(self, pool: Pool, nursery: trio.Nursery) -> None:
        self.pool = pool
        self.desk = LeaseDesk(pool, ErrorKernel())
        self.running = trio.CancelScope()
        """Around the desk's task."""
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}

    async def run(self) -> None:
        with self.running:
            await self.desk.run()

    def front(self, most_queued: int = 0) -> NearFront:
        front = NearFront(self.desk, most_queued)
        self._scopes[front.id] = scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await front.run()

        self._nursery.start_soon(run)
        return front

    def kill(self, front: NearFront) -> None:
        self._scopes[front.id].cancel()
        self.desk.front_gone(front.id)

    async def nothing_leased(self) -> None:
        with trio.fail_after(LONG):
            while self.pool._policy.state.sessions:  # noqa: ASYNC110  nothing tells of it
                await trio.sleep(0.01)


@asynccontextmanager
async def fronts_on(spawner: DummySpawner, *, group: GroupLimits | None = None, size: int = 1) -> AsyncIterator[Fronts]:
    pool = Pool(PoolLimits(max_pool_size=size))
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(KEY, group or GroupLimits(), spawner, 10.0)
        fronts = Fronts(pool, nursery)
        nursery.start_soon(fronts.run)
        yield fronts
        check(pool)
        nursery.cancel_scope.cancel()
    check_end(pool, [spawner])


async def echo(process: DummyProcess, stream: RawStream) -> None:
    """Answers what it gets, and ends its side when the other has ended."""
    while data := await stream.recv():
        await stream.send_all(data)


async def asks(session: Session, what: bytes) -> None:
    stream = session.connect_nowait()
    await stream.send_all(what)
    assert await stream.recv() == what


async def test_FR2_two_fronts_share_a_process_and_its_stream(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner) as fronts:
        one, other = fronts.front(), fronts.front()
        first = await one.checkout()
        await asks(first, b"one")
        assert first.pid == only(spawner).pid
        waiting = other.pool.checkout_or_queue(KEY, trio.current_time())
        await trio.sleep(1)
        assert not waiting.answered
        first.close(DONE, keep_stream=True)
        with trio.fail_after(LONG):
            second = await waiting.wait()
        await asks(second, b"other")
        assert second.reused, "the owner kept the stream, and granted it again"
        second.close(DONE, keep_stream=True)
        await fronts.nothing_leased()
        assert fronts.pool.statistics().groups[0].processes[0].processed == 2


async def test_FR2_a_front_asks_once_for_many_requests(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner) as fronts:
        front = fronts.front()
        for number in range(50):
            session = await front.checkout()
            await asks(session, b"%d" % number)
            session.close(DONE, keep_stream=True)
        await trio.sleep(MOST_IDLE_TIME / 2)
        assert len(front.sent) <= 5, front.sent
        await fronts.nothing_leased()
        assert fronts.pool.statistics().groups[0].processes[0].processed == 50


async def test_FR2_a_slot_goes_to_the_waiter_that_the_queue_has_chosen(autojump_clock: MockClock) -> None:
    """The pool gives a slot to the oldest waiter. In the same moment its front says that this one was served, and that a younger one waits: the slot was
    given to that one, before older ones at other fronts.
    """
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner) as fronts:
        await trio.sleep(5)
        session = await checkout(fronts.pool, KEY)
        sent: list[FromOwner] = []
        front = fronts.desk.front_came(lambda message, descriptor: sent.append(message))
        now = trio.current_time()
        old, young = Waiting(now - 2, None, b""), Waiting(now - 1, None, b"")
        fronts.desk.received(front, Want(KEY, (old,), 1, 0, 0.0))
        session.close(DONE)
        fronts.desk.received(front, Want(KEY, (young,), 1, 0, 0.0))
        await trio.lowlevel.checkpoint()
        (grant,) = [message for message in sent if isinstance(message, Grant)]
        assert grant.arrival == old.arrival
        fronts.desk.received(front, Return(1, grant.slot, 0, SessionOutcome.NOT_STARTED, reusable=True))
        fronts.desk.front_gone(front)
        await fronts.nothing_leased()


async def test_FR4_what_a_dead_front_left_is_over_before_its_place_is_free(autojump_clock: MockClock) -> None:
    ends = trio.Event()

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        while await stream.recv():
            pass
        await ends.wait()  # it computes for a client that is gone

    spawner = DummySpawner(serve=serve)
    async with fronts_on(spawner) as fronts:
        one, other = fronts.front(), fronts.front()
        session = await one.checkout()
        await session.connect_nowait().send_all(b"x")
        waiting = other.pool.checkout_or_queue(KEY, trio.current_time())
        await trio.sleep(0.1)
        fronts.kill(one)
        await trio.sleep(5)
        assert not waiting.answered
        ends.set()
        with trio.fail_after(LONG):
            (await waiting.wait()).close(DONE)
        await fronts.nothing_leased()


async def test_FR4_a_front_that_outlasts_the_desk_gives_its_slots_back(autojump_clock: MockClock) -> None:
    """A front that stands still is killed when the server has no more time: the desk has ended by then, or ends later."""

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        await trio.sleep_forever()

    async with fronts_on(DummySpawner(serve=serve)) as fronts:
        one, other = fronts.front(), fronts.front()
        (await one.checkout()).connect_nowait()
        await trio.sleep(0.1)
        fronts.running.cancel()
        await trio.testing.wait_all_tasks_blocked()
        fronts.kill(one)
        fronts.kill(other)
        await fronts.nothing_leased()


async def test_FR4_a_front_that_lies_is_refused_and_nothing_changes(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner) as fronts:
        one, other = fronts.front(), fronts.front()
        session = await one.checkout()
        with pytest.raises(BadFrontMessage, match="returns slot"):
            fronts.desk.received(other.id, Return(1, SessionId(session.id), 0, SessionOutcome.NOT_STARTED, True))
        check(fronts.pool)
        await asks(session, b"still mine")
        session.close(DONE, keep_stream=True)
        await fronts.nothing_leased()


async def test_FR2_an_application_that_does_not_start_is_told_at_each_front(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(failures=(dummy_failure("it is broken"),))
    async with fronts_on(spawner, group=GroupLimits(min_instances=0)) as fronts:
        found = [front.pool.checkout_or_queue(KEY, trio.current_time()) for front in (fronts.front(), fronts.front())]
        for waiting in found:
            with trio.fail_after(LONG), pytest.raises(SpawnError, match="it is broken"):
                await waiting.wait()


async def test_FR5_the_limit_of_the_queue_counts_all_fronts(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner, group=GroupLimits(max_request_queue_size=3)) as fronts:
        one, other = fronts.front(3), fronts.front(3)
        session = await one.checkout()
        waiting = [one.pool.checkout_or_queue(KEY, trio.current_time()) for _ in range(2)]
        await trio.sleep(0.1)
        waiting.append(other.pool.checkout_or_queue(KEY, trio.current_time()))
        await trio.sleep(0.1)
        refused = other.pool.checkout_or_queue(KEY, trio.current_time())
        with pytest.raises(RequestQueueFull):
            await refused.wait()
        session.close(DONE)
        for place in waiting:
            with trio.fail_after(LONG):
                (await place.wait()).close(DONE)
        await fronts.nothing_leased()


async def test_FR2_a_request_of_the_owners_own_program_gets_its_turn(autojump_clock: MockClock) -> None:
    """While a front has work without end, what it leases comes back for who is older."""
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner) as fronts:
        front = fronts.front()
        served = 0
        done = trio.Event()

        async def client() -> None:
            nonlocal served
            while not done.is_set():
                session = await front.checkout()
                await trio.sleep(0.005)
                session.close(DONE, keep_stream=True)
                served += 1

        async with trio.open_nursery() as clients:
            clients.start_soon(client)
            clients.start_soon(client)
            await trio.sleep(0.5)
            with trio.fail_after(0.1):
                session = await checkout(fronts.pool, KEY)
            session.close(DONE)
            done.set()
        assert served > 50
        await fronts.nothing_leased()


async def test_FR4_a_detached_process_is_recalled_and_held_sessions_are_told(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner, size=2) as fronts:
        front = fronts.front()
        session = await front.checkout()
        session.connect_nowait()
        told = trio.Event()
        session.set_long_lived(told.set)
        await trio.sleep(0.1)
        (id,) = fronts.pool.processes
        assert fronts.pool.detach(id)
        with trio.fail_after(LONG):
            await told.wait()
        session.close(DONE)
        with trio.fail_after(LONG):
            while id in fronts.pool.processes:
                await fronts.pool.changed.wait()
        await fronts.nothing_leased()


async def test_FR4_a_disabled_process_is_withdrawn_from_a_busy_front(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner, group=GroupLimits(min_instances=2), size=2) as fronts:
        front = fronts.front()
        await until(fronts.pool, 2)
        sessions = [await front.checkout(), await front.checkout()]
        out = sessions[0].process.id
        assert fronts.pool.disable(out)
        await trio.sleep(0.1)
        for session in sessions:
            session.close(DONE)
        for _ in range(20):
            session = await front.checkout()
            assert session.process.id != out
            session.close(DONE, keep_stream=True)
        await fronts.nothing_leased()


async def test_FR2_a_process_that_takes_no_stream_is_replaced(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(serve=echo)
    async with fronts_on(spawner) as fronts:
        front = fronts.front()
        await until(fronts.pool, 1)
        process = only(spawner)
        process.connect_nowait = _refuses  # type: ignore[method-assign]
        waiting = front.pool.checkout_or_queue(KEY, trio.current_time())
        with trio.fail_after(LONG):
            session = await waiting.wait()
        assert session.pid != process.pid
        session.close(DONE)
        await fronts.nothing_leased()


def _refuses() -> RawStream:
    raise ConnectionRefusedError(111, "Connection refused")


async def test_FR4_each_request_finds_a_fresh_process_from_the_moment_that_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    """``always_restart.txt``: a slot that stayed at a front had served one more request with the code of before."""
    async with fronts_on(DummySpawner(serve=echo)) as fronts:
        front = fronts.front()
        session = await front.checkout()
        await asks(session, b"one")
        session.close(DONE, keep_stream=True)
        first = session.process.id
        await trio.sleep(MOST_IDLE_TIME / 10)
        assert front.pool._ledger.slots
        fronts.pool.always_restart(KEY, True)
        await trio.sleep(MOST_IDLE_TIME / 10)
        session = await front.checkout()
        assert session.process.id != first
        await asks(session, b"two")
        session.close(DONE, keep_stream=True)
        await fronts.nothing_leased()
