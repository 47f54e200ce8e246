"""OP19, fault 35: every signal that an operator may send has its effect, and none ends the server without a word.

Starts the command: signals to it are the subject.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from faces_tools import BEHAVIOURS

from passenger_trio.signals import Effect, effects
from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

UNSEEN = [
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
    signal.SIGWINCH,
    signal.SIGURG,
    signal.SIGCONT,
]
"""The server goes on, and has nothing to say."""


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_every_signal_that_has_no_effect_has_none() -> None:
    with Supervisor.start(BEHAVIOURS, "--min-instances", "1") as server:
        (process,) = server.status()["groups"][0]["processes"]
        meaningless = [
            number
            for number, effect in effects(False, lambda _: signal.SIG_DFL).items()
            if effect is Effect.NOTHING and number not in (signal.SIGTTIN, signal.SIGTTOU)
        ]
        assert signal.SIGUSR2 in meaningless
        for number in [*meaningless, *UNSEEN]:
            server.process.send_signal(number)
        server.wait_log("SIGUSR2 has no effect (docs/signals.md says what each signal does)")
        server.wait_log("SIGALRM has no effect")
        server.wait_log("SIGRTMIN+7 has no effect")
        with server.connect() as client:
            assert client.get("/pid").status == 200
        assert server.status()["groups"][0]["processes"][0]["pid"] == process["pid"], "nor has it for the application"
        assert server.stop() == 0


def test_without_a_terminal_background_signals_are_nothing_and_stop_and_go_on_are_what_they_are() -> None:
    with Supervisor.start(BEHAVIOURS) as server:
        pid = server.process.pid
        if os.path.exists("/dev/tty") and has_terminal(pid):
            terminal_signals: list[signal.Signals] = []
        else:
            terminal_signals = [signal.SIGTTIN, signal.SIGTTOU]
        for number in terminal_signals:
            server.process.send_signal(number)
            server.wait_log(f"{number.name} has no effect")
        server.process.send_signal(signal.SIGSTOP)
        eventually(lambda: state_of(pid) == "T")
        server.process.send_signal(signal.SIGCONT)
        with server.connect() as client:
            assert client.get("/pid").status == 200
        server.process.send_signal(
            signal.SIGTSTP
        )  # an orphaned process group is not stopped by it: either is as for any program
        server.process.send_signal(signal.SIGCONT)
        with server.connect() as client:
            assert client.get("/pid").status == 200
        assert server.stop() == 0


def has_terminal(pid: int) -> bool:
    """Whether a process has a controlling terminal (the seventh field of its stat)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4] != "0"
