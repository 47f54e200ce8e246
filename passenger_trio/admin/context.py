"""What the routes of the admin API are given: the running server, and what belongs to this API alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs
import trio

from passenger_trio.running import RunningServer
from passenger_trio.spawning.app_spec import AppSpec

__all__ = ["Admin"]


@attrs.define(eq=False)
class Admin:
    """:ivar started: monotonic seconds. :ivar limiter: one thread for all that takes long to look at."""

    server: RunningServer
    specs: Sequence[AppSpec]
    started: float
    limiter: trio.CapacityLimiter = attrs.field(factory=partial(trio.CapacityLimiter, 1))
