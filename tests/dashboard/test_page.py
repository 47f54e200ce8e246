"""OB8: the page is one document that loads nothing, shows no markup of others, and has buttons only with rights."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
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
    assert page(controls=controls).count("<button>Restart</button>") == (2 if controls else 0)


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
    assert '<details id="asleep"' not in text
    asleep = [group(f"app{number:02}", processes=[]) for number in range(39)]
    text = page(controls=False, groups=[group("shop"), *asleep])
    assert "39 applications without a process, until a request comes" in text
    assert len(re.findall("<h3>", text)) == 40


def test_OB8_restarts_have_their_reasons_and_processes_their_shares() -> None:
    told: list[dict[str, Any]] = [
        {"event": "process_attached", "pid": 11},
        {"event": "process_detached", "pid": 12, "reason": "it is older than max_process_lifetime"},
        {"event": "process_exited", "pid": 12, "exit_status": 0, "signal": None, "reason": "it is older than max_process_lifetime"},
        {"event": "process_exited", "pid": 13, "exit_status": None, "signal": "SIGSEGV", "reason": ""},
        {"event": "restart_ended", "generation": 2},
    ]  # fmt: skip
    events = [{"time": float(number), "group": "shop", **event} for number, event in enumerate(told)]
    shop = group(processes=[process(sessions=1, concurrency=4)])
    body = fragment("x", status(shop), [], {"events": events, "failures": []}, controls=False)
    restarts = body.partition("<h2>Restarts and replacements")[2].partition("</section>")[0]
    assert re.findall("<td>([^<]*)</td></tr>", restarts) == [
        "restarted: generation 2 serves",
        "process 13 ended (SIGSEGV)",
        "process 12 gets no more requests: it is older than max_process_lifetime",
    ]
    assert "1 of 4 (25%)" in body
    assert "9.5 MB, own 3.8 MB, shared 34 MB" in body


STYLE = Path(__file__).resolve().parents[2] / "passenger_trio" / "dashboard" / "style.css"


def light(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    full = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(full[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_OB8_text_is_readable_in_the_light_and_in_the_dark(scheme: int) -> None:
    """A contrast of 4.5 at least (WCAG 2.2, 1.4.3, level AA)."""
    colours = dict(re.findall(r"--(\w+):#(\w+)", re.findall(r":root\{([^}]*)\}", STYLE.read_text())[scheme]))
    for ink in ("ink", "dim", "ok", "notice", "bad"):
        for ground in ("ground", "card"):
            dark, bright = sorted((light(colours[ink]), light(colours[ground])))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
