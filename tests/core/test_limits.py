"""Limits that make no sense are refused where they are made."""

from __future__ import annotations

import attrs
import pytest

from passenger_trio.codecs.session_protocol import MAX_FRAME
from passenger_trio.codecs.websocket_frames import FrameLimits
from passenger_trio.core.model import GroupKey
from passenger_trio.core.policy_limits import GroupLimits, PoolLimits, group_limits, pool_limits, session_limit
from passenger_trio.core.websocket_life import Times
from passenger_trio.options import MAX_WEBSOCKET_MESSAGE, AppOptions, PoolOptions, ServerOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_pool_size": 0},
        {"max_concurrent_spawns": 0},
        {"pool_idle_time": -1.0},
        {"pool_idle_time": 1e-9},
        {"backoff_first": 0.0},
        {"backoff_factor": 0.5},
        {"backoff_max": 0.0},
        {"backoff_max": float("nan")},
    ],
)
def test_a_pool_that_could_serve_nobody_or_would_spin_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PoolLimits(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_instances": -1},
        {"max_instances": -1},
        {"max_request_queue_size": -1},
        {"max_preloader_idle_time": -1.0},
        {"retry_on_demand_after": -1.0},
    ],
)
def test_a_group_with_negative_limits_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GroupLimits(**wrong)


def test_zero_is_a_limit_where_it_has_a_meaning() -> None:
    PoolLimits(pool_idle_time=0.0)
    GroupLimits(min_instances=0, max_instances=0, max_request_queue_size=0, max_preloader_idle_time=0.0)


def test_a_group_is_shown_by_its_name_and_environment() -> None:
    assert str(GroupKey("shop", "production")) == "shop (production)"


OTHER_NAMES = {"force_concurrency": "force_max_concurrent_requests_per_process"}
"""Limits that are called otherwise than their options."""
NO_OPTIONS = {"preloads", "retry_on_demand_after", "backoff_first", "backoff_factor", "backoff_max"} | {
    "memory_share",
    "memory_most",
}


def limits_and_options(limits: type[attrs.AttrsInstance]) -> dict[str, str]:
    names = [field.name for field in attrs.fields(limits) if field.name not in NO_OPTIONS]
    return {name: OTHER_NAMES.get(name, name) for name in names}


def test_every_limit_of_a_group_comes_from_its_option() -> None:
    """HO1. Each option has a value of its own, so that none is taken for another."""
    names = limits_and_options(GroupLimits)
    values = {option: number for number, option in enumerate(names.values(), 7)}
    limits = group_limits(attrs.evolve(AppOptions(), **values), preloads=True)
    assert {option: getattr(limits, name) for name, option in names.items()} == values
    assert limits.preloads
    assert not group_limits(AppOptions(), preloads=False).preloads


def test_every_limit_of_the_pool_comes_from_its_option() -> None:
    names = limits_and_options(PoolLimits)
    values = {option: number for number, option in enumerate(names.values(), 7)}
    limits = pool_limits(attrs.evolve(PoolOptions(), **values), cores=3)
    assert {option: getattr(limits, name) for name, option in names.items()} == values


def test_a_share_of_the_memory_is_the_limit_of_the_pool_until_the_memory_is_measured() -> None:
    """OP6."""
    limits = pool_limits(PoolOptions(max_pool_size="50%"), cores=3, most=20)
    assert (limits.memory_share, limits.memory_most, limits.max_pool_size) == (0.5, 20, 20)
    assert pool_limits(PoolOptions(max_pool_size="auto"), cores=3, most=20).memory_share == 0.75


def test_programs_that_load_at_a_time_are_as_many_as_cores_where_nobody_says_otherwise() -> None:
    assert pool_limits(PoolOptions(), cores=3).max_concurrent_spawns == 3
    assert pool_limits(PoolOptions(max_concurrent_spawns=1), cores=3).max_concurrent_spawns == 1


def test_a_limit_has_the_default_of_its_option() -> None:
    """HO1: defaults are written once."""
    assert GroupLimits() == group_limits(AppOptions(environment="production"), preloads=False)
    assert PoolLimits() == pool_limits(PoolOptions(), cores=PoolLimits().max_concurrent_spawns)


def test_a_request_in_development_retries_an_application_that_does_not_start() -> None:
    """Somebody has mended the file and presses reload."""
    assert group_limits(AppOptions(environment="development"), preloads=False).retry_on_demand_after == 1.0
    assert group_limits(AppOptions(environment="production"), preloads=False).retry_on_demand_after == float("inf")


@pytest.mark.parametrize(("concurrencies", "most"), [([1, 4], 24), ([1, 0], 0), ([0], 0), ([100], 600)])
def test_sessions_at_a_time_have_a_limit_unless_an_application_has_none(concurrencies: list[int], most: int) -> None:
    assert session_limit(concurrencies, 6) == most


def test_the_numbers_of_websockets_come_from_their_options() -> None:
    """HO1: none of them is written a second time."""
    options = ServerOptions(
        websocket_ping_interval=1.0, websocket_ping_timeout=2.0, write_timeout=3.0, websocket_drain=4.0
    )
    assert Times.of(options) == Times(ping_interval=1.0, ping_timeout=2.0, stall=3.0, drain=4.0)
    assert FrameLimits().max_message_size == ServerOptions().websocket_max_message_size
    assert MAX_FRAME == MAX_WEBSOCKET_MESSAGE
