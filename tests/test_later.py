"""DE10: what neither a start nor a plain request needs does not stand before the first process."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

from passenger_trio.later import LATER

_FIRST = "import sys, passenger_trio.cli.main, passenger_trio.cli.start_cmd, passenger_trio.cli.source, passenger_trio.program"


def imported(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_DE10_the_first_loader_does_not_wait_for_the_server() -> None:
    there = imported(_FIRST)
    assert "passenger_trio.early_start" in there
    assert not there & {
        "passenger_trio.tree",
        "passenger_trio.pool.pool",
        "passenger_trio.core.policy",
        "passenger_trio.server.front",
    }


def test_DE10_a_start_does_not_import_what_comes_later() -> None:
    there = imported(f"{_FIRST}, passenger_trio.tree")
    assert "passenger_trio.pool.pool" in there
    assert not there & set(LATER)
    others = {"h11", "wsproto", "pickle", "email", "passenger_trio.fronts.fronts", "passenger_trio.pool.lease_desk"}
    assert not there & others


def test_DE10_each_of_it_is_there() -> None:
    for name in LATER:
        import_module(name)
