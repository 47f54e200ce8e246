"""OP6: how many processes fit into memory, as stories; ``tests/model`` has every order of them."""

from __future__ import annotations

import pytest
from driven_pool import BLOG, SHOP, DrivenPool, granted, retired, spawns

from passenger_trio.core.commands import Command, Reason, RetirePreloader
from passenger_trio.core.model import GroupKey, PreloaderId, ProcessId
from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.core.processes_by_memory import FIRST_GUESS, Calculation, calculate, most_by_files

M = 1024**2
WIKI = GroupKey("wiki", "production")
AUTO = {"memory_share": 0.5, "memory_most": 50}


def a_pool(total: int, own: int = 0, **limits: float) -> DrivenPool:
    pool = DrivenPool(**{**AUTO, "max_concurrent_spawns": 50, **limits})
    measure(pool, total, own)
    return pool


def measure(pool: DrivenPool, total: int, own: int = 0, preloader: int = 0, **sizes: int) -> list[Command]:
    """A round of the gauges. ``sizes``: of every process of an application."""
    commands: list[Command] = []
    for process in list(pool.policy.state.processes.values()):
        if process.group.key.name in sizes:
            commands += pool.checked(pool.policy.sampled(process.id, sizes[process.group.key.name], pool.now))
    return commands + pool.checked(pool.policy.room_measured(total, own, preloader, pool.now))


def number(pool: DrivenPool) -> int:
    return pool.policy.state.limits.max_pool_size


def now(pool: DrivenPool) -> Calculation:
    return calculate(pool.policy.state)


def start_all(pool: DrivenPool) -> None:
    for key in pool.policy.state.groups:
        for attempt in pool.attempts(key):
            pool.spawned(attempt)


def test_before_anything_is_measured_a_process_counts_the_first_guess() -> None:
    pool = a_pool(total=10 * FIRST_GUESS, own=FIRST_GUESS)
    pool.add(SHOP, min_instances=1)
    assert number(pool) == 4, "half of ten, without what the server uses"
    assert now(pool).is_guess


