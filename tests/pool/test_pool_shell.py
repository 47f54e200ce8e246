"""The pool's shell: who waits is answered once, what was granted comes back, what was started ends, whatever happens when."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest
import trio
from running_pool import (
    GRACE,
    KEY,
    LONG,
    NONE_TO_START_WITH,
    TERM_TIME,
    TimedSpawner,
    check,
    check_end,
    checkout,
    checkout_nowait,
    counts,
    only,
    queue_up,
    running_pool,
    until,
)
from trio.testing import MockClock, Sequencer, assert_checkpoints, wait_all_tasks_blocked

from passenger_trio.core.backoff_and_circuit import CRASHES_TOLERATED, SPREAD
from passenger_trio.core.commands import Reason, Refuse
from passenger_trio.core.model import GroupKey, SessionId, SessionOutcome, WaiterId
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits
from passenger_trio.errors import (
    ApplicationRemoved,
    CheckoutError,
    InvariantBroken,
    PoolShutDown,
    RequestQueueFull,
    SpawnError,
)
from passenger_trio.pool.pool import Pool
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.spawning.dummy import DummyProcess, DummySpawner, dummy_failure

pytestmark = pytest.mark.usefixtures("nothing_left")

DONE = SessionOutcome.DONE
NEVER = 1e6
"""A spawn that takes so long does not come."""


# --- borrowing --------------------------------------------------------------------------------------------------------


async def test_a_free_process_is_borrowed_at_once(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        assert session.pid == only(spawner).pid
        assert counts(pool) == (1, 0)
        with pytest.raises(trio.WouldBlock):
            checkout_nowait(pool, KEY)
        session.close(DONE)
        assert counts(pool) == (0, 0)
        with assert_checkpoints():
            session = await checkout(pool, KEY)
        session.close(DONE)


async def test_whoever_waits_is_served_in_the_order_of_arrival_and_not_overtaken(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(), limits=PoolLimits(max_pool_size=1)) as pool:
        await until(pool, 1)
        first = checkout_nowait(pool, KEY)
        order: list[int] = []
        sequence = Sequencer()
        async with trio.open_nursery() as nursery:

            async def client(number: int) -> None:
                async with sequence(number):
                    waiter = queue_up(pool, KEY)
                session = await waiter.wait()
                order.append(number)
                with pytest.raises(trio.WouldBlock):
                    checkout_nowait(pool, KEY)
                session.close(DONE)

            for number in (2, 0, 1):
                nursery.start_soon(client, number)
            await wait_all_tasks_blocked()
            assert counts(pool) == (1, 3)
            first.close(DONE)
        assert order == [0, 1, 2]
        assert counts(pool) == (0, 0)


async def test_who_waits_before_there_is_a_process_gets_the_first(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(delays=(5.0,))) as pool:
        begun = trio.current_time()
        session = await checkout(pool, KEY)
        assert trio.current_time() - begun == 5.0
        session.close(DONE)


async def test_concurrency_is_kept(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(concurrency=3), limits=PoolLimits(max_pool_size=1)) as pool:
        await until(pool, 1)
        sessions = [checkout_nowait(pool, KEY) for _ in range(3)]
        with pytest.raises(trio.WouldBlock):
            checkout_nowait(pool, KEY)
        for session in sessions:
            session.close(DONE)


async def test_a_request_for_a_group_that_is_not_there_is_refused(autojump_clock: MockClock) -> None:
    """OP1: the application may have been removed while the request was on its way."""
    async with running_pool(DummySpawner()) as pool:
        with pytest.raises(trio.WouldBlock):
            checkout_nowait(pool, GroupKey("x", "y"))
        with pytest.raises(ApplicationRemoved):
            await queue_up(pool, GroupKey("x", "y")).wait()
        check(pool)


async def test_a_removed_group_ends_when_its_requests_have(autojump_clock: MockClock) -> None:
    """OP1: nothing of it is left, and another one may have its name."""
    async with running_pool(DummySpawner()) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        task = pool.group_tasks[KEY]
        pool.remove_group(KEY)
        assert pool.group_tasks[KEY] is task
        session.close(DONE)
        await task.ended.wait()
        assert not pool.has(KEY)
        assert not pool.processes
        await pool.add_group(KEY, GroupLimits(), DummySpawner(), GRACE)
        await until(pool, 1)
        check(pool)


async def test_a_group_that_comes_back_before_it_is_gone_is_restarted(autojump_clock: MockClock) -> None:
    """LI2: with the new spawner."""
    newer = DummySpawner()
    async with running_pool(DummySpawner()) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        pool.remove_group(KEY)
        await pool.add_group(KEY, GroupLimits(), lambda generation: newer, GRACE)
        await until(pool, 2)
        session.close(DONE)
        assert pool.generation(KEY) == 2
        check(pool)


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_a_checkout_that_is_cancelled_before_it_begins_takes_nothing(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner()) as pool:
        await until(pool, 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await checkout(pool, KEY)
        assert scope.cancelled_caught
        assert counts(pool) == (0, 0)


@pytest.mark.parametrize("processes", [0, 1], ids=["waiting for a spawn", "waiting for a session"])
async def test_a_waiter_that_is_cancelled_leaves_the_queue(processes: int, autojump_clock: MockClock) -> None:
    spawner = DummySpawner(delays=(0.0,) * processes + (NEVER,))
    async with running_pool(spawner, limits=PoolLimits(max_pool_size=1)) as pool:
        held = None
        if processes:
            await until(pool, 1)
            held = checkout_nowait(pool, KEY)
        with trio.move_on_after(5) as scope:
            await checkout(pool, KEY)
        assert scope.cancelled_caught
        assert counts(pool) == (processes, 0)
        if held is not None:
            held.close(DONE)
            checkout_nowait(pool, KEY).close(DONE)


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_granted_and_cancelled_in_the_same_step_gives_the_session_back(
    cancel_first: bool, autojump_clock: MockClock
) -> None:
    """Whichever of the two comes first: the waiter has a session and closes it, or has none and the pool has it back."""
    async with running_pool(DummySpawner(), limits=PoolLimits(max_pool_size=1)) as pool:
        await until(pool, 1)
        held = checkout_nowait(pool, KEY)
        scopes = [trio.CancelScope(), trio.CancelScope()]
        got: list[str] = []
        async with trio.open_nursery() as nursery:

            async def client(name: str, scope: trio.CancelScope) -> None:
                with scope:
                    session = await checkout(pool, KEY)
                    got.append(name)
                    session.close(DONE)

            nursery.start_soon(client, "first", scopes[0])
            await wait_all_tasks_blocked()
            nursery.start_soon(client, "second", scopes[1])
            await wait_all_tasks_blocked()
            if cancel_first:
                scopes[0].cancel()
                held.close(DONE)
            else:
                held.close(DONE)
                scopes[0].cancel()
        assert got == (["second"] if cancel_first else ["first", "second"])
        assert counts(pool) == (0, 0)


async def test_refused_and_cancelled_in_the_same_step(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(delays=(NEVER,))) as pool:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def client() -> None:
                with trio.CancelScope() as scope:
                    scopes.append(scope)
                    await checkout(pool, KEY)
                assert scope.cancelled_caught

            scopes: list[trio.CancelScope] = []
            await wait_all_tasks_blocked()
            scopes[0].cancel()
            pool.shut_down()
        assert counts(pool) == (0, 0)
        await pool.empty.wait()


# --- places -----------------------------------------------------------------------------------------------------------


async def a_place(pool: Pool) -> tuple[Session, Waiter]:
    """A place in a queue that goes on when the session is closed."""
    await until(pool, 1)
    held = checkout_nowait(pool, KEY)
    return held, queue_up(pool, KEY)


ONE = PoolLimits(max_pool_size=1)


async def test_a_wait_that_is_cut_off_keeps_its_turn(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(), limits=ONE) as pool:
        held, waiter = await a_place(pool)
        later = queue_up(pool, KEY)
        with trio.move_on_after(1):
            await waiter.wait()
        assert counts(pool) == (1, 2)
        held.close(DONE)
        session = await waiter.wait()
        assert later.session is None
        session.close(DONE)
        (await later.wait()).close(DONE)


async def test_answered_between_two_waits(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(), limits=ONE) as pool:
        held, waiter = await a_place(pool)
        with trio.move_on_after(1):
            await waiter.wait()
        held.close(DONE)
        with assert_checkpoints():
            session = await waiter.wait()
        waiter.leave()
        assert counts(pool) == (1, 0), "the session was taken: leaving does not give it back"
        session.close(DONE)


async def test_who_does_not_wait_is_told_in_the_step_that_answers(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(), limits=ONE) as pool:
        held, waiter = await a_place(pool)
        told: list[float] = []
        waiter.on_granted = told.append
        await trio.sleep(5)
        held.close(DONE)
        assert told == [trio.current_time()]
        assert waiter.answered
        waiter.take().close(DONE)
        assert counts(pool) == (0, 0)


async def test_who_does_not_wait_is_told_of_an_error_too(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(delays=(NEVER,))) as pool:
        waiter = queue_up(pool, KEY)
        told: list[float] = []
        waiter.on_granted = told.append
        pool.shut_down()
        assert len(told) == 1
        assert isinstance(waiter.error, PoolShutDown)
        await pool.empty.wait()


async def test_who_wants_to_be_told_no_more_is_not(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(), limits=ONE) as pool:
        held, waiter = await a_place(pool)
        waiter.on_granted = lambda now: pytest.fail("told")
        waiter.on_granted = None
        held.close(DONE)
        waiter.leave()
        assert counts(pool) == (0, 0)


async def test_leaving_gives_back_what_was_granted_and_may_be_done_twice(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(), limits=ONE) as pool:
        held, waiter = await a_place(pool)
        held.close(DONE)
        assert counts(pool) == (1, 0)
        for _ in range(2):
            waiter.leave()
            assert counts(pool) == (0, 0)
        waiting = queue_up(pool, KEY)
        assert waiting.session is not None
        unanswered = queue_up(pool, KEY)
        for _ in range(2):
            unanswered.leave()
            assert counts(pool) == (1, 0)
        waiting.leave()


async def test_an_error_is_raised_by_the_wait_and_leaving_after_it_is_harmless(autojump_clock: MockClock) -> None:
    async with running_pool(DummySpawner(delays=(NEVER,))) as pool:
        waiter = queue_up(pool, KEY)
        pool.shut_down()
        for _ in range(2):
            with pytest.raises(PoolShutDown):
                await waiter.wait()
            waiter.leave()
        await pool.empty.wait()


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_a_full_queue(autojump_clock: MockClock) -> None:
    limits = GroupLimits(max_request_queue_size=2)
    async with running_pool(DummySpawner(delays=(NEVER,)), group=limits) as pool:
        places = [queue_up(pool, KEY) for _ in range(2)]
        with pytest.raises(RequestQueueFull), assert_checkpoints():
            await checkout(pool, KEY)
        places[0].leave()
        with trio.move_on_after(1) as scope:
            await checkout(pool, KEY)
        assert scope.cancelled_caught
        places[1].leave()


async def test_a_failed_spawn_refuses_with_its_evidence_and_says_when_to_come_back(autojump_clock: MockClock) -> None:
    failure = dummy_failure("no module named shop")
    async with running_pool(DummySpawner(delays=(1.0,), failures=(failure,))) as pool:
        with pytest.raises(SpawnError, match="no module named shop") as caught:
            await checkout(pool, KEY)
        assert caught.value.failure is failure
        assert caught.value.retry_after == 1
        with pytest.raises(SpawnError):
            await checkout(pool, KEY)


async def test_while_a_process_lives_a_failed_spawn_refuses_nobody(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(failures=(None, dummy_failure()))
    async with running_pool(spawner, group=GroupLimits(min_instances=1)) as pool:
        await until(pool, 1)
        held = checkout_nowait(pool, KEY)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def client() -> None:
                (await checkout(pool, KEY)).close(DONE)

            await trio.sleep(50)
            assert spawner.spawns > 1
            assert counts(pool) == (1, 1)
            held.close(DONE)


async def test_a_crash_loop_is_told_with_the_last_output_and_not_as_a_shutdown(autojump_clock: MockClock) -> None:
    class Crashing(DummySpawner):
        async def spawn(self) -> DummyProcess:
            process = await super().spawn()
            process.output_tail = ("Segmentation fault",)
            process.exit(-11)
            return process

    spawner = Crashing()
    # Its processes are never granted: they are gone before anybody can have them.
    async with running_pool(spawner, group=NONE_TO_START_WITH, limits=ONE) as pool:
        error: CheckoutError | None = None
        while error is None:
            try:
                (await checkout(pool, KEY)).close(SessionOutcome.NOT_STARTED)
            except CheckoutError as exc:
                error = exc
        assert isinstance(error, SpawnError)
        assert error.failure.output == ("Segmentation fault",)
        assert "soon after they have started" in str(error)
        assert spawner.spawns >= CRASHES_TOLERATED


async def test_processes_that_only_break_the_protocol_are_told_so_and_not_as_a_shutdown(
    autojump_clock: MockClock,
) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner, group=NONE_TO_START_WITH, limits=ONE) as pool:
        error: CheckoutError | None = None
        for _ in range(50):
            try:
                (await checkout(pool, KEY)).close(SessionOutcome.PROCESS_FAILED)
            except CheckoutError as exc:
                error = exc
                break
        assert isinstance(error, SpawnError)
        assert "do not serve" in str(error) or "end soon" in str(error)


def test_a_refusal_without_evidence_is_still_a_failed_spawn(caplog: pytest.LogCaptureFixture) -> None:
    from passenger_trio.pool.perform import refusal

    error = refusal(Refuse(WaiterId(1), Reason.SPAWN_FAILED, None, 3.2))
    assert isinstance(error, SpawnError)
    assert error.retry_after == 4
    assert error.failure.error_id in caplog.text


# --- spawning and backing off -----------------------------------------------------------------------------------------


async def test_the_back_off_after_failed_spawns_is_kept_to_the_moment(autojump_clock: MockClock) -> None:
    spawner = TimedSpawner(failures=(dummy_failure(),))
    random.seed(5)
    draws = random.Random(5)
    begun = trio.current_time()
    async with running_pool(spawner) as pool:
        await trio.sleep(60)
        expected = [begun]
        step = 0.1
        while (next := expected[-1] + step * (1 - SPREAD * draws.random())) <= begun + 60:
            expected.append(next)
            step = min(30.0, step * PoolLimits().backoff_factor)
        assert spawner.begun == pytest.approx(expected)
        assert len(expected) >= 8
        assert pool.statistics().groups[0].failures == len(expected)


async def test_a_process_that_goes_is_replaced_in_the_same_moment(autojump_clock: MockClock) -> None:
    spawner = TimedSpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        checkout_nowait(pool, KEY).close(DONE)
        await trio.sleep(100)
        only(spawner).exit(1)
        await until(pool, 0)
        await until(pool, 1)
        assert spawner.begun[1] == trio.current_time()
        await wait_all_tasks_blocked()
        assert spawner.processes[0].closed


async def test_success_ends_the_back_off(autojump_clock: MockClock) -> None:
    spawner = TimedSpawner(failures=(dummy_failure(), dummy_failure(), None))
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        (await checkout(pool, KEY)).close(DONE)
        assert pool.statistics().groups[0].failures == 0


async def test_a_second_group_is_not_affected_by_the_first(autojump_clock: MockClock) -> None:
    other = GroupKey("other", "test")
    good = DummySpawner()
    async with running_pool(DummySpawner(failures=(dummy_failure(),))) as pool:
        await pool.add_group(other, GroupLimits(), good, GRACE)
        (await checkout(pool, other)).close(DONE)
        with pytest.raises(SpawnError):
            await checkout(pool, KEY)
        (await checkout(pool, other)).close(DONE)
    check_end(pool, [good])


# --- exits ------------------------------------------------------------------------------------------------------------


async def test_an_exit_while_sessions_are_open_is_told_at_once_and_the_sessions_close_later(
    autojump_clock: MockClock,
) -> None:
    spawner = DummySpawner(concurrency=2, delays=(0.0, 5.0))
    async with running_pool(spawner, limits=ONE) as pool:
        await until(pool, 1)
        sessions = [checkout_nowait(pool, KEY) for _ in range(2)]
        only(spawner).exit(-9)
        await until(pool, 0)
        with pytest.raises(trio.WouldBlock):
            checkout_nowait(pool, KEY)
        for session in sessions:
            session.close(SessionOutcome.PROCESS_FAILED)
            session.close(DONE)
            check(pool)
        session = await checkout(pool, KEY)
        assert session.pid == spawner.processes[1].pid
        session.close(DONE)


# --- the ladder -------------------------------------------------------------------------------------------------------


async def a_retired_process(pool: Pool, spawner: DummySpawner, change: Callable[[DummyProcess], None]) -> DummyProcess:
    await until(pool, 1)
    process = only(spawner)
    change(process)
    pool.shut_down()
    await wait_all_tasks_blocked()
    return process


async def test_who_obeys_is_asked_and_not_signalled(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        begun = trio.current_time()
        process = await a_retired_process(pool, spawner, lambda process: None)
        await pool.empty.wait()
        assert trio.current_time() == begun
        assert (process.asked_to_stop, process.signals) == (1, [])


async def test_who_does_not_obey_is_asked_then_gets_term_then_kill_each_in_its_time(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        process = await a_retired_process(pool, spawner, lambda process: setattr(process, "obeys", False))
        begun = trio.current_time()
        assert (process.asked_to_stop, process.signals) == (1, [])
        await trio.sleep_until(begun + GRACE - 0.001)
        assert process.signals == []
        await trio.sleep_until(begun + GRACE + 0.001)
        assert process.signals == [signal.SIGTERM]
        await trio.sleep_until(begun + GRACE + TERM_TIME - 0.001)
        assert process.signals == [signal.SIGTERM]
        await pool.empty.wait()
        assert trio.current_time() == begun + GRACE + TERM_TIME
        assert process.signals == [signal.SIGTERM, signal.SIGKILL]


async def test_who_cannot_be_asked_gets_term_at_once(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        begun = trio.current_time()
        process = await a_retired_process(pool, spawner, lambda process: setattr(process, "can_be_asked", False))
        await pool.empty.wait()
        assert trio.current_time() == begun
        assert (process.asked_to_stop, process.signals) == (0, [signal.SIGTERM])


@pytest.mark.parametrize("when", [GRACE / 2, GRACE, GRACE + TERM_TIME / 2, GRACE + TERM_TIME])
async def test_who_ends_on_the_way_down_is_signalled_no_more(when: float, autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        process = await a_retired_process(pool, spawner, lambda process: setattr(process, "obeys", False))
        begun = trio.current_time()
        await trio.sleep_until(begun + when)
        process.exit(0)
        signals = list(process.signals)
        await pool.empty.wait()
        assert trio.current_time() == begun + when
        assert process.signals == signals
        assert process.closed or counts(pool) == (0, 0)


async def test_a_retired_process_finishes_the_sessions_that_it_has(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        session = checkout_nowait(pool, KEY)
        pool.shut_down()
        await trio.sleep(5)
        assert only(spawner).asked_to_stop == 0
        assert not pool.empty.is_set()
        session.close(DONE)
        await pool.empty.wait()
        assert only(spawner).asked_to_stop == 1


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_shutting_down_ends_the_pool_and_leaves_nothing(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    pool = Pool(PoolLimits(max_concurrent_spawns=5))
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            await pool.add_group(KEY, GroupLimits(min_instances=3), spawner, GRACE)
            await until(pool, 3)
            pool.shut_down()
            pool.shut_down()
    assert [process.asked_to_stop for process in spawner.processes] == [1, 1, 1]
    check_end(pool, [spawner])
    assert pool.group_tasks[KEY].ended.is_set()


async def test_a_pool_without_groups_ends(autojump_clock: MockClock) -> None:
    pool = Pool(PoolLimits())
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        pool.shut_down()


async def test_a_group_that_comes_while_the_pool_shuts_down_changes_nothing(autojump_clock: MockClock) -> None:
    spawner, late = DummySpawner(delays=(NEVER,)), DummySpawner()
    pool = Pool(PoolLimits())
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            await pool.add_group(KEY, GroupLimits(), spawner, GRACE)
            await wait_all_tasks_blocked()
            pool.shut_down()
            await pool.add_group(GroupKey("late", "test"), GroupLimits(), late, GRACE)
    assert (spawner.cancelled, late.spawns) == (1, 0)


async def test_a_spawn_that_is_under_way_is_abandoned_and_who_waits_is_refused(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(delays=(NEVER,))
    async with running_pool(spawner) as pool:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def client() -> None:
                with pytest.raises(PoolShutDown):
                    await checkout(pool, KEY)

            await wait_all_tasks_blocked()
            pool.shut_down()
        with trio.fail_after(LONG):
            await pool.empty.wait()
        assert spawner.cancelled == spawner.spawns > 0
        with pytest.raises(PoolShutDown):
            await checkout(pool, KEY)
        with pytest.raises(trio.WouldBlock):
            checkout_nowait(pool, KEY)


async def test_a_spawn_that_succeeds_in_the_step_of_the_shutdown_is_retired(autojump_clock: MockClock) -> None:
    spawner = DummySpawner(delays=(5.0,))
    async with running_pool(spawner) as pool:
        await trio.sleep(5.0)
        pool.shut_down()
        with trio.fail_after(LONG):
            await pool.empty.wait()
        assert [process.asked_to_stop for process in spawner.processes] == [1] * len(spawner.processes)


async def test_a_spawn_that_fails_while_shutting_down_is_no_news(autojump_clock: MockClock) -> None:
    class Stubborn(DummySpawner):
        async def spawn(self) -> DummyProcess:
            try:
                await trio.sleep_forever()
            finally:
                raise SpawnError(dummy_failure())

    async with running_pool(Stubborn()) as pool:
        await wait_all_tasks_blocked()
        pool.shut_down()
        with trio.fail_after(LONG):
            await pool.empty.wait()


async def test_the_last_preloader_is_waited_for(autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    async with running_pool(spawner) as pool:
        await until(pool, 1)
        pool.preloader_changed(KEY, 1, 1, True)
        pool.shut_down()
        await trio.sleep(1)
        assert spawner.preloaders_retired == 1
        assert not pool.empty.is_set()
        pool.preloader_changed(KEY, 1, 1, False)
        assert pool.empty.is_set()


async def test_a_pool_that_is_cut_off_kills_everything_and_starts_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Spawner(TimedSpawner):
        async def spawn(self) -> DummyProcess:
            process = await super().spawn()
            process.obeys = False
            return process

    spawner = Spawner(delays=(0.0, 0.0, NEVER))
    pool = Pool(PoolLimits(max_concurrent_spawns=5))
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(KEY, GroupLimits(min_instances=3), spawner, GRACE)
        await until(pool, 2)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == begun
    assert [process.signals for process in spawner.processes] == [[signal.SIGKILL]] * 2
    assert len(spawner.begun) == 3, "what was killed was not replaced"
    assert "ERROR" not in caplog.text, "nor called a crash"
    assert spawner.cancelled == 1
    check_end(pool, [spawner])


@pytest.mark.parametrize("exit_first", [True, False])
async def test_cut_off_in_the_step_in_which_a_process_ends(exit_first: bool, autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    pool = Pool(PoolLimits())
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(KEY, GroupLimits(), spawner, GRACE)
        await until(pool, 1)
        if exit_first:
            only(spawner).exit(0)
            nursery.cancel_scope.cancel()
        else:
            nursery.cancel_scope.cancel()
            only(spawner).exit(0)
    check_end(pool, [spawner])


@pytest.mark.parametrize("rung", [0.0, GRACE / 2, GRACE + TERM_TIME / 2])
async def test_cut_off_on_any_rung_of_the_ladder(rung: float, autojump_clock: MockClock) -> None:
    spawner = DummySpawner()
    pool = Pool(PoolLimits())
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.add_group(KEY, GroupLimits(), spawner, GRACE)
        process = await a_retired_process(pool, spawner, lambda process: setattr(process, "obeys", False))
        await trio.sleep(rung)
        nursery.cancel_scope.cancel()
    assert process.signals[-1] == signal.SIGKILL
    check_end(pool, [spawner])


# --- our own bugs -----------------------------------------------------------------------------------------------------


class Broken(DummyProcess):
    """A process of which something raises what nobody expects."""

    where = ""
    error: Exception

    def fail(self, where: str) -> None:
        if self.where == where:
            raise self.error

    async def read_output(self) -> None:
        self.fail("read_output")
        await super().read_output()

    async def wait_exit(self) -> None:
        if self.exit_status is None and not self.signals:
            await trio.sleep(1)
            self.fail("wait_exit")
        self.fail("wait_exit, always")
        await super().wait_exit()

    async def wait_exit_status(self) -> int | None:
        self.fail("wait_exit_status")
        return await super().wait_exit_status()

    def ask_to_stop(self, within: float | None = None) -> bool:
        self.fail("ask_to_stop")
        return super().ask_to_stop(within)

    def close(self) -> None:
        super().close()
        self.fail("close")


UNEXPECTED = (OSError(24, "no"), RuntimeError("no"), ValueError("no"), ExceptionGroup("some", [OSError("no")]))


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "where",
    ["read_output", "wait_exit", "wait_exit, always", "wait_exit_status", "ask_to_stop", "close", "spawn", "serve"],
)
async def test_an_exception_that_nobody_expects_costs_one_process_or_one_attempt(
    where: str, error: Exception, autojump_clock: MockClock
) -> None:
    """KE1: its keeper sees it off and tells the policy, which replaces it; the pool lives, and nothing is left."""

    class Spawner(DummySpawner):
        runs = 0

        async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            self.runs += 1
            if where == "serve" and self.runs == 1:
                raise error
            await super().serve(task_status=task_status)

        async def spawn(self) -> DummyProcess:
            process = await super().spawn()
            if self.processes.index(process) == 1:
                if where == "spawn":
                    process.exit(0)
                    process.close()
                    raise error
                process.__class__ = Broken
                process.where, process.error = where, error  # type: ignore[attr-defined]
            return process

    spawner = Spawner()
    async with running_pool(spawner, group=GroupLimits(min_instances=2)) as pool:
        await trio.sleep(10)
        assert len(pool.processes) == 2
        if where == "ask_to_stop":
            pool.restart(KEY)
        elif where.startswith("wait_exit_") or where == "close":
            spawner.processes[1].exit(0)
        await trio.sleep(100)
        assert spawner.processes[1].exit_status is not None or where == "serve"
        assert len(pool.processes) == 2
        assert pool._kernel.total >= 1
        session = await checkout(pool, KEY)
        session.close(SessionOutcome.DONE)


async def test_a_failure_of_the_policy_ends_the_pool_and_leaves_nothing(autojump_clock: MockClock) -> None:
    """KE1: of all that may go wrong it is the one thing that ends the server; whoever ran into it."""
    spawner = DummySpawner()
    pool = Pool(PoolLimits())
    with pytest.RaisesGroup(InvariantBroken):
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            await pool.add_group(KEY, GroupLimits(min_instances=2), spawner, GRACE)
            await until(pool, 2)
            session = await checkout(pool, KEY)
            with pool._kernel.contain("a caller"):
                pool._policy.session_closed(SessionId(4711), SessionOutcome.DONE, 0.0)
            session.close(SessionOutcome.DONE)
            await trio.sleep_forever()
    check_end(pool, [spawner])


# --- everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
async def test_any_storm_ends_with_everybody_answered_and_nothing_left(seed: int, autojump_clock: MockClock) -> None:
    chance = random.Random(seed)
    spawner = DummySpawner(
        concurrency=chance.choice([1, 2, 0]),
        delays=tuple(chance.choice([0.0, 0.1, 3.0]) for _ in range(200)),
        failures=tuple(chance.choice([None, None, None, dummy_failure()]) for _ in range(200)),
    )
    limits = PoolLimits(max_pool_size=3, pool_idle_time=2.0, max_concurrent_spawns=chance.choice([1, 3]))
    group = GroupLimits(min_instances=chance.choice([0, 1, 3]), max_request_queue_size=10)
    answered = {"served": 0, "refused": 0, "gave up": 0}
    async with running_pool(spawner, limits=limits, group=group) as pool:
        async with trio.open_nursery() as storm:

            async def client() -> None:
                await trio.sleep(chance.choice([0, 0, 0.5, 1.0, 2.0]) * chance.random())
                with trio.CancelScope(deadline=trio.current_time() + chance.choice([0.0, 0.3, 1.0, LONG])) as scope:
                    try:
                        session = await checkout(pool, KEY)
                    except CheckoutError:
                        answered["refused"] += 1
                        return
                    with trio.CancelScope(shield=True):
                        await trio.sleep(chance.choice([0.0, 0.2, 1.0]))
                        session.close(chance.choice(list(SessionOutcome)))
                    answered["served"] += 1
                    return
                assert scope.cancelled_caught
                answered["gave up"] += 1

            async def reaper() -> None:
                for _ in range(30):
                    await trio.sleep(0.2 * chance.random())
                    alive = [process for process in spawner.processes if process.exit_status is None]
                    if alive and chance.random() < 0.5:
                        victim = chance.choice(alive)
                        victim.obeys = chance.random() < 0.7
                        if chance.random() < 0.5:
                            victim.exit(chance.choice([0, 1, -9]))
                    check(pool)

            for _ in range(60):
                storm.start_soon(client)
            storm.start_soon(reaper)
        assert sum(answered.values()) == 60
        check(pool)
        pool.shut_down()
        with trio.fail_after(LONG):
            await pool.empty.wait()
