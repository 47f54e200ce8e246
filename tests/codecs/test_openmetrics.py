"""OB1: what is written is read back by prometheus-client's parser, whatever the labels hold."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from passenger_trio.codecs.openmetrics import Family, encode
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
