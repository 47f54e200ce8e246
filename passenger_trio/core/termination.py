"""The end of one operating system process, as a table.

This module knows how far the termination of a process has come. It never knows the reason, the time,
or how to send a signal. The keeper (``pool/process_keeper.py``) holds the pidfd and the deadlines, feeds the
events, and does what the table says.

The termination sequence::

    SERVING --RETIRE--> ASKED --GRACE_EXPIRED--> TERMED --GRACE_EXPIRED--> KILLED --EXITED--> GONE
                 ASK               TERM                      KILL

* ASK is the ``shutdown`` message on the control connection: finish the open sessions, then exit. A
  program without a working control connection cannot be asked: its keeper gives ASKED a grace of zero
  seconds.
* KILL_NOW is a hard stop without further grace. EXITED comes from the pidfd, in any state.
* After KILLED, only waiting for the pidfd is left: the kernel ends the process.

Laws:

* The table contains every pair of state and event. A pair that should not occur is an explicit
  NOTHING, for two reasons: events race (a process exits at the moment at which its grace expires),
  and a keeper that raises leaves a process behind.
* The keeper sends nothing after GONE: the pid may belong to another process by then.
* The keeper sends nothing twice. Each action leaves its state at once.
* The sequence only moves forward. Every path ends in GONE, if GRACE_EXPIRED is fed after each step and
  the kernel kills.
"""

from __future__ import annotations

import enum

TERM_TIME = 2.0
"""Seconds between SIGTERM and SIGKILL. The application sets the time of ASKED (``process_shutdown_timeout``)."""


class Progress(enum.Enum):
    """How far the termination of a process has come."""

    SERVING = "serving"
    ASKED = "asked to finish"
    TERMED = "sent SIGTERM"
    KILLED = "sent SIGKILL"
    GONE = "gone"


class Event(enum.Enum):
    """Events of the process."""

    RETIRE = "it is not needed any more"
    GRACE_EXPIRED = "the time for the last step is over"
    EXITED = "the process is gone"
    KILL_NOW = "it has to be gone now"


class Action(enum.Enum):
    """What the keeper does in response."""

    NOTHING = "nothing"
    ASK = "send the shutdown message"
    TERM = "send SIGTERM to its process group"
    KILL = "send SIGKILL to its process group"


_ = Action.NOTHING

TABLE: dict[Progress, dict[Event, tuple[Progress, Action]]] = {
    Progress.SERVING: {
        Event.RETIRE: (Progress.ASKED, Action.ASK),
        Event.GRACE_EXPIRED: (Progress.SERVING, _),  # no step was taken, so none has a grace: a stale timer
        Event.EXITED: (Progress.GONE, _),  # unasked: a crash, or a signal from elsewhere
        Event.KILL_NOW: (Progress.KILLED, Action.KILL),
    },
    Progress.ASKED: {
        Event.RETIRE: (Progress.ASKED, _),  # asked once is enough
        Event.GRACE_EXPIRED: (Progress.TERMED, Action.TERM),
        Event.EXITED: (Progress.GONE, _),
        Event.KILL_NOW: (Progress.KILLED, Action.KILL),
    },
    Progress.TERMED: {
        Event.RETIRE: (Progress.TERMED, _),
        Event.GRACE_EXPIRED: (Progress.KILLED, Action.KILL),
        Event.EXITED: (Progress.GONE, _),
        Event.KILL_NOW: (Progress.KILLED, Action.KILL),
    },
    Progress.KILLED: {
        Event.RETIRE: (Progress.KILLED, _),
        Event.GRACE_EXPIRED: (Progress.KILLED, _),  # SIGKILL needs no second try: the kernel delivers it
        Event.EXITED: (Progress.GONE, _),
        Event.KILL_NOW: (Progress.KILLED, _),
    },
    Progress.GONE: {
        Event.RETIRE: (Progress.GONE, _),  # the policy decided before it knew of the exit
        Event.GRACE_EXPIRED: (Progress.GONE, _),
        Event.EXITED: (Progress.GONE, _),
        Event.KILL_NOW: (Progress.GONE, _),
    },
}


def step(state: Progress, event: Event) -> tuple[Progress, Action]:
    """The next state, and the action on the way to it."""
    return TABLE[state][event]
