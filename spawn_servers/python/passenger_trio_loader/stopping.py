"""When a process ends: how a stop divides its time, and the watchdog of the last second (CONTRACT.md, "Stopping")."""

import faulthandler
import os

LAST_SECOND = 0.6
"""Seconds from the supervisor's end to ours. The contract allows 1 second."""
EXIT_HOOKS_TIME = 0.3
"""Seconds of ``LAST_SECOND`` in which the main thread may begin to run the exit hooks. Then the watcher's thread runs them."""
INTERRUPT_INTERVAL = 0.1
"""Seconds between two interruptions of the main thread: its time to unwind."""
MAX_RESERVED = 15.0
"""Greatest number of seconds that a stop reserves for the steps that follow the sessions in hand."""
DEV_NULL = os.open(os.devnull, os.O_WRONLY)
"""Opened when the process starts, because later there may be no descriptor left."""


class Leave(SystemExit):
    """Raised in the main thread, at any place, to end the process now."""


def stop_schedule(timeout):
    """When a stopping worker goes on to its next step, whether or not the step before is finished.

    :param timeout: seconds that the worker has for the whole stop.
    :returns: seconds from the ``shutdown`` message to: cancelling the sessions in hand; the application's own
        shutdown; the exit hooks.
    """
    reserved = min(timeout / 2, MAX_RESERVED)
    cancel = timeout - reserved
    return cancel, cancel + reserved / 3, cancel + reserved * 2 / 3


def start_last_second():
    """End the process after ``LAST_SECOND``, whatever the application does.

    faulthandler's watchdog is a thread in C. It works even if the application keeps the interpreter lock, catches
    ``Leave``, or hangs in an exit hook.
    """
    faulthandler.dump_traceback_later(LAST_SECOND, exit=True, file=DEV_NULL)
