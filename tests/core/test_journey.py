"""The journey of a spawn."""

from __future__ import annotations

import pytest

from passenger_trio.core.journey import (
    DIRECT,
    FORKED,
    LOADER_STEPS,
    PRELOADER,
    SUPERVISOR_STEPS,
    Journey,
    JourneyType,
    StepState,
)


@pytest.mark.parametrize(
    ("type", "steps"),
    [
        (JourneyType.SPAWN_DIRECTLY, DIRECT),
        (JourneyType.START_PRELOADER, PRELOADER),
        (JourneyType.SPAWN_THROUGH_PRELOADER, FORKED),
    ],
)
def test_a_journey_begins_with_all_its_steps_before_it(type: JourneyType, steps: tuple[str, ...]) -> None:
    journey = Journey.begin(type)
    assert tuple(step.name for step in journey.steps) == steps
    assert {step.state for step in journey.steps} == {StepState.NOT_STARTED}
    assert all(step.title for step in journey.steps)
    assert journey.failed_step is None


def test_a_step_takes_as_long_as_the_clock_says() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY).started("preparation", 10.0).performed("preparation", 12.5)
    step = journey.steps[0]
    assert (step.state, step.begun, step.duration) == (StepState.PERFORMED, 10.0, 2.5)


def test_a_step_takes_as_long_as_the_loader_says() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY).performed("load_application", 12.5, duration=0.7)
    step = next(step for step in journey.steps if step.name == "load_application")
    assert step.duration == 0.7


def test_a_clock_that_differs_between_processes_gives_no_negative_duration() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY).started("preparation", 10.0).performed("preparation", 9.0)
    assert journey.steps[0].duration == 0.0


def test_the_step_under_way_is_to_blame() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY).performed("preparation", 1.0).started("connect_back", 2.0)
    failed = journey.failed(3.0).failed_step
    assert failed is not None
    assert (failed.name, failed.duration) == ("connect_back", 1.0)


def test_between_two_steps_the_next_one_is_to_blame() -> None:
    failed = Journey.begin(JourneyType.SPAWN_DIRECTLY).performed("preparation", 1.0).failed(3.0).failed_step
    assert failed is not None
    assert failed.name == "start_program"


def test_a_step_that_is_to_blame_already_keeps_the_blame() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY).errored("load_application", 1.0)
    assert journey.failed(2.0) is journey


def test_after_the_last_step_the_last_one_is_to_blame() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY)
    for step in journey.steps:
        journey = journey.performed(step.name, 1.0)
    failed = journey.failed(2.0).failed_step
    assert failed is not None
    assert failed.name == "ready"


def test_a_step_that_only_a_loader_knows_is_kept_where_it_happened() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY).performed("preparation", 1.0).started("warm_caches", 2.0)
    assert [step.name for step in journey.steps][:3] == ["preparation", "warm_caches", "start_program"]
    assert journey.steps[1].title == "warm caches"


def test_an_unknown_step_after_the_last_one_is_the_last() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY)
    for step in journey.steps:
        journey = journey.performed(step.name, 1.0)
    assert journey.performed("epilogue", 2.0).steps[-1].name == "epilogue"


def test_a_journey_is_a_value() -> None:
    journey = Journey.begin(JourneyType.SPAWN_DIRECTLY)
    journey.started("preparation", 1.0)
    assert journey == Journey.begin(JourneyType.SPAWN_DIRECTLY)


def test_each_step_has_the_title_of_its_table() -> None:
    titles = {step.name: step.title for type in JourneyType for step in Journey.begin(type).steps}
    tables = {**LOADER_STEPS, **SUPERVISOR_STEPS}
    assert titles == {name: tables[name] for name in titles}
    assert set(titles) & set(LOADER_STEPS) != set()
    assert set(titles) & set(SUPERVISOR_STEPS) != set()


def test_a_preloader_that_goes_on_as_a_process_keeps_what_it_has_done() -> None:
    """Its steps come where a direct spawn has them; those of its own come before the two that are left."""
    journey = Journey.begin(JourneyType.START_PRELOADER)
    for step in (*PRELOADER[:-1], "warm_caches"):
        journey = journey.performed(step, 1.0, 0.5)
    gone_on = journey.gone_on()
    assert gone_on.type is JourneyType.SPAWN_DIRECTLY
    names = [step.name for step in gone_on.steps]
    assert names[-2:] == list(DIRECT[-2:])
    assert [name for name in names if name in DIRECT] == list(DIRECT)
    assert names[-3] == "warm_caches"
    states = {step.name: step.state for step in gone_on.steps}
    assert states["ready"] is StepState.NOT_STARTED
    assert states["load_application"] is StepState.PERFORMED
