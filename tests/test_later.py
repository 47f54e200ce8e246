"""DE10: what neither a start nor a plain request needs does not stand before the first process."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

from passenger_trio.later import LATER

_START = (
    "import sys\n"
    "import passenger_trio.cli.main, passenger_trio.cli.start_cmd, passenger_trio.cli.source, passenger_trio.program\n"
    "print(*sys.modules)"
)


def test_DE10_a_start_does_not_import_what_comes_later() -> None:
    done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=True)
    there = set(done.stdout.split())
    assert "passenger_trio.tree" in there
    assert not there & set(LATER)
    others = {"h11", "wsproto", "pickle", "email", "passenger_trio.fronts.fronts", "passenger_trio.pool.lease_desk"}
    assert not there & others


def test_DE10_each_of_it_is_there() -> None:
    for name in LATER:
        import_module(name)
