"""FR2: the pool's interface in a front: sessions on leased slots, over a real channel; the test is the owner."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from passenger_trio.codecs.front_reports import (
    Ask,
    Asked,
    Explain,
    Explained,
    FrameReader,
    encode_explain,
    encode_order,
    encode_serving,
)
from passenger_trio.core.accept_gate import Turn
from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.messages import (
    FromFront,
    FromOwner,
    Grant,
    Pinned,
    ProcessCame,
    ProcessGoes,
    Refused,
    Return,
    Want,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import BadFrontMessage, ProcessUnreachable, RequestQueueFull
from passenger_trio.fronts.explaining import Explanations, may_explain
from passenger_trio.fronts.front_keeper import FrontKeeper
from passenger_trio.fronts.heartbeats import STALE, Board, BoardGate, Hint
from passenger_trio.fronts.lease_channel import BrokenLink, FrontLink, OwnerLink
from passenger_trio.fronts.leased_pool import LeasedPool
from passenger_trio.fronts.remote_process import RemoteProcess
from passenger_trio.fronts.reports import Reports
from passenger_trio.fronts.setup import FrontSetup
from passenger_trio.options import AppOptions
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.system.packets import packet_pair
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials

SHOP = GroupKey("shop", "test")
ONE = ProcessId(1)


class Owner:
    """The other end: what has come, and what is sent."""

    def __init__(self, link: OwnerLink, pool: LeasedPool, process: ProcessCame) -> None:
        self.link = link
        self.pool = pool
        self.come: list[FromFront] = []
        self._more = trio.Event()
        self._grants = 0
        self.link.send(process)

    def take(self, message: FromFront) -> None:
        self.come.append(message)
        self._more.set()
        self._more = trio.Event()

    async def wait(self, kind: type[FromFront]) -> FromFront:
        """The first message of that kind that has not been taken yet."""
        with trio.fail_after(10):
            while True:
                for message in self.come:
                    if isinstance(message, kind):
                        self.come.remove(message)
                        return message
                await self._more.wait()

    def grant(self, *, reused: bool = False) -> tuple[socket.socket, socket.socket]:
        """Grant a slot; the owner's duplicate of its stream, and the process's end."""
        ours, process = socket.socketpair()
        for sock in (ours, process):
            sock.settimeout(10)
        self._grants += 1
        self.link.send(
            Grant(self._grants, SessionId(self._grants), ONE, 0, True, reused, trio.current_time()), ours.fileno()
        )
        return ours, process


@asynccontextmanager
async def leased(address: str = "unix:/nowhere") -> AsyncIterator[tuple[LeasedPool, Owner]]:
    one, other = packet_pair()
    link = FrontLink(one)
    pool = LeasedPool(link, ErrorKernel())
    pool.add_group(SHOP, 2)
    owner = Owner(OwnerLink(other), pool, ProcessCame(ONE, SHOP, os.getpid(), 1, "session", True, address, b"r"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, pool.receive)
        nursery.start_soon(owner.link.run, owner.take)
        nursery.start_soon(pool.run)
        yield pool, owner
        nursery.cancel_scope.cancel()


async def a_session(pool: LeasedPool, owner: Owner) -> tuple[Session, socket.socket, socket.socket]:
    waiter = pool.checkout_or_queue(SHOP, pool.current_time())
    assert isinstance(waiter, Waiter)
    want = await owner.wait(Want)
    assert isinstance(want, Want)
    assert (want.group, want.waiting) == (SHOP, 1)
    ours, process = owner.grant()
    with trio.fail_after(10):
        return await waiter.wait(), ours, process


async def test_R36_a_slot_waits_until_the_front_has_a_descriptor_for_it() -> None:
    """The kernel would drop the slot, and the front ended, with all of its clients."""
    async with leased() as (pool, owner):
        waiter = pool.checkout_or_queue(SHOP, pool.current_time())
        assert isinstance(waiter, Waiter)
        await owner.wait(Want)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ours, process = owner.grant()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not waiter.answered
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with trio.fail_after(10):
            session = await waiter.wait()
        session.close(SessionOutcome.DONE)
        ours.close()
        process.close()


async def test_a_slot_serves_one_request_after_another_and_goes_back_with_its_stream() -> None:
    async with leased() as (pool, owner):
        session, ours, process = await a_session(pool, owner)
        for number in range(3):
            stream = session.connect_nowait()
            assert session.reused == (number > 0)
            stream.send_nowait(b"request")
            assert process.recv(100) == b"request"
            session.close(SessionOutcome.DONE, keep_stream=True)
            session.close(SessionOutcome.PROCESS_FAILED)  # idempotent
            if number < 2:
                again = pool.checkout_or_queue(SHOP, pool.current_time())
                assert isinstance(again, Session), "the slot is here: nobody is asked"
                session = again
        back = await owner.wait(Return)
        assert back == Return(1, SessionId(1), 3, SessionOutcome.NOT_STARTED, True)
        ours.send(b"still open")
        assert process.recv(100) == b"still open"
        assert pool.leased == 0
        ours.close()
        process.close()


async def test_a_stream_that_is_not_at_a_boundary_ends_for_the_owner_too() -> None:
    """A duplicate would keep it open, and the process would wait for it."""
    async with leased() as (pool, owner):
        session, ours, process = await a_session(pool, owner)
        session.connect_nowait().send_nowait(b"request")
        session.close(SessionOutcome.BROKEN_OFF)
        back = await owner.wait(Return)
        assert isinstance(back, Return)
        assert (back.outcome, back.reusable) == (SessionOutcome.BROKEN_OFF, False)
        assert process.recv(100) == b"request"
        assert process.recv(100) == b""
        ours.close()
        process.close()


async def test_a_session_that_was_not_used_gives_the_stream_back_as_it_came() -> None:
    async with leased() as (pool, owner):
        session, ours, process = await a_session(pool, owner)
        session.close(SessionOutcome.NOT_STARTED)
        back = await owner.wait(Return)
        assert back == Return(1, SessionId(1), 0, SessionOutcome.NOT_STARTED, True)
        ours.close()
        process.close()


async def test_a_stream_of_our_own_is_never_granted_again(tmp_path: object) -> None:
    """R30: the second try takes a new stream; the old one has ended, and the slot comes back without one."""
    path = f"{tmp_path}/worker"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        async with leased(f"unix:{path}") as (pool, owner):
            session, ours, process = await a_session(pool, owner)
            session.connect_nowait()
            session.close(SessionOutcome.DONE, keep_stream=True)
            again = pool.checkout_or_queue(SHOP, pool.current_time())
            assert isinstance(again, Session)
            again.connect_nowait(new=True).send_nowait(b"anew")
            assert process.recv(100) == b""
            worker, _ = listener.accept()
            assert worker.recv(100) == b"anew"
            again.close(SessionOutcome.DONE, keep_stream=True)
            back = await owner.wait(Return)
            assert isinstance(back, Return)
            assert (back.served, back.reusable) == (2, False)
            assert worker.recv(100) == b""
            for sock in (worker, ours, process):
                sock.close()


async def test_a_process_that_does_not_listen_is_unreachable() -> None:
    async with leased() as (pool, owner):
        session, ours, process = await a_session(pool, owner)
        session.connect_nowait()
        session.drop_stream()
        with pytest.raises(ProcessUnreachable):
            session.connect_nowait()
        session.close(SessionOutcome.PROCESS_FAILED)
        ours.close()
        process.close()


async def test_who_holds_a_session_is_told_when_its_process_goes() -> None:
    async with leased() as (pool, owner):
        session, ours, process = await a_session(pool, owner)
        session.connect_nowait()
        told: list[bool] = []
        session.set_long_lived(lambda: told.append(True))
        assert await owner.wait(Pinned) == Pinned(SessionId(1), True, True, False)
        owner.link.send(ProcessGoes(ONE, leaving=True, killed=True, overdue=(SessionId(1),)))
        with trio.fail_after(10):
            await session.process.left.wait()
        assert told == [True]
        assert session.is_overdue
        assert session.process.killed
        session.close(SessionOutcome.DONE)
        await owner.wait(Return)
        ours.close()
        process.close()


async def test_a_refused_waiter_and_one_too_many_get_their_errors() -> None:
    async with leased() as (pool, owner):
        now = pool.current_time()
        waiters = [pool.checkout_or_queue(SHOP, now) for _ in range(4)]
        assert isinstance(waiters[3], Waiter)
        assert isinstance(waiters[3].error, RequestQueueFull), "the queue is two long, and one slot may come"
        await owner.wait(Want)
        owner.link.send(Refused(SHOP, Reason.QUEUE_FULL, None))
        for waiter in waiters[:3]:
            assert isinstance(waiter, Waiter)
            with trio.fail_after(10), pytest.raises(RequestQueueFull):
                await waiter.wait()


async def test_the_ledgers_failure_ends_the_front() -> None:
    """KE1: after it nothing that the ledger decides can be trusted."""
    one, other = packet_pair()
    with other:
        pool = LeasedPool(FrontLink(one), ErrorKernel())
        with pytest.raises(KeyError):
            pool.checkout_or_queue(SHOP, pool.current_time())
        with trio.fail_after(10), pytest.raises(KeyError):
            await pool.run()
        one.close()


async def test_the_owner_reads_strictly_and_sees_the_end() -> None:
    for send, error in ((b"nonsense", BadFrontMessage), (b"", BrokenLink)):
        one, other = packet_pair()
        if send:
            one.send(send)
        else:
            one.close()
        with trio.fail_after(10), pytest.RaisesGroup(error):
            await OwnerLink(other).run(lambda message: None)
        one.close()


async def test_what_a_peer_does_not_take_waits_with_its_descriptor() -> None:
    one, other = packet_pair()
    link = OwnerLink(other)
    came: list[FromOwner] = []
    with_stream: list[int] = []
    all_came = trio.Event()

    def receive(message: FromOwner, stream: RawStream | None) -> None:
        came.append(message)
        if stream is not None:
            with_stream.append(len(came))
            stream.close()
        if len(came) == len(sent):
            all_came.set()

    sent = [Grant(number, SessionId(number), ONE, 0, False, False, 1.0) for number in range(1, 3000)]
    end, far = socket.socketpair()
    with end, far:
        for grant in sent:
            link.send(grant, end.fileno() if grant.number % 100 == 0 else -1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, lambda message: None)
        nursery.start_soon(FrontLink(one).run, receive)
        with trio.fail_after(30):
            await all_came.wait()
        nursery.cancel_scope.cancel()
    assert came == sent
    assert with_stream == list(range(100, 3000, 100))


def test_whom_a_front_believes_to_be_a_worker() -> None:
    """KE5, predicate of trust: the process itself listens, and no other."""
    live = RemoteProcess.of(ProcessCame(ONE, SHOP, os.getpid(), 1, "session", False, "unix:/run/w", b""))
    assert live._is_listener(PeerCredentials(os.getpid(), os.getuid(), 0))
    assert not live._is_listener(PeerCredentials(1, os.getuid(), 0))
    assert not live._is_listener(PeerCredentials(0, os.getuid(), 0))


def test_FR3_a_front_without_a_sign_of_life_does_not_count() -> None:
    now = 1000.0
    board = Board.create(2)
    gate = BoardGate(board, 0, lambda: 10, lambda: False, lambda: now)
    other = board.lines[1]
    assert gate.turn() is Turn.TAKE, "the other has never written"
    other[Hint.HEARTBEAT], other[Hint.MOST] = int(now * 1000), 10
    assert gate.turn() is Turn.LEAVE
    assert board.read(0, now).connections == 10
    now += 2 * STALE
    assert gate.turn() is Turn.TAKE
    board.clear(0)
    assert board.read(0, now).connections == 0


async def test_FR5_a_front_that_starts_is_asked_for_nothing() -> None:
    """Each ``status`` had waited a second for it."""

    class Office:
        def front_came(self, send: object) -> int:
            return 1

        def received(self, front: int, message: object) -> None: ...

        def front_gone(self, front: int) -> None: ...

        async def evidence(self, key: GroupKey, pid: int, *, ends: bool) -> None: ...

    def setup(leases: int, page: int) -> FrontSetup:
        raise AssertionError("it is not started here")

    board = Board.create(1)
    keeper = FrontKeeper(0, setup, Office(), board)
    keeper.pid = 1
    keeper.order(Ask(1, Asked.FACTS))
    assert not keeper.serves
    assert keeper._waiting == b""
    reader = FrameReader()
    reader.feed(encode_serving())
    (serving,) = reader.frames()
    keeper._take(serving)
    keeper.order(Ask(2, Asked.FACTS))
    assert keeper.serves
    assert keeper._waiting == encode_order(Ask(2, Asked.FACTS))
    board.page.close()


def test_OB10_a_front_is_told_of_applications_whose_pages_explain_themselves() -> None:
    """Predicate of trust: what processes of others have written is not for a front."""
    open_one, mute = GroupKey("open", "development"), GroupKey("mute", "production")
    routes = [
        (open_one, AppOptions(environment="development")),
        (mute, AppOptions(environment="production")),
    ]
    assert [app.explains_errors for _, app in routes] == [True, False]
    assert may_explain(Explain(1, open_one, 4711, True), routes)
    assert not may_explain(Explain(1, mute, 4711, True), routes)
    assert not may_explain(Explain(1, GroupKey("open", "production"), 4711, True), routes)
    assert not may_explain(Explain(1, GroupKey("nobody", "development"), 4711, True), routes)


async def test_OB10_an_owner_that_says_nothing_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    sent: list[bytes] = []

    class Sent(Reports):
        def __init__(self) -> None: ...

        def send(self, report: bytes) -> None:
            sent.append(report)

    explanations = Explanations(Sent())
    begun = trio.current_time()
    assert await explanations.ask(GroupKey("shop", "x"), 1, ends=True) is None
    assert trio.current_time() - begun <= 2
    explanations.answered(Explained(1, None))  # too late
    assert sent == [encode_explain(Explain(1, GroupKey("shop", "x"), 1, True))]
