"""What ``tmp/restart.txt`` asks for: whatever is new since it was last seen, once."""

from __future__ import annotations

import pytest

from passenger_trio.core.restart_files import RestartFile


@pytest.mark.parametrize(
    ("first", "then", "asked"),
    [
        (None, [None, 5, 5, 5], [False, True, False, False]),  # it appears
        (5, [5, 5], [False, False]),  # it was there before
        (5, [6, 6, 7], [True, False, True]),  # it is touched
        (5, [4, 4], [True, False]),  # an older copy takes its place
        (5, [None, None, 5, 5], [False, False, True, False]),  # it goes, and comes again as it was
    ],
)
def test_to_appear_and_to_change_ask_for_a_restart(
    first: int | None, then: list[int | None], asked: list[bool]
) -> None:
    file = RestartFile()
    file.first_seen(first)
    assert [file.seen(mtime) for mtime in then] == asked


def test_before_the_watch_begins_there_is_none() -> None:
    assert RestartFile().seen(5)
