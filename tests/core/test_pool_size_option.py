"""OP6: what ``--max-pool-size`` may be."""

from __future__ import annotations

import sys

import pytest

from passenger_trio.core.option_checks import check
from passenger_trio.core.pool_size_option import ceiling_of, parse_pool_size, share_of
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions, Config, PoolOptions


@pytest.mark.parametrize(
    ("said", "value", "share", "ceiling"),
    [
        ("6", 6, 0.0, 6),
        (6, 6, 0.0, 6),
        ("auto", "auto", 0.75, sys.maxsize),
        ("75%", "75%", 0.75, sys.maxsize),
        (" 5% ", "5%", 0.05, sys.maxsize),
        ("100%", "100%", 1.0, sys.maxsize),
    ],
)
def test_OP6_a_number_auto_or_a_share(said: str | int, value: str | int, share: float, ceiling: int) -> None:
    assert (parse_pool_size(said), share_of(value), ceiling_of(value)) == (value, share, ceiling)


@pytest.mark.parametrize("said", ["0", "-1", "0%", "101%", "7.5%", "%", "", "many", "Auto", "٣", "1000%", True])
def test_OP6_nothing_else(said: str | int) -> None:
    with pytest.raises(OptionError, match="--max-pool-size"):
        parse_pool_size(said)


@pytest.mark.parametrize("said", ["auto", "50%", 3])
def test_OP6_a_program_gives_the_same_values(said: str | int) -> None:
    check(Config(pool=PoolOptions(max_pool_size=said)))


@pytest.mark.parametrize("said", ["3", "half", 0, " auto"])
def test_OP6_and_is_told_what_is_wrong(said: str | int) -> None:
    with pytest.raises(OptionError, match="--max-pool-size"):
        check(Config(pool=PoolOptions(max_pool_size=said)))


def test_OP6_OP7_the_minimums_set_no_bound_to_a_share() -> None:
    """They are kept whatever the memory is."""
    apps = (AppOptions(min_instances=90),)
    check(Config(pool=PoolOptions(max_pool_size="auto"), apps=apps))
    with pytest.raises(OptionError, match="allows 6 processes"):
        check(Config(apps=apps))
