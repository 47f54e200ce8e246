"""When mending the file is enough: a group whose processes crash gets the code as it is now, without being restarted by hand.

It knows that a group is *troubled*: it does not start (``backoff``), or its processes hang up in their first session. It never knows files: the shell
tells that the code has changed.

Laws:

* The code of a troubled group has changed: a restart begins, rolling as any other, so that a version which does not start costs nothing. Where all is well
  nobody looks, and new code alone restarts nothing.
* Not more often than every ``PAUSE`` seconds: an application may write code while it is loaded.
* Where nobody sees the change, a preloader is let go when its circuit is open, or after ``CRASHES`` processes that crashed in their first session: the
  next one loads what is there then. It costs a load, no request. Not the preloader of a version that is kept because the next one was rejected: it
  could not be had again.
"""

from __future__ import annotations

from passenger_trio.core.backoff import CRASHES_TOLERATED
from passenger_trio.core.state import GroupState, ProcessState

PAUSE = 5.0
CRASHES = 4


def broken_off(process: ProcessState) -> None:
    """A process hung up in the middle of a session. Called before that is counted."""
    if not process.processed:
        process.group.crashes += 1


def is_troubled(group: GroupState, now: float) -> bool:
    """Whether a change of its code is a reason to restart the group."""
    if group.candidate is not None or group.rolling or now - group.mended_at < PAUSE:
        return False
    return group.crashes > 0 or group.backoff.failures > 0


def distrusts_preloader(group: GroupState) -> bool:
    """Whether the preloader of what serves is to be let go for what became of its processes. Forgets the crashes if so."""
    if group.holds_on or not group.generations[group.generation].has_preloader:
        return False
    backoff = group.backoff
    circuit = backoff.opened and (not group.enabled or backoff.failures > CRASHES_TOLERATED)
    if not circuit and group.crashes < CRASHES:
        return False
    group.crashes = 0
    return True
