"""OB10: the page of a request that found no process, or lost it, in development."""

from __future__ import annotations

import inspect
import json

import attrs
import pytest

from passenger_trio import errors
from passenger_trio.core.evidence import Evidence, ProcessEnd, ProcessEvidence
from passenger_trio.core.policy_limits import GroupLimits
from passenger_trio.server.answers.explained_page import _TABLE, Failed, OtherRequest, explained_page
from passenger_trio.server.answers.page_layout import Page

LIMITS = GroupLimits(max_request_queue_size=7, max_request_queue_time=8.5, max_request_time=9.0)
BUSY = ProcessEvidence(pid=4711, state="enabled", sessions=1, concurrency=1, processed=12, age=60.0)
CRASHED = Evidence(
    LIMITS,
    2,
    (BUSY,),
    1,
    7,
    ProcessEnd("killed by signal 11 (SIGSEGV)", "", ("Fatal Python error",)),
    ("Fatal Python error",),
)
OTHERS = [OtherRequest("GET", f"/slow/{number}", "app", 30.0 - number, 4711) for number in range(20)]
FAILED = Failed(502, "r-1", "incomplete_response", "the process ended", 4712, None, CRASHED, OTHERS)


def text_of(page: Page) -> str:
    assert page.content_type.startswith(b"text/html")
    return page.body.decode()


def test_OB10_each_error_of_a_request_is_explained() -> None:
    """A new error needs its title, and what to try. (An application that does not start or raises has pages of its own.)"""
    own = {errors.SpawnError, errors.ApplicationRaised}
    kinds = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.CheckoutError | errors.AppResponseError)
        and kind not in own | {errors.AppResponseError}
    }
    assert {kind.code for kind in kinds} == set(_TABLE)
    for code in _TABLE:
        for evidence in (None, CRASHED, attrs.evolve(CRASHED, end=None)):
            page = text_of(explained_page(attrs.evolve(FAILED, code=code, evidence=evidence)))
            for heading in ("What happened", "What to try"):
                assert heading in page
            assert "r-1" in page


def test_OB10_a_crash_says_how_the_process_ended_and_what_it_wrote() -> None:
    page = text_of(explained_page(FAILED))
    for part in (
        "Process 4712 ended: killed by signal 11 (SIGSEGV).",
        "Fatal Python error",
        "OOM killer",
        "502 Bad Gateway",
    ):
        assert part in page


def test_OB10_a_process_that_lives_is_not_called_dead() -> None:
    page = text_of(explained_page(attrs.evolve(FAILED, evidence=attrs.evolve(CRASHED, end=None))))
    assert "Process 4712 had the request." in page
    assert "ended:" not in page


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("queue_full", "The limit is 7 requests (--max-request-queue-size)."),
        ("queue_timeout", "The limit is 8.5 s (--max-request-queue-time)."),
        ("request_time_exceeded", "The limit is 9 s (--max-request-time)."),
    ],
)
def test_OB10_a_limit_is_named_with_its_value_and_its_option(code: str, limit: str) -> None:
    assert limit in text_of(explained_page(attrs.evolve(FAILED, code=code)))
    unknown = text_of(explained_page(attrs.evolve(FAILED, code=code, evidence=None)))
    assert "The limit is" not in unknown
    unlimited = attrs.evolve(
        CRASHED, limits=GroupLimits(max_request_queue_size=0, max_request_queue_time=0, max_request_time=0)
    )
    assert "The limit is" not in text_of(explained_page(attrs.evolve(FAILED, code=code, evidence=unlimited)))


def test_OB10_who_has_the_processes_is_shown() -> None:
    page = text_of(explained_page(attrs.evolve(FAILED, code="queue_full")))
    assert "GET /slow/0" in page
    assert "GET /slow/12" not in page
    assert "and 8 more" in page
    assert "1 of 1 in progress" in page
    assert "1 of 2 processes, 1 starting; 7 requests wait." in page


def test_OB10_a_path_shows_no_secret() -> None:
    key = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    failed = attrs.evolve(FAILED, others=[OtherRequest("GET", f"/reset/{key}", "app", 1.0, 5)])
    assert key.encode() not in explained_page(failed).body
    assert key.encode() not in explained_page(failed, b"application/json").body


def test_OB10_as_json() -> None:
    error = json.loads(explained_page(attrs.evolve(FAILED, retry_after=1), b"application/json").body)["error"]
    assert {
        name: error[name] for name in ("status", "title", "id", "code", "detail", "pid", "retry_after", "ending")
    } == {
        "status": 502,
        "title": "Bad Gateway",
        "id": "r-1",
        "code": "incomplete_response",
        "detail": "the process ended.",
        "pid": 4712,
        "retry_after": 1,
        "ending": "Process 4712 ended: killed by signal 11 (SIGSEGV).",
    }
    assert error["output"] == ["Fatal Python error"]
    assert error["processes"][0]["pid"] == 4711
    assert (error["waiting"], error["starting"], error["most_processes"], len(error["requests"])) == (7, 1, 2, 12)
