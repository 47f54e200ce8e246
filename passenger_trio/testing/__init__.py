"""Testing against a real server: real processes, real sockets, nothing left behind.

``Supervisor`` runs the command as a child process and is synchronous, so that any test framework can use it. ``RawClient`` speaks bytes.
``conformance`` holds the checks that every spawn server must pass.
"""

from __future__ import annotations

from passenger_trio.testing.harness import LeftBehind, Supervisor, eventually
from passenger_trio.testing.raw_client import RawClient, Response

__all__ = ["LeftBehind", "RawClient", "Response", "Supervisor", "eventually"]
