"""What the end-to-end tests share by fixtures: the gate at which requests wait, and what runs with several fronts or another interpreter say for all servers.

A test of an application asks for ``live_app`` (docs/testing.md) with a mark of ``faces_tools``, and shares its server with all that have the same mark.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from faces_tools import GATE, Gate


@pytest.fixture(scope="session")
def passenger_config() -> dict[str, Any]:
    """``nox -s fronts`` and ``nox -s pypy`` say it by variables, which servers of the fixtures do not inherit."""
    fronts, python = os.environ.get("PASSENGER_TRIO_FRONTS"), os.environ.get("PASSENGER_TRIO_PYTHON")
    # Tests are a light load, which one front would serve: both are to.
    several: dict[str, Any] = (
        {"fronts": int(fronts), "front_balance": os.environ.get("PASSENGER_TRIO_FRONT_BALANCE", "load")}
        if fronts
        else {}
    )
    return several | ({"python": python} if python else {})


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place of its own for the instance directories of servers in this process."""
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        os.mkdir(f"{directory}/passenger-trio", 0o700)
        yield f"{directory}/passenger-trio"


@pytest.fixture
def at_gate() -> Iterator[Gate]:
    """The gate of applications with the mark ``BEHAVES``. Whoever waits goes on when the test ends."""
    gate = Gate(GATE)
    yield gate
    gate.close()
    os.unlink(GATE)
