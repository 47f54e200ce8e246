"""The context of the admin API's routes: the running server, and state that only this API uses."""

from __future__ import annotations

from functools import partial

import attrs
import trio

from passenger_trio.admin.memory_gauges import MemoryGauges
from passenger_trio.codecs.openmetrics import Exposition
from passenger_trio.late_classes import define
from passenger_trio.running import RunningServer

__all__ = ["Admin"]


@define(eq=False)
class Admin:
    """:ivar started: monotonic seconds.
    :ivar limiter: one thread for all slow measurements.
    """

    server: RunningServer
    started: float
    limiter: trio.CapacityLimiter = attrs.field(factory=partial(trio.CapacityLimiter, 1))
    memory: MemoryGauges = attrs.field(factory=MemoryGauges)
    exposition: Exposition = attrs.field(factory=Exposition)
