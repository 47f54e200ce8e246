"""TH6: the timeline of a test is put together from four sources; the page of it loads and runs nothing."""

from __future__ import annotations

from datetime import UTC
from html.parser import HTMLParser

import pytest

from passenger_trio.testing.exchange import Exchange
from passenger_trio.testing.lint import Finding
from passenger_trio.testing.replay import main, replay_artefact
from passenger_trio.testing.timeline import Timeline, make_timeline
from passenger_trio.testing.timeline_page import timeline_page

BEGUN = 1_000_000.0
HOSTILE = '/<script>alert(1)</script>?"&'


def access(target: str, at: float, **more: object) -> dict[str, object]:
    from datetime import datetime

    time = datetime.fromtimestamp(BEGUN + at, UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "event": "access", "method": "GET", "target": target, "status": 200, "bytes_sent": 5}
    return {
        **line,
        "duration": 0.5,
        "queue_time": 0.2,
        "pid": 7,
        "request_id": target,
        "retried": 0,
        "spilled": 0,
        **more,
    }


def exchange(number: int, target: str, at: float, **more: object) -> Exchange:
    times = {"begun": BEGUN + at, "sent": BEGUN + at, "first_byte": BEGUN + at + 0.5, "ended": BEGUN + at + 0.6}
    given = {"method": "GET", "target": target, "status": 200, "size": 5, "outcome": "complete", **times, **more}
    return Exchange(number, BEGUN + at, **given)  # type: ignore[arg-type]


def a_timeline() -> Timeline:
    exchanges = [exchange(0, "/a", 0.0), exchange(1, "/a", 2.0, outcome="cut short"), exchange(2, HOSTILE, 3.0)]
    log = [
        access("/a", 2.001, request_id="second", retried=1),
        access("/a", 0.001, request_id="first"),
        access("/other", 1.0),
    ]
    log.append({"time": access("", 2.2)["time"], "level": "error", "event": f"it broke {HOSTILE}"})
    times = [
        {
            "request_id": "second",
            "begun": BEGUN + 2.1,
            "ended": BEGUN + 2.3,
            "pid": 7,
            "raised": f"ValueError: {HOSTILE}",
        }
    ]
    finding = Finding("wsgi.status", "the rule's text", f"detail {HOSTILE}", "GET /a")
    return make_timeline("test_x.py::test_y", BEGUN, 42, exchanges, log, times, [finding], [f"reset(after={HOSTILE})"])


def test_TH6_the_sources_of_one_request_find_each_other() -> None:
    timeline = a_timeline()
    assert [(row.target, row.outcome, row.request_id) for row in timeline.rows] == [
        ("/a", "complete", "first"),
        ("/other", "not seen", "/other"),
        ("/a", "cut short", "second"),
        (HOSTILE, "complete", ""),
    ]
    row = timeline.rows[2]
    assert (row.begun, row.queued, row.served, row.pid, row.retried) == (2.0, 0.2, 0.5, 7, True)
    assert (row.app_begun, row.app_ended) == (2.1, 2.3)
    text = timeline.as_text()
    for words in (
        "--passenger-seed 42",
        "cut short",
        "queue       0.200 s",
        "pid 7, 0.300 s, sent again",
        "raised ValueError",
    ):
        assert words in text
    assert "the rule's text" in text
    assert "no line of the access log" in text


class Strict(HTMLParser):
    """What a page loads or runs."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object", "form"):
            self.bad.append(tag)
        self.bad += [f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_TH6_the_page_is_one_document_and_escapes_every_value() -> None:
    page = timeline_page(a_timeline(), failure=f"AssertionError {HOSTILE}")
    strict = Strict()
    strict.feed(page)
    assert strict.bad == []
    assert strict.text.count(HOSTILE) == 6
    assert "@import" not in page
    assert "url(" not in page
    assert page.count('class="bar client"') == 3


def test_TH6_an_artefact_without_a_trace_says_so(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no trace"):
        replay_artefact({"trace": None})
    assert main([]) == 2
    assert main([f"{tmp_path}/none.json"]) == 1
    assert "none.json" in capsys.readouterr().err
