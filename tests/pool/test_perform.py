"""perform: every command has its effect, in order, in the same step, and a refusal becomes the right error."""

from __future__ import annotations

import typing

import pytest
import trio
from running_pool import KEY, check, checkout_nowait, only, queue_up, running_pool, until
from trio.testing import MockClock, assert_no_checkpoints, wait_all_tasks_blocked

from passenger_trio.core import commands
from passenger_trio.core.commands import PoolEmpty, Reason, Refuse, RetirePreloader
from passenger_trio.core.model import AttemptId, SessionOutcome, WaiterId
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.core.state import EnabledStatus
from passenger_trio.errors import ApplicationRemoved, CheckoutError, PoolShutDown, RequestQueueFull, SpawnError
from passenger_trio.pool.perform import perform, refusal
from passenger_trio.pool.pool import Pool
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner, dummy_failure
from passenger_trio.system.raw_stream import RawStream

WAITER = WaiterId(1)


@pytest.mark.parametrize(
    ("command", "error", "retry_after"),
    [
        (Refuse(WAITER, Reason.QUEUE_FULL), RequestQueueFull, 1),
        (Refuse(WAITER, Reason.SHUT_DOWN), PoolShutDown, None),
        (Refuse(WAITER, Reason.REMOVED), ApplicationRemoved, None),
        (Refuse(WAITER, Reason.SPAWN_FAILED, dummy_failure()), SpawnError, None),
        (Refuse(WAITER, Reason.SPAWN_FAILED, dummy_failure(), 0.0), SpawnError, 1),
        (Refuse(WAITER, Reason.SPAWN_FAILED, dummy_failure(), 0.3), SpawnError, 1),
        (Refuse(WAITER, Reason.SPAWN_FAILED, dummy_failure(), 12.2), SpawnError, 13),
        (Refuse(WAITER, Reason.SPAWN_FAILED, None, 2.0), SpawnError, 2),
    ],
)
def test_a_refusal_becomes_its_error(command: Refuse, error: type[CheckoutError], retry_after: int | None) -> None:
    found = refusal(command)
    assert type(found) is error
    assert found.retry_after == retry_after
    if isinstance(found, SpawnError) and command.failure is not None:
        assert found.failure is command.failure


def test_every_reason_to_refuse_has_its_own_error() -> None:
    found = {
        type(refusal(Refuse(WAITER, reason)))
        for reason in (Reason.QUEUE_FULL, Reason.SHUT_DOWN, Reason.REMOVED, Reason.SPAWN_FAILED)
    }
    assert found == {RequestQueueFull, PoolShutDown, ApplicationRemoved, SpawnError}


async def test_a_command_that_nobody_knows_is_our_bug(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner()) as pool:
        with pytest.raises(AssertionError):
            perform(pool, [object()])  # type: ignore[list-item]


async def test_commands_are_performed_in_one_step_and_in_order(autojump_clock: MockClock) -> None:
    """A shutdown gives every kind but a grant, and a checkout gives that."""
    spawner = DummySpawner(delays=(0.0, 1e6))
    async with running_pool(spawner, limits=PoolLimits(max_pool_size=2)) as pool:
        await until(pool, 1)
        pool.preloader_changed(KEY, 1, 1, True)
        session = checkout_nowait(pool, KEY)
        waiting = queue_up(pool, KEY)
        await wait_all_tasks_blocked()
        assert pool.group_tasks[KEY].attempts
        with assert_no_checkpoints():
            session.close(SessionOutcome.DONE)
        assert waiting.session is not None
        waiting.leave()
        with assert_no_checkpoints():
            pool.shut_down()
        assert spawner.preloaders_retired == 1
        assert all(scope.cancel_called for scope in pool.group_tasks[KEY].attempts.values())
        check(pool)
        await trio.sleep(1)
        assert only(spawner).asked_to_stop == 1
        pool.preloader_changed(KEY, 1, 1, False)
        assert pool.empty.is_set()


async def test_an_attempt_that_has_ended_is_abandoned_in_vain(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner()) as pool:
        await until(pool, 1)
        pool.group_tasks[KEY].abandon_attempt(AttemptId(10**6))


async def test_the_simple_ones(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        perform(pool, [RetirePreloader(KEY, Reason.IDLE), RetirePreloader(KEY, Reason.IDLE)])
        assert spawner.preloaders_retired == 2
    other = Pool(PoolLimits())
    perform(other, [])
    assert not other.empty.is_set()
    perform(other, [PoolEmpty()])
    assert other.empty.is_set()


async def test_a_process_that_drains_is_told_of_and_then_told_to_go(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 19: the log names the process, and the time."""
    spawner = DummySpawner()
    async with running_pool(spawner, group=GroupLimits(max_drain_time=60.0)) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        process = only(spawner)
        pool.detach(session.process.id)
        heard: list[str] = []
        with pool.events.listen() as listener:
            await trio.sleep(59)
            assert (process.asked_to_stop, session.is_overdue) == (0, False)
            assert (
                f"process {process.pid} of {KEY} is leaving and still has 1 request: ending it in 50 s" in caplog.text
            )
            await trio.sleep(2)
            with trio.move_on_after(1):
                async for event in listener:
                    heard.append(event.name)
        assert (process.asked_to_stop, session.is_overdue) == (1, True)
        assert f"ending process {process.pid} of {KEY} with 1 request in progress" in caplog.text
        assert "drain_time_exceeded" in heard
        session.close(SessionOutcome.DONE)


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (b"E\0\0\0\0", ""),
        (b"E\0\0\0\1\1", ""),
        (b"", "it closed the connection"),
        (b"R\0\0\0\0", "answered an order for out-of-band work with something else"),
        (b"E\0\0\0\0E", "bytes behind the end of its out-of-band work"),
        (None, "it took longer than 60 s"),
    ],
)
async def test_out_of_band_work(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, answer: bytes | None, trouble: str
) -> None:
    """OP14: the order goes on a stream of its own; a process whose work fails is replaced."""
    orders: list[bytes] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        orders.append(await stream.recv())
        if answer is None:
            await trio.sleep_forever()
        pieces = [answer] if "behind" in trouble else [bytes([byte]) for byte in answer]
        for piece in pieces:
            await stream.send_all(piece)

    spawner = DummySpawner(serve=serve)
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        session.close(SessionOutcome.DONE)
        session.want_oob_work()
        assert pool.group_statistics(KEY).processes[0].works_out_of_band
        await trio.sleep(70)
        assert orders == [b"O\0\0\0\0"]
        assert pool.group_statistics(KEY).processes[0].state is EnabledStatus.ENABLED
        assert len(spawner.processes) == (2 if trouble else 1)
        assert trouble in caplog.text


def test_the_table_knows_every_command() -> None:
    """mypy says so by ``assert_never``; here the commands are counted, so that a new one comes with a test."""
    assert len(typing.get_args(commands.Command)) == 14
