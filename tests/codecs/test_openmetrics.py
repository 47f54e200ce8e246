"""OB1: what is written is read back by prometheus-client's parser, whatever the labels hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from passenger_trio.codecs.openmetrics import END, PAUSE, Exposition, Family, Item, Section, encode
from passenger_trio.core.duration_histogram import REQUEST_BOUNDS, SPAWN_BOUNDS, Histogram


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
    told = {f"app{number}": Histogram() for number in range(1000)}
    exposition = Exposition()

    def scraped() -> bytes:
        return b"".join([part for part in exposition.parts(_section_of(told)) if part is not PAUSE])

    first = scraped()
    assert exposition.written == 1000
    assert scraped() == first
    assert exposition.written == 1000
    told["app7"].observe(0.3)
    del told["app999"]
    told["another"] = Histogram()
    second = scraped()
    assert exposition.written == 1002
    assert read(second + END)[("t_wait_seconds_count", (("app", "app7"),))] == 1
    assert second == b"".join([part for part in Exposition().parts(_section_of(told)) if part is not PAUSE])
    every = [family for family in _section_of(told).families() if family is not PAUSE]
    assert second + END == encode(every), "as text and as values it is the same"


def _section_of(told: dict[str, Histogram]) -> Section:
    def add(of: tuple[str, Histogram], families: Sequence[Family]) -> None:
        name, histogram = of
        families[0].add(histogram, app=name)
        if histogram.count:
            families[1].add(histogram.count, app=name)

    heads = (("t_wait_seconds", "histogram", "Waiting."), ("t_waits", "counter", "How many have waited."))
    return Section(heads, ((name, one.count, (name, one)) for name, one in told.items()), add)


def test_OB1_between_two_pauses_a_bounded_number_of_items_is_looked_at() -> None:
    """Meanwhile the server does other things."""
    told = {f"app{number}": Histogram() for number in range(5000)}
    exposition = Exposition()

    def steps() -> tuple[int, int]:
        """The most that were looked at, and written, between two of what it yields."""
        seen: list[tuple[int, int]] = [(0, 0)]
        looked = 0

        def items() -> Iterator[Item]:
            nonlocal looked
            for item in _section_of(told).items:
                looked += 1
                yield item

        section = attrs.evolve(_section_of(told), items=items())
        before = exposition.written
        for _ in exposition.parts(section):
            seen.append((looked, exposition.written - before))
        return tuple(max(b[i] - a[i] for a, b in pairwise(seen)) for i in (0, 1))  # type: ignore[return-value]

    assert steps() == (20, 20)
    assert steps() == (1000, 0)
    most = max(part.count(b"t_wait_seconds_count{") for part in exposition.parts(_section_of(told)) if part)
    assert most <= 250


@settings(deadline=None, max_examples=40)
@given(
    apps=st.lists(
        st.tuples(LABELS, st.lists(st.floats(0, 20), max_size=3), st.integers(0, 99)),
        unique_by=lambda one: one[0],
        max_size=4,
    ),
    help=LABELS,
    bound=st.sampled_from([REQUEST_BOUNDS, SPAWN_BOUNDS]),
)
def test_OB1_the_text_says_what_prometheus_client_would_write(
    apps: list[tuple[str, list[float], int]], help: str, bound: tuple[float, ...]
) -> None:
    """Each kind of family, by the library's own renderer and ours, read by its parser: names, types, units, help, samples and their order."""
    mine = [
        Family("t_wait_seconds", "histogram", help),
        Family("t_requests", "counter", help),
        Family("t_length_bytes", "gauge", help),
    ]
    histogram = HistogramMetricFamily("t_wait_seconds", help, labels=["app"], unit="seconds")
    counter = CounterMetricFamily("t_requests", help, labels=["app"])
    gauge = GaugeMetricFamily("t_length_bytes", help, labels=["app"], unit="bytes")
    for app, times, number in apps:
        told = Histogram(bound)
        told.observe_all(times)
        for family, value in zip(mine, (told, number, number / 7), strict=True):
            family.add(value, app=app)
        buckets = list(zip([*map(str, map(float, bound)), "+Inf"], accumulate(told.counts), strict=True))
        histogram.add_metric([app], buckets, told.seconds)
        counter.add_metric([app], number)
        gauge.add_metric([app], number / 7)

    class Theirs(Collector):
        def collect(self) -> list[Metric]:
            return [histogram, counter, gauge] if apps else []

    registry = CollectorRegistry()
    registry.register(Theirs())
    theirs = generate_latest(registry).decode()
    assert list(text_string_to_metric_families(encode(mine).decode())) == list(text_string_to_metric_families(theirs))
