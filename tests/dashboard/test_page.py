"""OB8: the page is one document that loads nothing, shows no markup of others, and has buttons only with rights."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from test_view import ERROR, group, process, request, status

from passenger_trio.dashboard.page import document, fragment, policy

HOSTILE = "<script>alert(1)</script>\"'&"
FAILURE = {
    "age": 3.0,
    "group": HOSTILE,
    "id": "e1",
    "category": "application",
    "summary": HOSTILE,
    "problem": HOSTILE,
    "solution": HOSTILE,
    "traceback": HOSTILE,
    "output": [HOSTILE],
    "steps": [
        {"title": "load", "state": "errored", "seconds": 0.2},
        {"title": HOSTILE, "state": "not_started", "seconds": None},
    ],
}
EVENTS = [
    {
        "event": "process_exited",
        "time": 1.0,
        "group": HOSTILE,
        "pid": 3,
        "exit_status": None,
        "signal": "SIGSEGV",
        "reason": HOSTILE,
    },
    {"event": "something_new", "time": 2.0},
]


class Outline(HTMLParser):
    """The elements of a page, their attributes, and whether each that was opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(*, controls: bool, groups: list[dict[str, Any]] | None = None) -> str:
    broken = group(HOSTILE, last_error={**ERROR, "summary": HOSTILE}, processes=[])
    busy = group(
        processes=[
            process(sessions=1),
            process(state="stopping", leaving="an operator detached it"),
            process(state="disabled", memory=None),
        ]
    )
    body = fragment(
        HOSTILE,
        status(*(groups or [broken, busy])),
        [request(path=HOSTILE), request(stage="waiting for the application", pid=4)],
        {"events": EVENTS, "failures": [FAILURE]},
        controls=controls,
    )
    return document(body, "n0nce", HOSTILE)


@pytest.mark.parametrize("controls", [False, True])
def test_OB8_one_document_that_loads_nothing_and_is_well_formed(controls: bool) -> None:
    outline = Outline()
    outline.feed(page(controls=controls))
    assert outline.open == []
    for tag, attributes in outline.tags:
        assert tag not in ("img", "link", "iframe", "object"), tag
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes), attributes
        if tag in ("script", "style"):
            assert attributes == {"nonce": "n0nce"}
    assert sum(tag == "script" for tag, _ in outline.tags) == 1
    hidden = {
        name: value
        for tag, attrs in outline.tags
        if tag == "input"
        for name, value in [(attrs["name"], attrs["value"])]
    }
    assert bool(hidden) is controls
    assert any(tag == "button" for tag, _ in outline.tags) is controls


def test_OB8_nothing_of_others_is_markup() -> None:
    text = page(controls=True)
    assert "alert(1)</script>" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 8


def test_OB8_colour_is_never_the_only_sign() -> None:
    text = page(controls=False)
    assert "Not all is well" in text
    for sign, word in (("✗", "does not start"), ("●", "busy"), ("◌", "leaving"), ("◇", "disabled")):
        assert sign in text
        assert word in text


def test_OB8_the_policy_allows_nothing_from_elsewhere() -> None:
    told = dict(part.strip().split(" ", 1) for part in policy("n0nce").split(";"))
    assert told["default-src"] == "'none'"
    assert told["script-src"] == told["style-src"] == "'nonce-n0nce'"
    assert "unsafe" not in policy("n0nce")
    assert "*" not in policy("n0nce")


def test_OB8_forty_applications_and_long_tables_are_bounded() -> None:
    groups = [group(f"app{number:02}") for number in range(40)]
    text = page(controls=False, groups=groups)
    assert len(re.findall("<h3>", text)) == 40
