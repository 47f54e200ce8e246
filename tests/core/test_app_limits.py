"""OP9: which limits of the kernel an application's options mean, and which the server may not grant."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.core.app_limits import UNLIMITED, AppLimits, Rights, check_grantable, limits_of, parse_core
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, AppLimits()),
        ({"open_files": 64}, AppLimits({"NOFILE": 64})),
        ({"processes": 8}, AppLimits({"NPROC": 8})),
        ({"core": "0"}, AppLimits({"CORE": 0})),
        ({"core": "1M"}, AppLimits({"CORE": 1024**2})),
        ({"core": "unlimited"}, AppLimits({"CORE": UNLIMITED})),
        ({"address_space": 2**30}, AppLimits({"AS": 2**30})),
        ({"cpu_time": 60.0}, AppLimits({"CPU": 60})),
        ({"cpu_time": 0.2}, AppLimits({"CPU": 1})),
        ({"nice": 5}, AppLimits({}, 5)),
        ({"nice": -5}, AppLimits({}, -5)),
        ({"nice": 0}, AppLimits()),
    ],
)
def test_OP9_the_table(options: dict[str, Any], wanted: AppLimits) -> None:
    found = limits_of(AppOptions(**options))
    assert found == wanted
    assert bool(found) == bool(options and options != {"nice": 0})


@pytest.mark.parametrize("text", ["-1", "much", "1X", "infinity"])
def test_OP9_a_core_that_is_no_size(text: str) -> None:
    with pytest.raises(OptionError, match="a size") as caught:
        parse_core(text)
    assert caught.value.option == "--core"


def granted(
    limits: AppLimits,
    *,
    may_raise: bool = False,
    may_hasten: bool = False,
    most_files: int = 1000,
    hard: int = 100,
    nice: int = 0,
) -> str:
    """``""``, or the option that is refused."""
    try:
        check_grantable(limits, Rights(may_raise, may_hasten, most_files, lambda name: hard, nice))
    except OptionError as error:
        return error.option
    return ""


@pytest.mark.parametrize(
    ("limits", "facts", "refused"),
    [
        (AppLimits({"NOFILE": 100}), {}, ""),
        (AppLimits({"NOFILE": 101}), {}, "--open-files"),
        (AppLimits({"NOFILE": 101}), {"may_raise": True}, ""),
        (AppLimits({"NOFILE": 101}), {"may_hasten": True}, "--open-files"),
        (AppLimits({"NOFILE": 1000}), {"may_raise": True}, ""),
        (AppLimits({"NOFILE": 1001}), {"may_raise": True}, "--open-files"),
        (AppLimits({"NOFILE": 1001}), {"may_raise": True, "most_files": UNLIMITED}, ""),
        (AppLimits({"NPROC": 1001}), {"may_raise": True}, ""),
        (AppLimits({"NOFILE": 101}), {"hard": UNLIMITED}, ""),
        (AppLimits({"CORE": UNLIMITED}), {}, "--core"),
        (AppLimits({"CORE": UNLIMITED}), {"hard": UNLIMITED}, ""),
        (AppLimits({}, -1), {}, "--nice"),
        (AppLimits({}, -1), {"may_hasten": True}, ""),
        (AppLimits({}, -1), {"may_raise": True}, "--nice"),
        (AppLimits({}, 0), {}, ""),
        (AppLimits({}, 3), {"nice": 4}, "--nice"),
        (AppLimits({}, 4), {"nice": 4}, ""),
    ],
)
def test_OP9_what_only_root_can_grant(limits: AppLimits, facts: dict[str, Any], refused: str) -> None:
    assert granted(limits, **facts) == refused
