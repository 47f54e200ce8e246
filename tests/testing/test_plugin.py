"""The pytest plugin, seen from a suite that uses it. A run of pytest is dear, so each checks many rows."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import pytest

PLUGIN = "passenger_trio.testing.plugin"
LOAD = () if any(entry.value == PLUGIN for entry in entry_points(group="pytest11")) else ("-p", PLUGIN)

APP = """
from flask import Flask, request
app = Flask(__name__)

@app.get("/")
def index():
    return "hello"
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.run(
        *(
            sys.executable,
            "-m",
            "pytest",
            *LOAD,
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "-p",
            "no:schemathesis",
        ),
        *arguments,
        timeout=100,
    )


@pytest.mark.os
def test_parts_attach_to_a_test(pytester: pytest.Pytester) -> None:
    """TH1: hooks before, at the start and at the end of a test; a finding fails it."""
    pytester.makepyfile(
        shop=APP,
        conftest="""
            def pytest_passenger_options(request, options):
                options["app_type"] = "wsgi"

            def pytest_passenger_start(live_app, request):
                live_app.found = []

            def pytest_passenger_end(live_app, request):
                return live_app.found
        """,
        test_shop="""
            import pytest
            pytestmark = pytest.mark.passenger("shop:app")

            def test_good(live_app):
                assert live_app.get("/").body == b"hello"

            def test_bad(live_app):
                live_app.found.append("a planted finding")
        """,
    )
    result = run(pytester, "--strict-markers", "test_shop.py")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*a planted finding*"])
