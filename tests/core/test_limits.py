"""Limits that make no sense are refused where they are made."""

from __future__ import annotations

import pytest

from passenger_trio.core.model import GroupKey, GroupLimits, PoolLimits


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
