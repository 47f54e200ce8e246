"""The end of one operating system process, as a table.

It knows how far the ending of a process has come. It never knows why it ends, what time it is, or how a
signal is sent: the keeper (``pool/keeper.py``) holds the pidfd and the deadlines, feeds the events, and does what the
table says.

The termination sequence::

    SERVING --RETIRE--> ASKED --GRACE_EXPIRED--> TERMED --GRACE_EXPIRED--> KILLED --EXITED--> GONE
                 ASK               TERM                      KILL

* ASK is the ``shutdown`` message on the control connection: finish the sessions in hand, then exit. A program that
  has no control connection, or a broken one, cannot be asked: the keeper lets the grace of ASKED be zero seconds.
* KILL_NOW is a hard stop: no grace any more. EXITED is the pidfd, and it may come in any state.
* After KILLED there is nothing left to do but wait for the pidfd: the kernel has the last word.

Laws:

* Every pair of state and event is written out. A pair that should not occur is an explicit NOTHING, for two reasons:
  events race (a process exits in the very moment at which its grace expires), and a keeper that raises leaves a
  process behind.
* Nothing is sent after GONE: the number may belong to somebody else by then.
* Nothing is sent twice. A step is left in the moment in which it is done.
* Time only moves forward in this sequence, and every way ends in GONE as long as GRACE_EXPIRED is fed after each step and the
  kernel kills.
"""

from __future__ import annotations

import enum

TERM_TIME = 2.0
"""Seconds between SIGTERM and SIGKILL. The time of ASKED is the application's own (``process_shutdown_timeout``)."""


class Life(enum.Enum):
    """How far the ending of a process has come."""

    SERVING = "serving"
    ASKED = "asked to finish"
    TERMED = "sent SIGTERM"
    KILLED = "sent SIGKILL"
    GONE = "gone"


class Event(enum.Enum):
    """What happens to it."""

    RETIRE = "it is not needed any more"
    GRACE_EXPIRED = "the time for the last step is over"
    EXITED = "the process is gone"
    KILL_NOW = "it has to be gone now"


class Action(enum.Enum):
    """What the keeper does about it."""

    NOTHING = "nothing"
    ASK = "send the shutdown message"
    TERM = "send SIGTERM to its process group"
    KILL = "send SIGKILL to its process group"


_ = Action.NOTHING

TABLE: dict[Life, dict[Event, tuple[Life, Action]]] = {
    Life.SERVING: {
        Event.RETIRE: (Life.ASKED, Action.ASK),
        Event.GRACE_EXPIRED: (Life.SERVING, _),  # no step was taken, so none has a grace: a stale timer
        Event.EXITED: (Life.GONE, _),  # by itself: a crash, or somebody else's signal
        Event.KILL_NOW: (Life.KILLED, Action.KILL),
    },
    Life.ASKED: {
        Event.RETIRE: (Life.ASKED, _),  # asked once is enough
        Event.GRACE_EXPIRED: (Life.TERMED, Action.TERM),
        Event.EXITED: (Life.GONE, _),
        Event.KILL_NOW: (Life.KILLED, Action.KILL),
    },
    Life.TERMED: {
        Event.RETIRE: (Life.TERMED, _),
        Event.GRACE_EXPIRED: (Life.KILLED, Action.KILL),
        Event.EXITED: (Life.GONE, _),
        Event.KILL_NOW: (Life.KILLED, Action.KILL),
    },
    Life.KILLED: {
        Event.RETIRE: (Life.KILLED, _),
        Event.GRACE_EXPIRED: (Life.KILLED, _),  # SIGKILL needs no second try: the kernel has it
        Event.EXITED: (Life.GONE, _),
        Event.KILL_NOW: (Life.KILLED, _),
    },
    Life.GONE: {
        Event.RETIRE: (Life.GONE, _),  # the policy decided before it heard of the exit
        Event.GRACE_EXPIRED: (Life.GONE, _),
        Event.EXITED: (Life.GONE, _),
        Event.KILL_NOW: (Life.GONE, _),
    },
}


def step(state: Life, event: Event) -> tuple[Life, Action]:
    """The next state, and what to do on the way there."""
    return TABLE[state][event]
