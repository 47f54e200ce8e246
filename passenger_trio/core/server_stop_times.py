"""How the time of a stop (``--shutdown-timeout``) is divided. Pure; times are seconds.

A stop has two parts: requests in flight are finished, then the processes end. The option limits both parts together
(OP24), because a service manager or a container's runtime kills the server when its own time is over.

* The processes get what the slowest of them may need (its own timeout, SIGTERM and SIGKILL), but at most a third.
  The requests get the rest.
* Time that the requests do not use goes to the processes, up to their own timeout.
* A process is asked to end, then gets SIGTERM, then SIGKILL. If time is short, most of it is spent before SIGTERM.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.core.termination import TERM_TIME

__all__ = ["time_for_requests", "time_to_ask"]

_LEEWAY = 0.5
"""For what comes after the last SIGKILL."""
_SHARE = 1 / 3
_LEAST_ASKING = 0.6


def time_for_requests(total: float, process_timeouts: Sequence[float]) -> float:
    """How long the server waits for requests in flight.

    :param process_timeouts: of the applications (``--process-shutdown-timeout``).
    """
    needed = max(process_timeouts, default=0.0) + TERM_TIME + _LEEWAY
    return total - min(needed, total * _SHARE)


def time_to_ask(left: float) -> float:
    """How long a process may take after it was asked to end. Then it gets SIGTERM.

    :param left: until everything must have ended.
    """
    return max(left - TERM_TIME - _LEEWAY, left * _LEAST_ASKING, 0.0)
