"""TH4, TH5, TH6 in the plugin: fixtures ``faults`` and ``passenger_timeline``, lint, and what a failing test shows. One run of pytest for each question."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from plugins_off import NOT_ASYNCHRONOUS, WITHOUT
from test_plugin import LOAD

from passenger_trio.testing.replay import main

pytestmark = [pytest.mark.os, pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return "hello"

@app.get("/broken")
def broken():
    print("on the way")
    raise ValueError("planted")

@app.get("/report")
def report():
    return "x" * 20_000

@app.get("/status")
def status():
    return "", 302
"""
DOCUMENTED = Path(__file__).resolve().parent.parent.parent / "docs" / "testing.md"
FAILING = """
import pytest
from passenger_trio.testing.faults import FaultNeverFired
pytestmark = pytest.mark.passenger("shop:app")

def test_good(live_app, passenger_timeline):
    live_app.get("/")
    [row] = passenger_timeline().rows
    assert (row.method, row.target, row.status, row.outcome) == ("GET", "/", 200, "complete")
    assert row.connected <= row.begun <= row.sent <= row.first_byte <= row.ended
    assert row.pid == row.app_pid and row.app_begun <= row.app_ended and row.queued is not None

@pytest.mark.passenger_allow_log("planted")
def test_planted(live_app):
    assert live_app.get("/").status == 200
    assert live_app.get("/broken").status == 200

def test_planted_fault(live_app, faults):
    with faults.kill("mid_body"):
        assert live_app.get("/").complete

def test_fault_that_never_fired(live_app, faults):
    with faults.reset(after=100_000) as fault:
        fault.get("/")

def test_fault_that_never_began(live_app, faults):
    faults.kill()
    live_app.get("/")

def test_fault_is_good(live_app, faults):
    with faults.kill("mid_body"):
        assert not live_app.get("/").complete
    with faults.trickle() as slow, slow.client() as client:
        assert client.get("/").text == "hello"

def test_fault_of_a_deploy_is_good(live_app, faults):
    with faults.broken_release():
        assert live_app.get("/").complete

@pytest.mark.passenger_machine
def test_machine(live_app, faults):
    with faults.clock_jump(400 * 86400):
        assert live_app.get("/").header("Date")
"""
LINTED = """
import pytest
pytestmark = pytest.mark.passenger("shop:app")

def test_response(live_app):
    assert live_app.get("/status").status == 302

def test_good(live_app):
    assert live_app.get("/").status == 200
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    options = (*LOAD, *WITHOUT, *NOT_ASYNCHRONOUS, "--strict-markers")
    return pytester.run(sys.executable, "-m", "pytest", *options, *arguments, timeout=280)


def test_TH4_TH6_a_failing_test_shows_its_requests_and_its_log(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    documented = DOCUMENTED.read_text().partition("\n## Faults\n")[2].partition("```python\n")[2].partition("```")[0]
    pytester.makepyfile(shop=APP, test_shop=FAILING, test_documented=documented)
    result = run(pytester, "--passenger-seed", "42", "--junitxml", "junit.xml")
    result.assert_outcomes(passed=5 + documented.count("def test_"), failed=3, errors=1)
    shown = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "passenger: --passenger-seed 42",
            "*test_planted*",
            "*passenger: timeline of the test*",
            "requests (seconds since the test began; --passenger-seed 42):",
            "*GET /  200, 5 bytes, complete",
            "*client      connected *, sent *, first byte *, last byte *",
            "*queue       0.0*",
            "*process     pid *",
            "*application *",
            "*GET /broken  500*",
            "*on the way*",
        ]
    )
    assert "the fault kill(at='mid_body'" in shown  # test_planted_fault: a note on its error
    assert "never fired, so this test shows nothing about it" in shown
    assert "never began" in shown
    # The log is that of the test alone.
    alone = shown.split("test_fault_that_never_fired", 2)[-1].split("passenger: artefact")[0]
    assert "on the way" not in alone
    # Artefacts: of the tests that failed, and only of those.
    output = pytester.path / "test-results"
    names = sorted(path.name for path in output.iterdir())
    planted = ("planted", "planted_fault", "fault_that_never_fired", "fault_that_never_began")
    assert names == sorted(f"test_shop.py-test_{name}.{kind}" for name in planted for kind in ("html", "json"))
    artefact = json.loads((output / "test_shop.py-test_planted.json").read_text())
    assert [row["target"] for row in artefact["timeline"]["rows"]] == ["/", "/broken"]
    assert "assert 500 == 200" in artefact["failure"]
    page = (output / "test_shop.py-test_planted.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "GET /broken" in page
    assert "test_shop.py-test_planted.html" in (pytester.path / "junit.xml").read_text()
    # The recorder's trace replays.
    assert main([str(output / "test_shop.py-test_planted.json")]) == 0
    assert "the policy decides as it did" in capsys.readouterr().out


def test_TH5_TH6_lint_may_fail_a_test_and_each_test_may_leave_a_trace(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shop=APP, test_shop=LINTED)
    settings = {
        "trace": '"on"',
        "output": '"seen"',
        "seed": 7,
        "leak_threshold": 3,
        "keep": "false",
        "app": '"shop:app"',
    }
    lines = "".join(f"passenger_{name} = {value}\n" for name, value in settings.items())
    pytester.makepyprojecttoml("[tool.pytest]\n" + lines)  # of pytest 9, with types
    result = run(pytester, "--passenger-lint", "error")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["passenger: --passenger-seed 7"])
    result.stdout.fnmatch_lines(["*passenger-lint: GET /status: *http.REDIRECT_WITHOUT_LOCATION*"])
    assert len(list((pytester.path / "seen").iterdir())) == 4


def test_a_wrong_setting_names_the_right_ones(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\npassenger_lint = loud\n")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*passenger_lint is 'loud': one of error, warn, off*"])
