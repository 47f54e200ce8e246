"""Whether a preloader forks the processes of an application, or each of them starts on its own.

This module knows the hazards that a preloader has found (``Hazard``), and the method that the operator
asked for (``--spawn-method``). It never knows processes.

Laws:

* ``auto`` forks only an application without hazards. ``smart`` always forks, and reports the hazards.
  ``direct`` never forks, and looks for no hazards.
* A verdict holds for one generation: each restart looks at the application again.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.late_classes import frozen

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
"""Kind of hazard -> its consequence in forked processes."""
_FOR_PEOPLE = (
    "Alternatives: make it in each process, in on_event('starting_worker_process') or when it is first used; "
    "--spawn-method direct is what is done now, without looking; --spawn-method smart forks all the same."
)
_MOST_NAMED = 6


@frozen
class Hazard:
    """A resource that an application holds and that processes cannot share."""

    kind: str
    what: str
    """Shown to operators: ``the thread APScheduler``."""


@frozen
class Forking:
    """How the processes of a generation start, and why."""

    asked: str
    hazards: tuple[Hazard, ...] = ()

    @property
    def method(self) -> str:
        """``smart`` or ``direct``."""
        return DIRECT if self.asked == DIRECT or (self.asked == AUTO and self.hazards) else SMART

    @property
    def findings(self) -> str:
        """The hazards as a list for a sentence; ``""``: none."""
        named = [hazard.what for hazard in self.hazards[:_MOST_NAMED]]
        more = len(self.hazards) - len(named)
        return ", ".join(named) + (f" and {more} more" if more > 0 else "")

    @property
    def warning(self) -> str:
        """The message to operators; ``""``: no hazards."""
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
    """The verdict on an application after a preloader has loaded it.

    :param asked: ``auto``, ``smart`` or ``direct``.
    """
    return Forking(asked, tuple(hazards))
