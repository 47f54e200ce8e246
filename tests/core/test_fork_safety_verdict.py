"""OP15: the verdict on an application that a preloader has loaded."""

from __future__ import annotations

import pytest

from passenger_trio.core.fork_safety import CONSEQUENCES, Hazard, judge

THREAD = Hazard("thread", "the thread APScheduler")
SOCKET = Hazard("socket", "a TCP connection to 10.0.0.1:5432")


@pytest.mark.parametrize(
    ("asked", "hazards", "method", "warns"),
    [
        ("auto", (), "smart", False),
        ("auto", (THREAD,), "direct", True),
        ("auto", (THREAD, SOCKET), "direct", True),
        ("smart", (), "smart", False),
        ("smart", (SOCKET,), "smart", True),
        ("direct", (), "direct", False),
    ],
)
def test_what_is_done(asked: str, hazards: tuple[Hazard, ...], method: str, warns: bool) -> None:
    forking = judge(asked, hazards)
    assert forking.method == method
    assert bool(forking.warning) == warns


@pytest.mark.parametrize("asked", ["auto", "smart"])
@pytest.mark.parametrize("kind", [*CONSEQUENCES, "a kind of next year"])
def test_a_warning_names_what_was_found_its_consequence_and_the_alternatives(asked: str, kind: str) -> None:
    warning = judge(asked, [Hazard(kind, "the thing")]).warning
    assert "the thing" in warning
    assert CONSEQUENCES.get(kind, CONSEQUENCES["descriptor"]) in warning
    assert "on_event('starting_worker_process')" in warning
    assert ("each process loads it anew" in warning) == (asked == "auto")
    assert ("--spawn-method smart" if asked == "auto" else "--spawn-method auto") in warning


def test_a_long_list_is_cut() -> None:
    findings = judge("auto", [Hazard("thread", f"thread {number}") for number in range(20)]).findings
    assert findings.startswith("thread 0, thread 1, ")
    assert findings.endswith(" and 14 more")
