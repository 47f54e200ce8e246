"""What a front gets at its start: values that the owner pickles, and the clock that both share."""

from __future__ import annotations

import math
import time

import trio

from passenger_trio.codecs.front_reports import Served
from passenger_trio.core.fronts.share import Share
from passenger_trio.late_classes import frozen

__all__ = ["FrontSetup", "OwnersClock", "offset_of_clock"]


@frozen
class FrontSetup:
    """Everything that a front gets at its start."""

    share: Share
    served: Served
    leases: int
    """Descriptor of the channel of leases."""
    page: int
    """Descriptor of the shared page."""
    listeners: tuple[int, ...]
    """Descriptors of the listening sockets."""
    inbox: int
    """Descriptor at which connections of other fronts arrive."""
    inboxes: tuple[int, ...]
    """Descriptors for connections that move to another front, by its number."""
    admin_socket: str
    """Path of the owner's admin socket."""
    clock_offset: float


def offset_of_clock() -> float:
    """Trio's clock minus the kernel's. Trio adds a random number to its clock, and owner and fronts must compare times."""
    return trio.current_time() - time.perf_counter()


class OwnersClock(trio.abc.Clock):
    """The clock of the owner's event loop."""

    def __init__(self, offset: float) -> None:
        self._offset = offset

    def start_clock(self) -> None:
        """Do nothing: the clock needs no start."""

    def current_time(self) -> float:
        return self._offset + time.perf_counter()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return math.inf if deadline == math.inf else deadline - self.current_time()
