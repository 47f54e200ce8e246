"""Whether the processes of an application are forked from a preloader, or started one by one.

It knows what a preloader has found (``Hazard``) and what a person has asked for (``--spawn-method``). It never knows processes.

Laws: ``auto`` forks only what nothing was found in; ``smart`` forks whatever was found, and says what; ``direct`` forks nothing, and asks nothing.
A verdict holds for one generation: after a restart the application is looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

AUTO, SMART, DIRECT = "auto", "smart", "direct"

CONSEQUENCES = {
    "thread": "threads do not run in processes that are forked",
    "socket": "forked processes would all speak on the same connections, and get each other's answers",
    "pipe": "forked processes would all read from the same pipes",
    "epoll": "forked processes would hear each other's events",
    "inotify": "forked processes would hear each other's events",
    "descriptor": "forked processes would share it",
    "process": "forked processes cannot wait for it, nor end it",
    "exit_hook": "it would remove what other processes still use",
}
"""Kind of a hazard -> what becomes of it in forked processes."""
_FOR_PEOPLE = (
    "Alternatives: make it in each process, in on_event('starting_worker_process') or when it is first used; "
    "--spawn-method direct is what is done now, without looking; --spawn-method smart forks all the same."
)
_MOST_NAMED = 6


@attrs.frozen
class Hazard:
    """Something that an application holds and that processes cannot share."""

    kind: str
    what: str
    """For people: ``the thread APScheduler``."""


@attrs.frozen
class Forking:
    """How the processes of a generation are made, and why."""

    asked: str
    hazards: tuple[Hazard, ...] = ()

    @property
    def method(self) -> str:
        """``smart`` or ``direct``."""
        return DIRECT if self.asked == DIRECT or (self.asked == AUTO and self.hazards) else SMART

    @property
    def findings(self) -> str:
        """What was found, as a list in a sentence; ``""``: nothing."""
        named = [hazard.what for hazard in self.hazards[:_MOST_NAMED]]
        more = len(self.hazards) - len(named)
        return ", ".join(named) + (f" and {more} more" if more > 0 else "")

    @property
    def warning(self) -> str:
        """What people are told; ``""`` where nothing was found."""
        if not self.hazards:
            return ""
        kinds = dict.fromkeys(hazard.kind for hazard in self.hazards)
        why = "; ".join(dict.fromkeys(CONSEQUENCES.get(kind, CONSEQUENCES["descriptor"]) for kind in kinds))
        if self.method == DIRECT:
            return f"is not safe to fork, so each process loads it anew: once loaded, it holds {self.findings}; {why}. {_FOR_PEOPLE}"
        return (
            f"is forked, as --spawn-method smart says, although that is not safe: once loaded, it holds {self.findings}; {why}. "
            "Alternatives: make it in each process, in on_event('starting_worker_process') or when it is first used; "
            "--spawn-method auto, or direct, lets each process load the application."
        )


def judge(asked: str, hazards: Sequence[Hazard]) -> Forking:
    """The verdict on an application that a preloader has loaded.

    :param asked: ``auto``, ``smart`` or ``direct``.
    """
    return Forking(asked, tuple(hazards))
