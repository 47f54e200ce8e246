"""A group whose processes crash gets mended code without being restarted by hand (KE9, fault 21)."""

from __future__ import annotations

from driven_pool import FAILURE, FIRST, SECOND, SHOP, DrivenPool, spawns

from passenger_trio.core.automatic_restart import CRASHES, PAUSE
from passenger_trio.core.backoff_and_circuit import CRASHES_TOLERATED
from passenger_trio.core.commands import Command, Reason, RetirePreloader
from passenger_trio.core.model import PreloaderId, SessionOutcome


def a_pool(*, preloader: bool = True) -> DrivenPool:
    pool = DrivenPool()
    pool.add(min_instances=1)
    if preloader:
        pool.policy.preloader_started(SHOP, 1, PreloaderId(1), pool.now)
    pool.spawned()
    return pool


def crash(pool: DrivenPool, *, exit_first: bool = False) -> list[Command]:
    """A process dies in its first request."""
    grant = pool.take()
    if exit_first:
        commands = pool.exits(grant.process) + pool.close(grant.session, SessionOutcome.BROKEN_OFF)
    else:
        commands = pool.close(grant.session, SessionOutcome.BROKEN_OFF) + pool.exits(grant.process)
    while not pool.attempts():
        commands += pool.tick_at_deadline()
    pool.spawned()
    return commands


def change(pool: DrivenPool) -> list[Command]:
    return pool.checked(pool.policy.code_changed(SHOP, pool.now))


def preloaders_let_go(commands: list[Command]) -> list[Command]:
    return [c for c in commands if isinstance(c, RetirePreloader) and c.reason is Reason.CRASHES]


def test_a_change_of_the_code_restarts_what_crashes_in_its_first_request() -> None:
    for exit_first in (False, True):
        pool = a_pool()
        assert not pool.policy.is_troubled(SHOP, pool.now)
        crash(pool, exit_first=exit_first)
        assert pool.policy.is_troubled(SHOP, pool.now)
        assert spawns(change(pool)) == [(SHOP, Reason.RESTART)]


def test_where_all_is_well_it_restarts_nothing() -> None:
    pool = a_pool()
    grant = pool.take()
    pool.close(grant.session)
    assert change(pool) == []
    session = pool.take().session
    pool.close(session, SessionOutcome.BROKEN_OFF)
    assert change(pool) == [], "it has served before"


def test_a_response_ends_the_trouble() -> None:
    pool = a_pool()
    crash(pool)
    pool.close(pool.take().session)
    assert change(pool) == []


def test_a_group_that_does_not_start_is_troubled_too() -> None:
    pool = DrivenPool(backoff_first=30.0)
    pool.add(min_instances=1)
    pool.failed()
    assert spawns(change(pool)) == [(SHOP, Reason.RETRY)], "at once"


def test_not_while_a_restart_is_under_way_and_not_too_often() -> None:
    pool = a_pool()
    crash(pool)
    assert change(pool) != []
    pool.now += PAUSE
    assert change(pool) == [], "a restart is under way"
    pool.failed()
    assert spawns(change(pool)) == [(SHOP, Reason.RESTART)], "the first mending did not start"
    pool.failed()
    assert change(pool) == [], "an application may write code while it is loaded"
    pool.now += PAUSE
    assert change(pool) != []


def test_the_preloader_goes_after_a_few_crashes() -> None:
    pool = a_pool()
    commands = [command for _ in range(CRASHES) for command in crash(pool)]
    assert preloaders_let_go(commands) == [RetirePreloader(SHOP, Reason.CRASHES, 1)]
    assert preloaders_let_go(crash(pool)) == [], "it was let go"


def test_the_preloader_goes_when_the_circuit_is_open() -> None:
    """Its processes do not become ready: an ASGI lifespan that raises, say."""
    pool = DrivenPool()
    pool.add(min_instances=1)
    pool.policy.preloader_started(SHOP, 1, PreloaderId(1), pool.now)
    assert preloaders_let_go(pool.failed()) == [RetirePreloader(SHOP, Reason.CRASHES, 1)]


def test_the_preloader_of_a_version_that_is_kept_stays() -> None:
    pool = a_pool()
    pool.restart()
    pool.failed(FAILURE)
    assert preloaders_let_go([command for _ in range(2 * CRASHES) for command in crash(pool)]) == []


def test_the_crashes_of_a_preloader_that_was_let_go_are_not_those_of_the_next() -> None:
    pool = a_pool()
    for _ in range(CRASHES):
        crash(pool)
    pool.policy.preloader_ended(SHOP, 1, FIRST, pool.now)
    pool.policy.preloader_started(SHOP, 1, SECOND, pool.now)
    commands = [command for _ in range(CRASHES - 1) for command in crash(pool)]
    assert preloaders_let_go(commands) == []
    assert preloaders_let_go(crash(pool)) == [RetirePreloader(SHOP, Reason.CRASHES, 1)]


def test_where_no_preloader_is_none_goes() -> None:
    """HO5: all processes crash, and each was started by itself."""
    pool = a_pool(preloader=False)
    assert preloaders_let_go([command for _ in range(2 * CRASHES) for command in crash(pool)]) == []


def test_while_a_process_serves_the_preloader_has_a_few_attempts() -> None:
    """HO5: the circuit is open at once, but nobody is refused yet."""
    pool = DrivenPool(max_concurrent_spawns=2)
    pool.add(min_instances=2)
    pool.policy.preloader_started(SHOP, 1, PreloaderId(1), pool.now)
    pool.spawned()
    for _ in range(CRASHES_TOLERATED):
        assert preloaders_let_go(pool.failed()) == []
        while not pool.attempts():
            assert preloaders_let_go(pool.tick_at_deadline()) == []
    assert preloaders_let_go(pool.failed()) == [RetirePreloader(SHOP, Reason.CRASHES, 1)]


def test_new_processes_that_crash_while_the_old_ones_still_go_begin_no_restart() -> None:
    """HO5: the first process of the new version has come, and the restart goes on."""
    pool = DrivenPool(max_concurrent_spawns=2)
    pool.add(min_instances=2)
    pool.spawned()
    pool.spawned()
    pool.close(pool.take().session, SessionOutcome.BROKEN_OFF)
    assert change(pool) != []
    pool.spawned()
    pool.close(pool.take().session, SessionOutcome.BROKEN_OFF)
    pool.now += PAUSE
    assert pool.policy.statistics().groups[0].restarting
    assert not pool.policy.is_troubled(SHOP, pool.now)
