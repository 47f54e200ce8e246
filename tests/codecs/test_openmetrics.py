"""OB1: what is written is read back by prometheus-client's parser, whatever the labels hold."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from passenger_trio.codecs.openmetrics import END, SLICE, Exposition, Family, encode
from passenger_trio.core.tally import Histogram


def read(data: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Name and labels -> value, of each sample."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(data.decode())
        for sample in family.samples
    }


LABELS = st.text(st.characters(codec="utf-8"))


@given(labels=st.lists(LABELS, unique=True, max_size=4), help=LABELS)
def test_OB1_any_label_is_one_line(labels: list[str], help: str) -> None:
    family = Family("t_requests", "counter", help)
    for number, label in enumerate(labels):
        family.add(number, app=label)
    text = encode([family])
    assert text.endswith(b"# EOF\n")
    assert read(text) == {("t_requests_total", (("app", label),)): number for number, label in enumerate(labels)}


def test_OB1_a_histogram_is_cumulative() -> None:
    told = Histogram((0.5, 1.0))
    told.observe_all([0.1, 0.2, 0.7, 9.0])
    family = Family("t_wait_seconds", "histogram", "Waiting.")
    family.add(told, app="shop")
    found = read(encode([family]))
    assert found[("t_wait_seconds_bucket", (("app", "shop"), ("le", "0.5")))] == 2
    assert found[("t_wait_seconds_bucket", (("app", "shop"), ("le", "1.0")))] == 3
    assert found[("t_wait_seconds_bucket", (("app", "shop"), ("le", "+Inf")))] == 4
    assert found[("t_wait_seconds_count", (("app", "shop"),))] == 4
    assert found[("t_wait_seconds_sum", (("app", "shop"),))] == 10.0


def test_OB1_numbers_that_are_none_and_families_without_samples() -> None:
    gauge = Family("t_gauge", "gauge", "A gauge.")
    gauge.add(math.nan, app="a")
    gauge.add(math.inf, app="b")
    gauge.add(-math.inf, app="c")
    text = encode([gauge, Family("t_none", "gauge", "Nothing.")])
    found = read(text)
    assert math.isnan(found[("t_gauge", (("app", "a"),))])
    assert found[("t_gauge", (("app", "b"),))] == math.inf
    assert found[("t_gauge", (("app", "c"),))] == -math.inf
    assert b"t_none" not in text


def test_OB1_a_name_from_a_file_system_that_is_no_text() -> None:
    family = Family("t_gauge", "gauge", "A gauge.")
    family.add(1, app="caf\udce9")
    assert b'app="caf' in encode([family])


def test_OB1_a_scrape_writes_anew_only_what_has_changed() -> None:
    """A thousand applications are six thousand histograms, and few have changed since the scrape before."""
    told = [Histogram() for _ in range(1000)]

    def scraped() -> bytes:
        return b"".join([*exposition.parts(_family_of(told)), END])

    exposition = Exposition()
    first = scraped()
    assert exposition.written == 1000
    assert scraped() == first
    assert exposition.written == 1000
    told[7].observe(0.3)
    del told[-1]
    second = scraped()
    assert exposition.written == 1001
    assert read(second)[("t_wait_seconds_count", (("app", "app7"),))] == 1
    assert second == encode([_family_of(told)])


def _family_of(told: list[Histogram]) -> Family:
    family = Family("t_wait_seconds", "histogram", "Waiting.")
    for number, histogram in enumerate(told):
        family.add(histogram, app=f"app{number}")
    return family


def test_OB1_a_part_of_the_text_has_a_bounded_number_of_samples() -> None:
    """Between two parts the server does other things."""
    family = Family("t_gauge", "gauge", "A gauge.")
    for number in range(1000):
        family.add(number, app=str(number))
    parts = list(Exposition().parts(family))
    assert [part.count(b"\nt_gauge{") + part.startswith(b"t_gauge{") for part in parts] == [4 * SLICE] * (
        1000 // SLICE // 4
    )
    parts = list(Exposition().parts(_family_of([Histogram() for _ in range(1000)])))
    assert [part.count(b"t_wait_seconds_count{") for part in parts] == [SLICE] * (1000 // SLICE)
