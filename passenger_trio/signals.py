"""The effect of each signal on the server as a program.

Every signal that an operator may send has a documented effect (docs/signals.md), and none ends the
program without a log line (OP19)::

    TERM INT QUIT            drain; a second one: end at once. During the start: end at once
    HUP                      reload, then restart the applications; drain if the controlling terminal has gone
    USR1                     reopen the log files (``Front.reopen_logs``)
    USR2 ALRM VTALRM PROF    no effect but a log line; by default they would end the program
    IO PWR STKFLT XCPU RT*
    TTIN TTOU                the same without a controlling terminal; with one, the shell uses them
                             to stop the program until CONT
    WINCH CHLD CONT URG      their default: nothing visible
    PIPE XFSZ                ignored
    TSTP STOP                their default: stop the program until CONT
    KILL, ABRT SEGV BUS ...  their default: end it; the processes that it started end by themselves

SIGHUP stays ignored if the parent process ignored it (nohup). So do the signals without an effect.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable

__all__ = ["Effect", "effects"]


class Effect(enum.Enum):
    """The effect of a signal."""

    DRAIN = "drain"
    RELOAD = "reload, and restart"
    REOPEN = "open the log files anew"
    NOTHING = "nothing"
    """It is logged."""


_EFFECTS = {
    signal.SIGTERM: Effect.DRAIN,
    signal.SIGINT: Effect.DRAIN,
    signal.SIGQUIT: Effect.DRAIN,
    signal.SIGHUP: Effect.RELOAD,
    signal.SIGUSR1: Effect.REOPEN,
}
_MEANINGLESS = ("SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT", "SIGXCPU")
_OF_TERMINALS = (signal.SIGTTIN, signal.SIGTTOU)


def effects(terminal: bool, disposition: Callable[[int], object] = signal.getsignal) -> dict[int, Effect]:
    """The effect of each signal that the server handles.

    :param terminal: whether there is a controlling terminal.
    :param disposition: the disposition of a signal before the server, as ``signal.getsignal``
        returns it.
    """
    found: dict[int, Effect] = {int(number): effect for number, effect in _EFFECTS.items()}
    if disposition(signal.SIGHUP) == signal.SIG_IGN:
        del found[int(signal.SIGHUP)]
    meaningless = [getattr(signal, name) for name in _MEANINGLESS if hasattr(signal, name)]
    meaningless += range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
    meaningless += () if terminal else _OF_TERMINALS
    return found | {int(number): Effect.NOTHING for number in meaningless if disposition(number) == signal.SIG_DFL}
