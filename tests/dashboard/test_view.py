"""OB8: what the dashboard says first."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.dashboard.view import age, app_standing, by_attention, in_order, size, standing, waiting


def process(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "pid": 11,
        "state": "running",
        "generation": 1,
        "to_replace": None,
        "leaving": None,
        "ends_in": None,
        "sessions": 0,
        "concurrency": 1,
        "processed": 5,
        "cpu": 1.0,
        "uptime": 60.0,
        "last_used": 1.0,
        "memory": {"rss": 40_000_000, "pss": 10_000_000, "uss": 4_000_000},
        **changes,
    }


def group(name: str = "shop", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "environment": "production",
        "queue": 0,
        "spawning": 0,
        "backing_off_for": None,
        "last_error": None,
        "generation": 1,
        "restarting": False,
        "waits_for_room": False,
        "rejected": None,
        "processes": [process()],
        **changes,
    }


def status(*groups: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "pid": 1,
        "uptime": 5.0,
        "stopping": False,
        "draining": False,
        "addresses": ["http://x/"],
        "pool": {"max": 6, "size": 1, "detached": 0, "spawning": 0, "queue": 0},
        "groups": list(groups),
        "requests": {"total": 9, "active": 0, "rejected": {}},
        "connections": {"open": 0, "accepted": 9, "upgraded": 0},
        "faults": {"total": 0, "tasks": {}},
        **changes,
    }


def request(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a-1",
        "method": "GET",
        "path": "/",
        "group": "shop",
        "client": "::1",
        "pid": None,
        "stage": "waiting for a process",
        "age": 0.4,
        "in_stage": 0.3,
        **changes,
    }


ERROR = {"id": "e1", "category": "application", "summary": "ImportError"}


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({}, "ok", "serves with 1 process, 0 busy"),
        ({"processes": [process(sessions=1), process()]}, "ok", "serves with 2 processes, 1 busy"),
        ({"restarting": True}, "ok", "is being restarted"),
        ({"restarting": True, "waits_for_room": True}, "notice", "is being restarted"),
        ({"processes": []}, "ok", "has no process until a request comes"),
        ({"processes": [], "spawning": 1}, "notice", "is being started"),
        ({"last_error": ERROR}, "notice", "had a failed start: ImportError"),
        ({"last_error": ERROR, "processes": []}, "bad", "does not start: ImportError"),
        (
            {"last_error": ERROR, "processes": [process(state="stopping")], "backing_off_for": 4.0},
            "bad",
            "does not start: ImportError, and is tried again in 4.0 s",
        ),
        (
            {"rejected": {"age": 1.0, "kept": True, "error": ERROR}},
            "notice",
            "serves the version before: its last restart failed",
        ),
        ({"rejected": {"age": 1.0, "kept": False, "error": ERROR}}, "bad", "was restarted and does not start"),
    ],
)
def test_OB8_an_application(changes: dict[str, Any], level: str, text: str) -> None:
    told = app_standing(group(**changes))
    assert (told.level, told.text) == (level, text)


def test_OB8_the_worst_is_said_first() -> None:
    ok = standing(status(group()), [])
    assert (ok.level, ok.text) == ("ok", "Serving; nobody waits.")
    broken = group("blog", last_error=ERROR, processes=[])
    told = standing(status(group(), broken), [request(), request(age=9.0, in_stage=9.0)])
    assert told.level == "bad"
    assert told.text == "Not all is well; blog does not start: ImportError; 2 requests wait, the oldest for 9.0 s."
    assert [one["name"] for one in in_order([group("a"), broken, group("z", queue=3)])] == ["blog", "z", "a"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"draining": True}, "Serving; draining: each connection ends after its response."),
        ({"stopping": True}, "Serving; stopping: the requests in flight are finished."),
        (
            {"faults": {"total": 9, "tasks": {"the hooks": {"count": 9, "last": "x", "age": 1.0, "failing": True}}}},
            "Serving; the hooks keeps failing.",
        ),
    ],
)
def test_OB8_the_server_itself(changes: dict[str, Any], text: str) -> None:
    told = standing(status(group(), **changes), [])
    assert (told.level, told.text) == ("notice", text)


def test_OB8_a_short_wait_is_no_notice() -> None:
    assert standing(status(group()), [request()]).level == "ok"
    assert standing(status(group()), [request(in_stage=1.5)]).level == "notice"
    slow_path = request(stage="waiting for a process (slow path)", age=2.0)
    assert waiting([request(), request(stage="waiting for the application"), slow_path]) == [slow_path, request()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (12, "12 s"),
        (119, "119 s"),
        (600, "10 min"),
        (10800, "3 h"),
        (260000, "3 d"),
        (-1, "0.0 s"),
    ],
)
def test_OB8_times(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (900, "900 B"), (2048, "2.0 KB"), (9.5e6, "9.1 MB"), (3e7, "29 MB"), (2e13, "18626 GB")],
)
def test_OB8_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_OB8_of_many_applications_those_that_are_well_are_short() -> None:
    broken = group("broken", last_error=ERROR, processes=[])
    waits, well, asleep = group("waits", queue=2), group("well"), group("asleep", processes=[])
    starts = group("starts", processes=[], spawning=1)
    groups = [asleep, well, waits, starts, broken]
    kinds = {kind: [one["name"] for one in found] for kind, found in by_attention(groups, 4).items()}
    assert kinds == {"full": ["broken", "starts", "waits"], "short": ["well"], "asleep": ["asleep"]}
    assert list(by_attention(groups, 5)) == ["full"]
    assert by_attention([], 5) == {}
