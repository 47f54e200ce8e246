"""Testing against a real server: real processes and sockets; nothing is left behind.

``Supervisor`` runs the command as a child process. It is synchronous, so that any test framework
can use it. ``RawClient`` sends and receives bytes. ``conformance`` holds the checks that every
spawn server must pass.
"""

from __future__ import annotations

from passenger_trio.testing.harness import LeftBehind, Supervisor, eventually
from passenger_trio.testing.raw_client import RawClient, Response

__all__ = ["LeftBehind", "RawClient", "Response", "Supervisor", "eventually"]
