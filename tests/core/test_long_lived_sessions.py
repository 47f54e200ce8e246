"""Sessions that are no requests any more (a WebSocket): they may last, and count as busyness all the same."""

from __future__ import annotations

import pytest
from driven_pool import SHOP, DrivenPool

from passenger_trio.core.model import SessionId
from passenger_trio.errors import InvariantBroken


def test_a_held_session_may_last_longer_than_a_request() -> None:
    pool = DrivenPool()
    pool.add(warm=1, max_request_time=10.0)
    grant = pool.take()
    assert pool.policy.session_long_lived(grant.session, pool.now) == []
    assert pool.tick(100.0) == []
    assert pool.policy.statistics().groups[0].processes[0].sessions == 1
    pool.close(grant.session)
    assert pool.policy.statistics().groups[0].processes[0].sessions == 0


def test_another_request_of_its_process_may_not() -> None:
    pool = DrivenPool(max_pool_size=1)
    pool.add(max_request_time=10.0)
    pool.spawned(concurrency=2)
    held, other = pool.take(), pool.take()
    pool.policy.session_long_lived(held.session, pool.now)
    [kill, *_] = pool.tick(10.0)
    assert kill.session == other.session


def test_where_no_request_is_limited_nothing_happens() -> None:
    pool = DrivenPool()
    pool.add(warm=1)
    grant = pool.take()
    assert pool.policy.session_long_lived(grant.session, pool.now) == []
    assert pool.policy.session_long_lived(grant.session, pool.now) == []
    assert pool.policy.state.groups[SHOP].running == {}


def test_a_session_that_is_not_open_cannot_be_held() -> None:
    with pytest.raises(InvariantBroken):
        DrivenPool().policy.session_long_lived(SessionId(1), 0.0)
