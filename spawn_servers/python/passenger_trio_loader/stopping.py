"""How a process ends: how the time for a stop is divided, and what ends the process when the last second is over."""

import faulthandler
import os

LAST_SECOND = 0.6
"""Seconds from the supervisor's end to ours. The contract allows 1."""
LEAVE_TIME = 0.3
"""How much of it the main thread has for running the exit hooks itself."""
NUDGE_TIME = 0.1
"""How long it has for its way there before it is interrupted again."""
MOST_RESERVED = 15.0
"""Seconds, at the most, that a stop keeps for what comes behind the sessions in hand."""
NOWHERE = os.open(os.devnull, os.O_WRONLY)
"""Open from the beginning: when it is needed, there may be no descriptor left."""


class Leave(SystemExit):
    """Raised in the main thread, wherever it is, when the process is to end now."""


def shares_of(timeout):
    """How a worker that is told to stop divides its time: when sessions in hand are cancelled, when the application's
    own shutdown begins at the latest, and when the exit hooks do. Seconds from the moment in which it was told.

    :param timeout: seconds that it has for everything.
    """
    reserved = min(timeout / 2, MOST_RESERVED)
    begun = timeout - reserved
    return begun, begun + reserved / 3, begun + reserved * 2 / 3


def limit_life():
    """End the process when the last second is over.

    The watchdog of faulthandler is a thread in C: it does so also when the application keeps the interpreter lock,
    swallows ``Leave``, or hangs in an exit hook.
    """
    faulthandler.dump_traceback_later(LAST_SECOND, exit=True, file=NOWHERE)
