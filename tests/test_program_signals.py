"""OP19: which signals the program takes, and what for; the table in the documentation is of the same opinion."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from passenger_trio.signals import Effect, effects

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "signals.md"

ENDING_BY_DEFAULT = {
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGXCPU",
}  # fmt: skip
"""signal(7): those whose default is Term or Core, that are not ignored by Python, and do not tell of a fault in the program."""


def default(number: int) -> object:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


@pytest.mark.parametrize("terminal", [False, True])
def test_no_signal_that_an_operator_may_send_is_left_to_its_default(terminal: bool) -> None:
    found = effects(terminal, default)
    assert {signal.Signals[name] for name in ENDING_BY_DEFAULT} <= set(found)
    assert set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) <= set(found)
    assert (signal.SIGTTOU in found) is (signal.SIGTTIN in found) is (not terminal)
    assert {number for number, effect in found.items() if effect is Effect.DRAIN} == {2, 3, 15}
    assert found[signal.SIGHUP] is Effect.RELOAD
    assert found[signal.SIGUSR1] is Effect.REOPEN
    assert found[signal.SIGUSR2] is Effect.NOTHING


def test_what_is_ignored_already_stays_ignored() -> None:
    found = effects(False, lambda number: signal.SIG_IGN)
    assert set(found) == {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1}


def test_who_handles_a_signal_already_keeps_it() -> None:
    found = effects(False, lambda number: test_who_handles_a_signal_already_keeps_it)
    assert Effect.NOTHING not in found.values()


def test_the_document_names_every_signal_once() -> None:
    text = DOCUMENT.read_text()
    named = [name for row in re.findall(r"^\| (SIG.*?) \|", text, re.MULTILINE) for name in re.findall(r"SIG\w+", row)]
    known = {number.name for number in signal.Signals} - {"SIGCLD", "SIGPOLL"}  # other names of SIGCHLD and SIGIO
    assert sorted(named) == sorted(known)
