"""The part of the plugin for faults, lint and timelines: fixtures ``faults`` and ``passenger_timeline``,
and what a failing test shows, also of servers that it has started itself.

This module is imported in every run of pytest, so it imports nothing but pytest (TH1).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from passenger_trio.testing import watch

if TYPE_CHECKING:
    from passenger_trio.testing.case_evidence import CaseEvidence, SessionEvidence
    from passenger_trio.testing.faults import Faults
    from passenger_trio.testing.live_app import LiveApp
    from passenger_trio.testing.timeline import Timeline

_SESSION: pytest.StashKey[SessionEvidence] = pytest.StashKey()
_TEST: pytest.StashKey[list[CaseEvidence]] = pytest.StashKey()
_SEED = pytest.StashKey[int]()
_WATCH = pytest.StashKey[watch.Watch]()
_OPTIONS: tuple[tuple[str, tuple[str, ...] | None, str, str], ...] = (
    (
        "trace",
        ("off", "on", "retain-on-failure"),
        "retain-on-failure",
        "write the timeline of each test, or of each failed one, as JSON and HTML (retain-on-failure)",
    ),
    ("output", None, "test-results", "the directory of these files (test-results)"),
    (
        "lint",
        ("error", "warn", "off"),
        "warn",
        "what breaks a rule of WSGI, ASGI, Rack or HTTP fails the test (error) or is a warning (warn)",
    ),
    ("seed", None, "", "the seed of what faults draw (default: a new one in each run, shown in the heading)"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("passenger", "a real server for the tests (passenger_trio)")
    for name, choices, default, help in _OPTIONS:
        kind = {"choices": choices} if choices is not None else {"metavar": name.upper()}
        group.addoption(f"--passenger-{name}", default=None, help=help, **kind)
        if name == "seed":
            parser.addini("passenger_seed", help, type="int", default=None)
        else:
            parser.addini(f"passenger_{name}", help, type="string", default=default)


def _setting(config: pytest.Config, name: str) -> str:
    given = config.getoption(f"passenger_{name}")
    set_so = given if given is not None else config.getini(f"passenger_{name}")
    value = "" if set_so is None else str(set_so)
    choices = next(choices for known, choices, _, _ in _OPTIONS if known == name)
    if choices is not None and value not in choices:
        raise pytest.UsageError(f"passenger_{name} is {value!r}: one of {', '.join(choices)}")
    return value


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "passenger_machine: the faults of this test may fill the disk, slow it down, or let the clock jump"
    )
    text = _setting(config, "seed")
    if text and not text.isdigit():
        raise pytest.UsageError(f"--passenger-seed {text!r}: a number without sign")
    # Workers of pytest-xdist get the seed of the run, so that one number repeats all of it.
    inherited = getattr(config, "workerinput", {}).get("passenger_seed")
    config.stash[_SEED] = int(text or inherited or random.randrange(1 << 31))
    _setting(config, "trace")
    _setting(config, "lint")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist."""
    node.workerinput["passenger_seed"] = str(node.config.stash[_SEED])


def _session(request: pytest.FixtureRequest) -> SessionEvidence:
    config = request.config
    if _SESSION not in config.stash:
        from passenger_trio.testing.case_evidence import SessionEvidence
        from passenger_trio.testing.run_directory import temporary_directory

        config.stash[_SESSION] = SessionEvidence(
            temporary_directory("evidence-"),
            _setting(config, "trace"),
            config.rootpath / _setting(config, "output"),
            _setting(config, "lint"),
            config.stash[_SEED],
        )
    return config.stash[_SESSION]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SESSION in config.stash:
        config.stash[_SESSION].close()


def pytest_passenger_options(request: pytest.FixtureRequest, options: dict[str, Any]) -> None:
    machine = request.node.get_closest_marker("passenger_machine") is not None
    _session(request).prepare(options, machine=machine)


def pytest_passenger_start(live_app: LiveApp, request: pytest.FixtureRequest) -> None:
    before = request.node.stash.setdefault(_TEST, [])
    before.append(_session(request).begin(request.node.nodeid, live_app, len(before)))


def pytest_passenger_end(live_app: LiveApp, request: pytest.FixtureRequest) -> list[str] | None:
    found = []
    for evidence in request.node.stash.get(_TEST, []):
        if evidence.live_app is live_app:
            evidence.end()
            found += evidence.failures()
            for text in evidence.warnings():
                request.node.warn(pytest.PytestWarning(text))
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_WATCH] = item.session.stash[_WATCH] = watch.begin()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    result = yield
    if (watching := request.session.stash.get(_WATCH, None)) is not None:
        watching.end_fixture()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    yield
    if left := item.stash[_WATCH].left():
        for server in left:
            server.abandon()
        listed = ", ".join(f"pid {server.pid}" for server in left)
        pytest.fail(
            f"the test has started servers and not ended them ({listed}): use `with Supervisor.start(...)`",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for evidence in item.stash.get(_TEST, []):
        if report.failed:
            evidence.failed(str(report.longrepr or ""))
            report.sections.append(("passenger: timeline of the test", evidence.timeline().as_text()))
        if report.when == "teardown" or report.failed:
            for path in evidence.write():
                if ("passenger_trace", str(path)) not in item.user_properties:
                    item.user_properties.append(("passenger_trace", str(path)))
                    report.user_properties.append(("passenger_trace", str(path)))
                if report.failed:
                    report.sections.append(("passenger: artefact", str(path)))
    if report.failed or report.when == "teardown":
        _show_watched(item, report)
    return report


def _show_watched(item: pytest.Item, report: pytest.TestReport) -> None:
    """The servers that the test, or a fixture, has started by itself."""
    watching = item.stash.get(_WATCH, None)
    trace = _setting(item.config, "trace")
    if watching is None or not watching.servers or not (report.failed or trace == "on"):
        return
    from passenger_trio.testing.watched_evidence import WatchedEvidence

    before = len(item.stash.get(_TEST, []))
    for number, watched in enumerate(watching.servers, before):
        name = f"{item.nodeid}-{number}" if number else item.nodeid
        evidence = WatchedEvidence(name, item.config.stash[_SEED], watching, watched)
        paths = []
        if trace != "off":
            paths = evidence.write(item.config.rootpath / _setting(item.config, "output"), str(report.longrepr or ""))
            report.user_properties += [("passenger_trace", str(path)) for path in paths]
        if report.failed:
            title = f"passenger: requests and log of the server {watched.server.pid}"
            report.sections.append((title, evidence.timeline().as_text()))
            report.sections += [("passenger: artefact", str(path)) for path in paths]


def pytest_report_header(config: pytest.Config) -> str:
    return f"passenger: --passenger-seed {config.stash[_SEED]}"


@pytest.fixture
def faults(request: pytest.FixtureRequest, live_app: LiveApp) -> Faults:
    """What goes wrong on purpose: ``with faults.kill(at="mid_body"): ...`` (docs/testing.md)."""
    evidence: CaseEvidence = next(one for one in request.node.stash[_TEST] if one.live_app is live_app)
    return evidence.faults(request.node)


@pytest.fixture
def passenger_timeline(request: pytest.FixtureRequest, live_app: LiveApp) -> Callable[[], Timeline]:
    """``passenger_timeline()``: the requests of the test so far, each as its client, the queue, the process and the
    application saw it.
    """
    evidence: CaseEvidence = next(one for one in request.node.stash[_TEST] if one.live_app is live_app)

    def timeline() -> Timeline:
        made: Timeline = evidence.timeline()
        return made

    return timeline
