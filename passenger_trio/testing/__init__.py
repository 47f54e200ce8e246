"""Testing against a real server: real processes and sockets; nothing is left behind.

``Supervisor`` runs the command as a child process. It is synchronous, so that any test framework
can use it. ``RawClient`` sends and receives bytes. ``conformance`` holds the checks that every
spawn server must pass. ``plugin`` is the pytest plugin, ``hooks`` what others attach to it.

Names are imported on first use: pytest loads the plugin in every run, also where nothing uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passenger_trio.testing.harness import LeftBehind as LeftBehind
    from passenger_trio.testing.harness import Supervisor as Supervisor
    from passenger_trio.testing.harness import eventually as eventually
    from passenger_trio.testing.raw_client import RawClient as RawClient
    from passenger_trio.testing.raw_client import Response as Response
    from passenger_trio.testing.unittest_case import PassengerTestCase as PassengerTestCase

_HOMES = {
    "LeftBehind": "harness",
    "PassengerTestCase": "unittest_case",
    "RawClient": "raw_client",
    "Response": "raw_client",
    "Supervisor": "harness",
    "eventually": "harness",
}

__all__ = ["LeftBehind", "PassengerTestCase", "RawClient", "Response", "Supervisor", "eventually"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
