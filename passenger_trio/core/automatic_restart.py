"""Repair without a manual restart: a group whose processes crash gets the code that is on disk now.

This module knows that a group is *troubled*: it does not start (``backoff_and_circuit``), or its processes hang up
in their first session. It never knows files: the shell reports that the code has changed.

Laws:

* When the code of a troubled group changes, a rolling restart begins, so a version that does not start
  costs nothing. Nothing watches the code of a healthy group, and new code alone restarts nothing.
* At most one such restart every ``PAUSE`` seconds, because an application may write code while it is
  loaded.
* A change may remain unseen. So the preloader is retired when the circuit is open, or after ``CRASHES``
  processes that crashed in their first session: the next preloader loads the current code. That costs
  loading, but no request. The exception is the preloader of a version that is kept because the next
  one was rejected: it could not be started again.
"""

from __future__ import annotations

from passenger_trio.core.backoff_and_circuit import CRASHES_TOLERATED
from passenger_trio.core.state import GroupState, ProcessState

PAUSE = 5.0
CRASHES = 4


def count_broken_off(process: ProcessState) -> None:
    """A process hung up in the middle of a session. Call this before the session is counted."""
    if not process.processed:
        process.group.crashes += 1


def is_troubled(group: GroupState, now: float) -> bool:
    """Whether a change of its code is a reason to restart the group."""
    if group.leaving or group.candidate is not None or group.rolling or now - group.automatic_restart_at < PAUSE:
        return False
    return group.crashes > 0 or group.backoff.failures > 0


def distrusts_preloader(group: GroupState) -> bool:
    """Whether to retire the serving preloader because its processes crash. If so, clears the count of crashes."""
    if group.holds_on or not group.generations[group.generation].has_preloader:
        return False
    backoff = group.backoff
    circuit = backoff.opened and (not group.enabled or backoff.failures > CRASHES_TOLERATED)
    if not circuit and group.crashes < CRASHES:
        return False
    group.crashes = 0
    return True
