"""When a server that starts accepts, and when it is ready (KE13, fault 14)."""

from __future__ import annotations

from driven_pool import BLOG, MAIL, SHOP, WIKI, DrivenPool

from passenger_trio.core.readiness import is_ready, late, may_accept, startup_failure
from passenger_trio.core.scaling import SLOW_AFTER


def told(pool: DrivenPool, *, all_or_nothing: bool = False) -> tuple[bool, bool]:
    """Whether it accepts, and whether it is ready."""
    statistics = pool.policy.statistics()
    return may_accept(statistics, all_or_nothing=all_or_nothing), is_ready(statistics, all_or_nothing=all_or_nothing)


def test_alone_an_application_is_waited_for_however_slow_it_is() -> None:
    pool = DrivenPool()
    pool.add(SHOP, min_instances=2)
    pool.tick(60.0)
    assert told(pool) == (False, False)
    pool.spawned()
    assert told(pool) == (False, False)
    pool.spawned()
    assert told(pool) == (True, True)


def test_others_are_served_at_once_and_the_server_is_ready_without_what_is_slow() -> None:
    pool = DrivenPool()
    pool.add(SHOP, min_instances=1)
    pool.add(BLOG, min_instances=1)
    pool.spawned(key=BLOG)
    assert told(pool) == (True, False)
    assert told(pool, all_or_nothing=True) == (False, False)
    pool.tick(SLOW_AFTER)
    assert told(pool) == (True, True)
    assert [group.key for group in late(pool.policy.statistics())] == [SHOP]
    assert told(pool, all_or_nothing=True) == (False, False)
    pool.spawned(key=SHOP)
    assert late(pool.policy.statistics()) == []


def test_what_has_failed_is_not_waited_for() -> None:
    pool = DrivenPool()
    pool.add(SHOP, min_instances=1)
    assert startup_failure(pool.policy.statistics()) is None
    pool.failed()
    assert told(pool) == (True, True)
    assert startup_failure(pool.policy.statistics()) is not None


def test_nor_is_what_finds_no_place_in_the_pool() -> None:
    pool = DrivenPool(max_pool_size=2)
    for key in (SHOP, BLOG, WIKI):
        pool.add(key, min_instances=1)
    for key in (SHOP, BLOG):
        pool.spawned(key=key)
    assert told(pool) == (True, True)


def test_what_waits_for_its_turn_is_not_late_while_there_is_room_for_it() -> None:
    """It has no attempt yet, because others have all the slots."""
    pool = DrivenPool(max_pool_size=6, max_concurrent_spawns=1)
    for key in (SHOP, BLOG, WIKI, MAIL):
        pool.add(key, min_instances=1)
    statistics = pool.policy.statistics()
    assert any(not group.attempts for group in statistics.groups)
    assert late(statistics) == []
