"""What all parts of the checks share: how long anything may take, how long it may be, and how a broken clause is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 10.0
"""Seconds that anything may take before it counts as not happening."""

START_PATIENCE: Final = 60.0
"""Seconds in which an interpreter must have started. A virtual machine on a busy computer takes its time."""

LAST_SECOND: Final = 1.0
"""Section 2: gone within this time of the supervisor's end."""

MAX_LINE: Final = 65536

MAX_HEAD: Final = 128 * 1024

MAX_FRAME: Final = 16 * 1024 * 1024

CONTRACT_VERSION: Final = 1

Message = dict[str, Any]


class ConformanceFailure(AssertionError):
    """A loader does not keep the contract. The text names every clause that is broken."""


class LoaderFailed(Exception):
    """A loader reported an ``error`` (``message``), or ended before it was ready (``message`` is empty)."""

    def __init__(self, text: str, message: Message) -> None:
        super().__init__(text)
        self.message = message


def expect(holds: bool, text: str) -> None:
    if not holds:
        raise ConformanceFailure(text)


def eventually(holds: Callable[[], object], timeout: float = PATIENCE) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