def test_the_measured_size_takes_the_place_of_the_guess() -> None:
    pool = a_pool(total=10 * FIRST_GUESS)
    pool.add(SHOP, min_instances=1)
    start_all(pool)
    measure(pool, 10 * FIRST_GUESS, shop=FIRST_GUESS // 3)
    assert number(pool) == 15
    assert (now(pool).is_guess, now(pool).next_size, now(pool).next_group) == (False, FIRST_GUESS // 3, str(SHOP))


def test_as_many_start_as_fit_and_no_more() -> None:
    pool = a_pool(total=400 * M)
    pool.add(SHOP, min_instances=1)
    start_all(pool)
    measure(pool, 400 * M, shop=40 * M)
    for _ in range(9):
        pool.checkout()
    assert len(pool.attempts()) == 4, "5 x 40M are the half of 400M"
    assert now(pool).free == 0


def test_the_minimums_are_kept_whatever_the_memory_is() -> None:
    pool = a_pool(total=2 * FIRST_GUESS)
    commands = pool.add(SHOP, min_instances=3) + pool.add(BLOG, min_instances=2)
    assert spawns(commands) == [(SHOP, Reason.MIN_INSTANCES)] * 3 + [(BLOG, Reason.MIN_INSTANCES)] * 2
    start_all(pool)
    assert measure(pool, FIRST_GUESS, shop=FIRST_GUESS, blog=FIRST_GUESS) == []
    assert number(pool) == 5


def test_when_memory_becomes_short_idle_processes_go_and_busy_ones_stay() -> None:
    pool = a_pool(total=800 * M)
    pool.add(SHOP, min_instances=1)
    start_all(pool)
    measure(pool, 800 * M, shop=50 * M)
    for _ in range(4):
        pool.checkout()
    start_all(pool)
    assert len(pool.processes()) == 4
    busy = list(pool.policy.state.sessions)
    for session in busy[2:]:
        pool.now += 1
        pool.close(session)
    idle = [process.id for process in pool.policy.state.processes.values() if not process.sessions]
    gone = retired(measure(pool, 100 * M, shop=50 * M))
    assert gone == [(process, Reason.SHRINK) for process in idle]
    assert number(pool) == 1, "two are busy, and one fits"
    assert len(pool.processes()) == 2
    pool.checkout()
    assert not pool.attempts(), "nothing begins above the number"
    queued = pool.queue()
    assert [who for who, _ in granted(pool.close(busy[0]))] == queued, "the processes that are there serve on"


def test_processes_that_grow_a_little_stay_and_so_does_the_number() -> None:
    """OP6: a pool that is full by its measures is above its number after the next ones, else, and below it after those."""
    pool = a_pool(total=400 * M)
    pool.add(SHOP, min_instances=1)
    start_all(pool)
    measure(pool, 400 * M, shop=50 * M)
    for _ in range(6):
        pool.checkout()
    start_all(pool)
    busy = list(pool.policy.state.sessions)
    assert (number(pool), len(pool.processes())) == (4, 4)
    assert measure(pool, 400 * M, shop=52 * M) == []
    assert (number(pool), now(pool).free, now(pool).is_short) == (4, -8 * M, False)
    for waiter in pool.queue():
        pool.abandon(waiter)
    pool.close(busy[0])
    assert measure(pool, 400 * M, shop=53 * M) == [], "an idle one stays, too: it would come back with the next request"
    assert measure(pool, 400 * M, shop=49 * M) == []
    assert number(pool) == 4, "it comes to rest"
    assert len(retired(measure(pool, 400 * M, shop=54 * M))) == 1, "that is more than a quarter of one"
    assert number(pool) == 3


def test_an_application_that_wakes_gets_its_place_from_idle_ones() -> None:
    """Its size is known from before: as many idle ones go as its process needs."""
    pool = a_pool(total=800 * M)
    pool.add(BLOG, min_instances=0)
    pool.wait(BLOG)
    start_all(pool)
    measure(pool, 800 * M, blog=300 * M)
    pool.close(next(iter(pool.policy.state.sessions)))
    pool.tick(301)  # idle for too long
    for process in list(pool.policy.state.processes):
        pool.exits(process)
    pool.add(SHOP, min_instances=0)
    for _ in range(8):
        pool.wait(SHOP)
    start_all(pool)
    measure(pool, 800 * M, shop=50 * M)
    for _ in range(8):
        pool.checkout(SHOP)
    start_all(pool)
    measure(pool, 800 * M, shop=50 * M)
    assert len(pool.processes(SHOP)) == 8
    for waiter in pool.queue(SHOP):
        pool.abandon(waiter)
    for session in list(pool.policy.state.sessions):
        pool.close(session)
    commands = pool.checkout(BLOG)
    assert len(retired(commands)) == 6, "300M of processes of 50M"
    assert not spawns(commands), "their memory is not free yet"
    for process, _ in retired(commands)[:3]:
        commands = pool.exits(process)
    assert spawns(commands) == [(BLOG, Reason.DEMAND)], "less is left than twice what fits"


def test_an_application_that_was_never_measured_counts_as_the_measured_ones_do() -> None:
    """OP6: of few the first guess is the larger part, of many hardly any. Two hundred small applications got two processes together."""
    pool = a_pool(total=100 * FIRST_GUESS)
    guesses = []
    for number in range(60):
        key = GroupKey(f"small{number}", "test")
        pool.add(key, min_instances=1)
        start_all(pool)
        if number % 6 in (0, 5):
            measure(pool, 100 * FIRST_GUESS, **{f"small{n}": FIRST_GUESS // 10 for n in range(number + 1)})
            guesses.append(pool.policy.state.first_guess)
    assert guesses == sorted(guesses, reverse=True)
    assert guesses[0] > FIRST_GUESS * 3 // 4
    assert FIRST_GUESS // 10 < guesses[-1] < FIRST_GUESS // 6
    pool.add(SHOP, min_instances=0)
    before = now(pool).free
    pool.wait(SHOP)
    assert before - now(pool).free == guesses[-1], "so much is kept for its first process"


def test_preloaders_of_sleepers_go_before_anything_else_does() -> None:
    """OP5, OP6: two hundred applications that are visited now and then are not to fill the memory with their preloaders."""
    pool = a_pool(total=800 * M)
    for key in (BLOG, SHOP, WIKI):
        pool.add(key, min_instances=0, max_preloader_idle_time=0)
        pool.now += 1
        pool.wait(key)
        pool.policy.preloader_started(key, 1, PreloaderId(1), pool.now)
        start_all(pool)
        if key is not WIKI:
            pool.close(next(iter(pool.policy.state.sessions)))
            pool.tick(301)  # idle for too long: it falls asleep, and its preloader stays
            for process in list(pool.policy.state.processes):
                pool.exits(process)
    assert measure(pool, 800 * M, preloader=100 * M, wiki=50 * M) == [], "350M of 400M"
    assert now(pool).own == 300 * M
    commands = measure(pool, 800 * M, preloader=150 * M, wiki=50 * M)
    assert commands == [RetirePreloader(BLOG, Reason.SHRINK, 1)], "the one that forked least recently"
    assert now(pool).free == 50 * M, "it counts no more"
    assert measure(pool, 200 * M, preloader=150 * M, wiki=50 * M) == [RetirePreloader(SHOP, Reason.SHRINK, 1)]
    assert measure(pool, 100 * M, preloader=150 * M, wiki=50 * M) == [], (
        "the preloader of an application that serves stays"
    )


def test_the_largest_that_may_grow_counts_and_not_one_at_its_own_maximum() -> None:
    pool = a_pool(total=1200 * M)
    pool.add(SHOP, min_instances=1)
    pool.add(BLOG, min_instances=1, max_instances=1)
    start_all(pool)
    measure(pool, 1200 * M, shop=50 * M, blog=300 * M)
    assert number(pool) == 2 + (600 - 350) // 50


def test_a_process_that_ends_leaves_room_for_what_fits_only() -> None:
    """The number is found anew: the next one may be of a larger application."""
    pool = a_pool(total=400 * M)
    pool.add(SHOP, min_instances=1)
    pool.add(BLOG, min_instances=0, max_instances=2)
    start_all(pool)
    measure(pool, 400 * M, shop=20 * M)
    pool.wait(BLOG)
    start_all(pool)
    measure(pool, 400 * M, shop=20 * M, blog=170 * M)
    assert number(pool) == 2
    pool.detach(pool.processes(SHOP)[0])
    assert number(pool) == 2
    assert len(pool.attempts(SHOP)) == 1, "the minimum comes back"
    pool.wait(BLOG)
    assert not pool.attempts(BLOG), "170M do not fit into 10M"


def test_a_number_becomes_a_share_and_back_while_it_runs() -> None:
    """OP3: no process ends for what is only estimated but idle ones; a number is a promise, also to busy ones."""
    pool = DrivenPool(max_pool_size=3)
    pool.add(SHOP, warm=3, min_instances=1)
    measure(pool, 20 * FIRST_GUESS)
    assert number(pool) == 3, "the number is fixed"
    assert pool.checked(pool.policy.change_pool_limits(PoolLimits(**AUTO), pool.now)) == []
    assert number(pool) == 10
    taken = [pool.take() for _ in range(3)]
    commands = pool.checked(pool.policy.change_pool_limits(PoolLimits(max_pool_size=2), pool.now))
    assert len(commands) == 1
    assert number(pool) == 2
    assert len(taken) == 3


def test_a_share_without_a_measurement_of_the_memory_changes_nothing() -> None:
    pool = DrivenPool(max_pool_size=3)
    pool.add(SHOP, warm=3, min_instances=1)
    assert pool.checked(pool.policy.change_pool_limits(PoolLimits(**AUTO), pool.now)) == []
    assert number(pool) == 3


def test_what_is_planned_for_is_never_exceeded() -> None:
    pool = a_pool(total=1000 * FIRST_GUESS, memory_most=7)
    pool.add(SHOP, min_instances=1)
    assert number(pool) == 7


@pytest.mark.parametrize(("files", "most"), [(1024, 54), (64, 1), (10, 1), (-1, 4096), (10**6, 4096)])
def test_processes_take_a_quarter_of_the_descriptors(files: int, most: int) -> None:
    assert most_by_files(files) == most


def test_a_process_that_goes_before_it_is_measured_leaves_what_it_occupied() -> None:
    """OP6: it left the first guess of 150M for ever, so that on a busy machine one process at a time was planned for."""
    pool = a_pool(total=3 * FIRST_GUESS, max_concurrent_spawns=1)
    pool.add(SHOP, min_instances=0)
    pool.add(BLOG, min_instances=0)
    assert number(pool) == 1
    pool.wait(SHOP)
    pool.spawned(pool.attempts(SHOP)[0], size=30 * M)
    assert (now(pool).next_size, now(pool).is_guess) == (30 * M, True)
    pool.close(next(iter(pool.policy.state.sessions)))
    pool.exits(pool.processes(SHOP)[0])
    pool.wait(SHOP)
    pool.wait(BLOG)
    pool.spawned(pool.attempts(SHOP)[0], size=60 * M)
    assert now(pool).used == 30 * M + FIRST_GUESS, "the first estimate stays until one is measured; blog had none yet"
    assert measure(pool, 3 * FIRST_GUESS, shop=20 * M) == []
    assert now(pool).used == 20 * M + pool.policy.state.first_guess
    assert pool.policy.state.groups[SHOP].process_size == 20 * M


def test_the_measure_of_a_process_on_its_way_out_counts() -> None:
    """OP6: it made room for another application while it was measured, and was the only one of its own."""
    pool = a_pool(total=10 * FIRST_GUESS)
    pool.add(SHOP, min_instances=0)
    pool.wait(SHOP)
    start_all(pool)
    process = pool.processes(SHOP)[0]
    pool.detach(process)
    measure(pool, 10 * FIRST_GUESS, shop=20 * M)
    pool.close(next(iter(pool.policy.state.sessions)))
    pool.exits(process)
    pool.wait(SHOP)
    assert (now(pool).used, now(pool).is_guess) == (20 * M, False)


def test_a_process_that_is_gone_is_not_counted() -> None:
    """The measurement was taken before it ended."""
    pool = a_pool(total=8 * FIRST_GUESS)
    assert pool.checked(pool.policy.sampled(ProcessId(99), 10**12, pool.now)) == []
    pool.add(SHOP, min_instances=1)
    assert number(pool) == 4
