"""FR2: ``--fronts``: a number or auto, and the warning where slots are too few."""

from __future__ import annotations

import pytest

from passenger_trio.core.fronts.front_count import are_too_many, front_count
from passenger_trio.core.option_values import parse_fronts
from passenger_trio.errors import OptionError


@pytest.mark.parametrize(
    ("asked", "cpus", "fronts"),
    [("1", 8, 1), ("3", 2, 3), ("auto", 1, 1), ("auto", 2, 1), ("auto", 8, 4), ("auto", 64, 8)],
)
def test_the_number_of_fronts(asked: str, cpus: int, fronts: int) -> None:
    assert parse_fronts(asked) == asked
    assert front_count(asked, cpus) == fronts


@pytest.mark.parametrize("asked", ["0", "-1", "", "two", "1.5", "65", "Auto", "²"])
def test_what_is_no_number_of_fronts_is_refused(asked: str) -> None:
    with pytest.raises(OptionError, match="--fronts"):
        parse_fronts(asked, "--fronts")


def test_less_than_four_slots_for_each_front_are_too_few() -> None:
    assert not are_too_many(1, [1], 1), "one front needs no lease"
    assert are_too_many(2, [1], 7)
    assert not are_too_many(2, [1], 8)
    assert not are_too_many(2, [1, 4], 2), "the application with threads has eight"
    assert not are_too_many(4, [0], 1), "a process that serves any number"
    assert not are_too_many(4, [1, 0], 1), "so does one of several applications"
    assert are_too_many(2, [], 7), "no application is known yet: one request for each process"
    assert not are_too_many(2, [], 8)
