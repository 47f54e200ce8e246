"""What error pages say, to whom, and that nothing on them is HTML of somebody else's."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.evidence import Evidence, ProcessEnd, ProcessEvidence
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import ErrorCategory, SpawnFailure
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.server.answers.error_page import (
    Page,
    Rejected,
    application_error_page,
    plain_error,
    spawn_failure_page,
)
from passenger_trio.server.answers.explained_page import Failed, OtherRequest, explained_page
from passenger_trio.server.answers.page_layout import escape, wants_json

EVIL = "<script>alert('x')</script>\"&\x00\x1b]0;title\x07"

JOURNEY = (
    Journey.begin(JourneyType.START_PRELOADER)
    .started("preparation", 0.0)
    .performed("preparation", 0.012)
    .started("load_application", 1.0)
    .errored("load_application", 2.5)
)


def failure(text: str = "boom") -> SpawnFailure:
    return SpawnFailure(
        error_id="a1b2c3d4",
        category=ErrorCategory.APPLICATION,
        summary=f"summary {text}",
        problem=f"problem {text}\n\nsecond paragraph",
        solution=f"solution {text}",
        journey=JOURNEY,
        traceback=f"Traceback (most recent call last):\n  File x\nValueError: {text}",
        output=("first line", f"output {text}"),
        details=f"details {text}",
        environment=(("PATH", "/bin"), ("NAME", f"value {text}")),
        command=("/usr/bin/python", f"argument {text}"),
        exit_status="exit status 1",
    )


def evil_evidence() -> Evidence:
    process = ProcessEvidence(7, EVIL, 1, 1, 2, 3.0)
    return Evidence(GroupLimits(), 1, (process,), 0, 1, ProcessEnd(EVIL, EVIL, (EVIL,)), (EVIL,))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: Page) -> _Tags:
    """The page as a browser sees it; every element is closed."""
    assert page.content_type == b"text/html; charset=utf-8"
    tags = _Tags()
    tags.feed(page.body.decode())
    tags.close()
    assert tags.open == []
    return tags


class TestAnApplicationThatDoesNotStart:
    def test_in_development_everything_is_told(self) -> None:
        text = read(spawn_failure_page(failure(), explain=True)).text
        for part in (
            "summary boom",
            "problem boom",
            "second paragraph",
            "solution boom",
            "ValueError: boom",
            "first line\noutput boom",
            "details boom",
            "argument boom",
            "NAMEvalue boom",
            "exit status 1",
            "a1b2c3d4",
            "Load the application",
            "12 ms",
            "1.5 s",
        ):
            assert part in text

    def test_the_step_that_failed_is_marked(self) -> None:
        body = spawn_failure_page(failure(), explain=True).body.decode()
        assert body.count('<li class="errored">') == 1
        assert '<li class="performed"><span>✓</span><span>Prepare the spawn' in body

    def test_in_production_only_the_id(self) -> None:
        """R26"""
        page = spawn_failure_page(failure("hunter2"), explain=False)
        text = read(page).text
        assert "a1b2c3d4" in text
        for secret in ("hunter2", "summary", "problem", "Traceback", "python", "PATH", "/bin"):
            assert secret not in text

    def test_when_the_next_attempt_is_known_it_is_said(self) -> None:
        assert "3.2 s" in read(spawn_failure_page(failure(), explain=True, retry_after=3.21)).text

    def test_as_json(self) -> None:
        page = spawn_failure_page(failure(), explain=True, accept=b"application/json")
        assert page.content_type == b"application/json"
        error = json.loads(page.body)["error"]
        assert (error["status"], error["id"], error["category"]) == (500, "a1b2c3d4", "application")
        assert error["journey"]["steps"][0] == {
            "name": "preparation",
            "title": "Prepare the spawn: output pipe, token, environment",
            "state": "performed",
            "duration": 0.012,
        }
        assert error["output"] == ["first line", "output boom"]
        assert error["environment"]["PATH"] == "/bin"

    def test_as_json_in_production(self) -> None:
        page = spawn_failure_page(failure("hunter2"), explain=False, accept=b"application/json")
        assert json.loads(page.body)["error"].keys() == {"status", "title", "detail", "id"}
        assert b"hunter2" not in page.body

    def test_what_is_empty_has_no_heading(self) -> None:
        bare = SpawnFailure("id", ErrorCategory.TIMEOUT, "late", "It was late.", "Wait.", JOURNEY)
        text = read(spawn_failure_page(bare, explain=True)).text
        for heading in ("Traceback", "What it wrote", "Details", "Command", "Environment"):
            assert heading not in text

    def test_a_long_output_is_cut_at_its_front(self) -> None:
        text = read(application_error_page("id", "E", "m", "x" * 500_000 + "\nthe end", explain=True)).text
        assert len(text) < 200_000
        assert "characters cut off" in text
        assert "the end" in text


class TestAnExceptionOfTheApplication:
    def test_in_development_with_its_traceback(self) -> None:
        tags = read(
            application_error_page(
                "e1", "shop.Broken", "no stock", "Traceback ...\nshop.Broken: no stock", explain=True
            )
        )
        assert "shop.Broken: no stock" in tags.text
        assert "e1" in tags.text
        assert (
            "<b>shop.Broken: no stock</b>"
            in application_error_page(
                "e1", "shop.Broken", "no stock", "Traceback ...\nshop.Broken: no stock", explain=True
            ).body.decode()
        )

    def test_in_production_only_the_id(self) -> None:
        text = read(application_error_page("e1", "shop.Broken", "no stock", "Traceback", explain=False)).text
        assert "e1" in text
        assert "Broken" not in text
        assert "stock" not in text

    def test_as_json(self) -> None:
        page = application_error_page("e1", "shop.Broken", "no stock", "tb", explain=True, accept=b"application/json")
        assert json.loads(page.body)["error"]["type"] == "shop.Broken"


class TestPlainPages:
    @pytest.mark.parametrize("status", [400, 404, 408, 413, 414, 417, 426, 431, 500, 501, 502, 503, 504, 505])
    def test_every_status_has_a_title_and_a_sentence(self, status: int) -> None:
        text = read(plain_error(status)).text
        assert text.count(str(status)) >= 1
        assert "Error ID" not in text
        error = json.loads(plain_error(status, accept=b"application/json").body)["error"]
        assert error["status"] == status
        assert error["title"] in text
        assert error["detail"] in text

    def test_a_status_that_is_not_in_the_table(self) -> None:
        assert "Error 499" in read(plain_error(499)).text

    def test_an_error_id(self) -> None:
        assert "Error ID: abc" in read(plain_error(502, error_id="abc")).text

    def test_a_sentence_of_ours(self) -> None:
        text = read(plain_error(400, text="The Host <field> is missing.")).text
        assert "The Host <field> is missing." in text

    def test_it_is_small(self) -> None:
        assert len(plain_error(502).body) < 1024

    def test_pages_are_made_once(self) -> None:
        assert plain_error(502) is plain_error(502)


class TestARejectedVersion:
    """While the last restart is one that was rejected, the pages that explain say so."""

    REJECTED = Rejected(failure(), 12.0)

    def test_each_page_says_so_and_why(self) -> None:
        for page in (
            explained_page(Failed(502, "e9", "queue_full", "full", rejected=self.REJECTED)),
            explained_page(Failed(502, "e9", "queue_full", "full", rejected=Rejected(None, 12.0))),
            application_error_page("e9", "E", "m", "t", explain=True, rejected=self.REJECTED),
            spawn_failure_page(failure(), explain=True, rejected=self.REJECTED),
        ):
            text = read(page).text
            assert "A newer version was rejected" in text
            assert "The last restart, 12.0 s ago" in text

    def test_as_json_too(self) -> None:
        for page in (
            explained_page(Failed(502, "e9", "queue_full", "full", rejected=self.REJECTED), b"application/json"),
            application_error_page(
                "e9", "E", "m", "t", explain=True, accept=b"application/json", rejected=self.REJECTED
            ),
        ):
            rejected = json.loads(page.body)["error"]["rejected"]
            assert (rejected["age"], rejected["summary"]) == (12.0, failure().summary)

    def test_in_production_no_page_does(self) -> None:
        for page in (
            application_error_page("e9", "E", "m", "t", explain=False, rejected=self.REJECTED),
            spawn_failure_page(failure(), explain=False, rejected=self.REJECTED),
        ):
            assert b"rejected" not in page.body
            assert failure().summary.encode() not in page.body


class TestNothingOfOthersIsHtml:
    @pytest.mark.parametrize(
        "page",
        [
            spawn_failure_page(failure(EVIL), explain=True),
            application_error_page(EVIL, EVIL, EVIL, EVIL, explain=True),
            application_error_page(EVIL, EVIL, EVIL, EVIL, explain=False),
            plain_error(500, error_id=EVIL, text=EVIL),
            explained_page(
                Failed(
                    502,
                    EVIL,
                    EVIL,
                    EVIL,
                    5,
                    1,
                    evil_evidence(),
                    [OtherRequest(EVIL, EVIL, EVIL, 1.0, 5)],
                    Rejected(failure(EVIL), 1.0),
                )
            ),
            application_error_page("id", "E", "m", "t", explain=True, rejected=Rejected(failure(EVIL), 1.0)),
            spawn_failure_page(failure(), explain=True, rejected=Rejected(failure(EVIL), 1.0)),
        ],
    )
    def test_in_every_place(self, page: Page) -> None:
        tags = read(page)
        assert "script" not in tags.seen
        assert b"\x00" not in page.body
        assert b"\x1b" not in page.body
        assert "<script>alert('x')</script>" in tags.text

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        assert not set("<>\"'\r\0\x1b") & set(escape(text))
        read(application_error_page("id", text, text, text, explain=True))

    def test_text_that_is_no_unicode(self) -> None:
        read(application_error_page("id", "E", "\udcff", "\udcff", explain=True))
        json.loads(application_error_page("id", "E", "\udcff", "\udcff", explain=True, accept=b"application/json").body)

    def test_a_terminals_colours_are_taken_out(self) -> None:
        assert escape("\x1b[1;31mred\x1b[0m\tx\r\n") == "red\tx\n"

    def test_the_page_fetches_nothing(self) -> None:
        body = spawn_failure_page(failure(), explain=True).body
        for word in (b"src=", b"href=", b"url(", b"@import", b"<script"):
            assert word not in body


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        (b"", False),
        (b"*/*", False),
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/problem+json", True),
        (b"application/json, text/plain, */*", True),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        (b"text/html;q=0.5, application/json", True),
        (b"application/json;q=0.5, text/html", False),
        (b"application/json;q=0.5, */*", False),
        (b"application/json;q=0", False),
        (b"application/json;q=x", False),
        (b"application/*", True),
        (b";;;,,,", False),
    ],
)
def test_who_wants_json(accept: bytes, json_wanted: bool) -> None:
    assert wants_json(accept) is json_wanted


@given(st.binary())
def test_any_accept_field_gives_a_page(accept: bytes) -> None:
    assert plain_error(500, accept=accept).body


KEY = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
PEM = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize("accept", [b"text/html", b"application/json"])
def test_OB10_no_page_shows_a_secret_of_a_text(accept: bytes) -> None:
    """A key in a traceback, in the output, in a message, over several lines of it; and the rest of the text stays."""
    with_key = failure(f"the key {KEY} is old, see postgres://shop:hunter2@db/x")
    with_key = attrs.evolve(with_key, environment=(), output=("the first", *PEM.split("\n"), "the last"))
    pages = [
        spawn_failure_page(with_key, explain=True, accept=accept),
        application_error_page("id", "E", f"no {KEY}", f"no {KEY}\n{PEM}", explain=True, accept=accept),
        explained_page(Failed(502, "id", "queue_full", f"no {KEY}", rejected=Rejected(with_key, 1.0)), accept),
    ]
    for page in pages:
        assert KEY.encode() not in page.body
        assert b"hunter2" not in page.body
        assert b"[redacted]" in page.body
    assert b"is old" in pages[0].body
    assert b"the first" in pages[0].body
    assert b"the last" in pages[0].body
