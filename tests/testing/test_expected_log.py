"""TH4, TH7: which lines of level error fail a test."""

from __future__ import annotations

from passenger_trio.testing.leaks import error_lines

FAILURE = "shop does not start: The application raised RuntimeError: a planted one [error 9b6419c0]"
EVIDENCE = ["[error 9b6419c0] Traceback (most recent call last):", "[error 9b6419c0] RuntimeError: a planted one"]
OTHERS = ["[error 11111111] Traceback (most recent call last):", "a process ended"]


def log(*events: str) -> list[dict[str, str]]:
    return [{"level": "error", "event": event} for event in events] + [{"level": "info", "event": "well"}]


def test_TH4_who_expects_a_failure_expects_its_evidence() -> None:
    """The traceback of a broken release failed the test that had ordered it."""
    assert error_lines(log(FAILURE, *EVIDENCE, *OTHERS), ["does not start"]) == OTHERS


def test_TH7_what_nobody_expects_fails_with_all_of_it() -> None:
    assert error_lines(log(FAILURE, *EVIDENCE), []) == [FAILURE, *EVIDENCE]
    # A pattern that fits a line of the evidence says nothing of the failure.
    assert error_lines(log(FAILURE, *EVIDENCE), ["^.error .* Traceback"]) == [FAILURE, EVIDENCE[1]]
