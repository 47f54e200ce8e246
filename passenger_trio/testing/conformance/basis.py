"""What all checks share: time limits, lengths of the contract, and the exceptions for a broken clause."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

TIMEOUT: Final = 10.0
"""Seconds that anything may take."""

START_TIMEOUT: Final = 60.0
"""Seconds for the start of an interpreter: a virtual machine on a busy computer is slow."""

EXIT_TIMEOUT: Final = 1.0
"""Seconds from the supervisor's end until the process must be gone (clause 2.6)."""

MAX_LINE: Final = 65536

MAX_HEAD: Final = 128 * 1024

MAX_FRAME: Final = 16 * 1024 * 1024

CONTRACT_VERSION: Final = 1

Message = dict[str, Any]


class ConformanceFailure(AssertionError):
    """A loader breaks the contract. The text names every broken clause."""


class LoaderFailed(Exception):
    """A loader reported an ``error`` (``response_framing``), or ended before it was ready (``response_framing`` is empty)."""

    def __init__(self, text: str, message: Message) -> None:
        super().__init__(text)
        self.message = message


def expect(holds: bool, text: str) -> None:
    if not holds:
        raise ConformanceFailure(text)


def eventually(holds: Callable[[], object], timeout: float = TIMEOUT) -> bool:
    """Wait until ``holds()`` is true. False: it was not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
