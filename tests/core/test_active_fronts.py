"""FR6: how many fronts serve, and which connections move: the laws of ``core.fronts.active_fronts``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.accept_gate import Turn, exceeds, turn, turn_when_full
from passenger_trio.core.fronts.active_fronts import CALM, MOST_MOVES, ActiveFronts, Load, moves

STEP = 0.125
"""Seconds between two looks; exact in binary."""


def looks(active: ActiveFronts, load: Load, count: int, begin: float = 0.0) -> list[int]:
    return [active.look(begin + number * STEP, load) for number in range(count)]


@pytest.mark.parametrize(
    ("load", "cores", "fronts"),
    [
        (Load(0.0, 0.0, 0, 40), 8, 1),
        (Load(0.85, 0.0, 40, 40), 8, 1),
        (Load(0.86, 0.0, 40, 40), 8, 2),
        (Load(3.0, 0.0, 40, 40), 8, 4),
        (Load(3.0, 0.0, 40, 40), 2, 2),  # more than there are cores help nobody
        (Load(3.0, 0.0, 11, 40), 8, 2),  # each has four connections
        (Load(3.0, 0.0, 40, 3), 8, 3),  # more fronts than slots: one of them always waits
        (Load(3.0, 0.0, 3, 0), 8, 1),
        (Load(0.0, 0.51, 0, 40), 2, 2),
        (Load(0.0, 1.6, 0, 40), 2, 4),  # limits have nothing to do with cores
        (Load(0.0, 0.0, 256, 40), 8, 1),
        (Load(0.0, 0.0, 257, 40), 8, 2),
    ],
)
def test_how_many_fronts_a_load_takes(load: Load, cores: int, fronts: int) -> None:
    assert load.needs(cores) == fronts


def test_a_server_begins_with_one_and_a_load_that_lasts_makes_more_active() -> None:
    active = ActiveFronts(4, cores=8)
    assert active.count == 1
    assert looks(active, Load(1.0, 0.0, 40, 40), 3) == [1, 2, 2]
    assert looks(active, Load(2.6, 0.0, 40, 40), 3) == [2, 4, 4]


def test_one_busy_look_makes_none_active() -> None:
    """A front that collects its garbage is busy for a moment."""
    active = ActiveFronts(4, cores=8)
    busy, quiet = Load(1.0, 0.0, 40, 40), Load(0.1, 0.0, 40, 40)
    assert [active.look(STEP * number, busy if number % 2 else quiet) for number in range(20)] == [1] * 20


def test_a_limit_that_fills_up_makes_one_active_at_once() -> None:
    active = ActiveFronts(4, cores=1)
    assert active.look(0.0, Load(0.0, 0.75, 9, 40)) == 2


@pytest.mark.parametrize(("idle", "count"), [(0.0, 1), (0.44, 1), (0.46, 2)])
def test_processor_time_makes_another_active_only_where_a_part_of_a_core_is_idle(idle: float, count: int) -> None:
    assert looks(ActiveFronts(4, cores=2), Load(1.0, 0.0, 40, 40, 1.0, idle), 30)[-1] == count


def test_each_active_front_takes_its_part_of_what_is_idle() -> None:
    active = ActiveFronts(9, cores=8)
    looks(active, Load(2.6, 0.0, 40, 40, 2.6, 5.0), 2)
    assert active.count == 4
    assert looks(active, Load(3.9, 0.0, 40, 40, 3.9, 1.7), 30)[-1] == 4
    assert looks(active, Load(3.9, 0.0, 40, 40, 3.9, 1.9), 30)[-1] == 5


def test_limits_and_connections_need_no_idle_core() -> None:
    assert looks(ActiveFronts(4, cores=2), Load(1.0, 0.75, 40, 40, 1.0, 0.0), 2)[-1] == 2
    assert looks(ActiveFronts(4, cores=2), Load(1.0, 0.0, 600, 40, 1.0, 0.0), 2)[-1] == 3


@pytest.mark.parametrize(
    ("used", "idle", "count"),
    [
        (1.28, 0.0, 1),  # one with a core for itself does as much
        (1.32, 0.0, 2),
        (1.28, 0.3, 2),  # they do not want more
        (1.28, 1.0, 2),
    ],
)
def test_one_less_is_active_where_the_cores_are_full_without_a_gain(used: float, idle: float, count: int) -> None:
    active = ActiveFronts(4, cores=2)
    looks(active, Load(1.0, 0.0, 40, 40, 1.0, 1.0), 2)
    assert active.count == 2
    assert looks(active, Load(1.9, 0.0, 40, 40, used, idle), 2 + int(CALM / STEP))[-1] == count


@given(st.floats(0.1, 3.0), st.integers(2, 16))
def test_a_load_whose_processes_need_as_much_as_they_do_makes_none_active_and_idle_by_turns(
    others: float, cores: int
) -> None:
    """A front uses a core for itself; with its cores shared, what it does takes a third more, and so do all."""
    active = ActiveFronts(cores, cores)
    counts = []
    for look in range(400):
        n = active.count
        alone = n * (1 + others)
        if alone <= cores:
            used, idle = float(n), cores - alone
        else:
            used, idle = min(n, cores * 1.35 / (1.35 + others)), 0.0
        counts.append(active.look(STEP * look, Load(float(n), 0.0, 1000, 1000, used, idle)))
    assert len(set(counts[-200:])) == 1


def test_it_takes_quiet_seconds_to_have_fewer() -> None:
    active = ActiveFronts(4, cores=8)
    looks(active, Load(2.6, 0.0, 40, 40), 2)
    assert active.count == 4
    quiet = int(CALM / STEP)
    assert looks(active, Load(0.1, 0.0, 40, 40), quiet, 1.0) == [4] * quiet
    assert active.look(1.0 + CALM, Load(0.1, 0.0, 40, 40)) == 1


def test_a_load_between_the_bounds_changes_nothing() -> None:
    """What two fronts have to spare is more than one would have: no connection moves back and forth."""
    active = ActiveFronts(4, cores=8)
    looks(active, Load(1.0, 0.0, 40, 40), 2)
    assert set(looks(active, Load(0.65, 0.0, 40, 40), 100, 1.0)) == {2}
    assert active.look(100.0, Load(0.9, 0.0, 40, 40)) == 2


def test_quiet_seconds_begin_anew_after_each_busy_look() -> None:
    active = ActiveFronts(2, cores=8)
    looks(active, Load(1.0, 0.0, 40, 40), 2)
    for number in range(100):
        active.look(1.0 + number * (CALM - STEP), Load(0.65 if number % 2 else 0.1, 0.0, 40, 40))
    assert active.count == 2


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.integers(0, 10_000), st.integers(0, 99)), max_size=60),
    st.integers(1, 9),
)
def test_never_none_and_never_more_than_there_are(found: list[tuple[float, float, int, int]], fronts: int) -> None:
    active = ActiveFronts(fronts, cores=4)
    assert all(1 <= active.look(STEP * at, Load(*load)) <= fronts for at, load in enumerate(found))


# -- which connections move ------------------------------------------------------------------------------------------

COUNTS = st.dictionaries(st.integers(0, 15), st.integers(0, 300), max_size=8)


def test_a_front_that_is_not_active_gives_all_to_those_with_the_fewest() -> None:
    assert moves(4, {0: 10, 1: 12}, is_active=False) == [0, 0, 0, 1]
    assert moves(2, {}, is_active=False) == [], "there is nobody to take them"


def test_an_active_front_gives_what_it_has_too_many() -> None:
    assert moves(5, {1: 1}, is_active=True) == [], "what the accept gate allows stays"
    assert moves(6, {1: 0}, is_active=True) == [1, 1, 1]
    assert moves(32, {1: 0, 2: 0, 3: 0}, is_active=True).count(2) == 8


def test_R36_nothing_moves_where_the_limit_could_be_exceeded() -> None:
    assert moves(9, {0: 4}, is_active=False, limits={0: 10}, givers=2) == [0, 0, 0]
    assert sorted(moves(9, {0: 4, 1: 8, 2: 9}, is_active=False, limits={0: 10, 1: 10, 2: 10}, givers=2)) == [0, 0, 0, 1]
    assert moves(9, {0: 10, 1: 11}, is_active=False, limits={0: 10, 1: 10}) == []


def test_so_many_at_a_look() -> None:
    assert len(moves(1000, {1: 0}, is_active=False)) == MOST_MOVES


@given(st.integers(0, 300), COUNTS, st.booleans())
def test_moves_make_the_counts_closer_and_never_cross(own: int, active: dict[int, int], is_active: bool) -> None:
    places = moves(own, active, is_active=is_active, most=10_000)
    after = {number: count + places.count(number) for number, count in active.items()}
    left = own - len(places)
    assert left >= 0
    assert set(places) <= set(active)
    if is_active and active:
        assert not exceeds(left, min(after.values()))
        assert not places or left >= min(after.values())
        assert all(not places.count(number) or after[number] <= left + 1 for number in active)
    elif active:
        assert left == 0
    if places:
        raised = [after[number] for number in set(places)]
        assert max(raised) - min(raised) <= 1, "they go to those with the fewest"


@given(st.integers(1, 300), COUNTS)
def test_what_has_moved_does_not_come_back(own: int, active: dict[int, int]) -> None:
    places = moves(own, active, is_active=True, most=10_000)
    after = {number: count + places.count(number) for number, count in active.items()}
    after[99] = own - len(places)
    for number in set(places):
        others = {other: count for other, count in after.items() if other != number}
        assert moves(after[number], others, is_active=True) == []


def test_a_full_front_leaves_connections_to_fronts_that_have_room() -> None:
    assert turn_when_full((10, 0), [(12, 1)], room_elsewhere=True) is Turn.LEAVE
    assert turn(10, [9]) is Turn.LAST


def test_where_all_fronts_are_full_one_of_them_makes_room_first() -> None:
    full = [(10, 0), (9, 1), (9, 2)]
    turns = [turn_when_full(own, [one for one in full if one != own], room_elsewhere=False) for own in full]
    assert turns == [Turn.LAST, Turn.TAKE, Turn.LAST]
    assert turn_when_full((9, 2), [], room_elsewhere=False) is Turn.TAKE
