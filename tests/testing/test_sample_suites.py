"""TH10: published suites of three frameworks run on the harness unmodified, with a conftest.py of a few lines.

They are in the source distributions of Flask, FastAPI and Starlette, which pip fetches once. One of FastAPI's tests reads a dict that the lifespan of its
application fills, in another process here: its conftest.py puts that dict where both processes reach it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import attrs
import pytest
from test_plugin import run

pytestmark = [pytest.mark.os, pytest.mark.slow]

CACHE = Path(__file__).resolve().parents[2] / ".nox" / "sample-suites"
FLASK = """
import flask
from passenger_trio.testing.flask import FlaskClient
flask.Flask.test_client_class = FlaskClient
"""
STARLETTE = """
import starlette.testclient, fastapi.testclient
from passenger_trio.testing.starlette import TestClient
starlette.testclient.TestClient = fastapi.testclient.TestClient = TestClient
"""
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text()
[SHARED] = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "items_for_both_processes" in code]


@attrs.frozen
class Suite:
    package: str
    parts: tuple[str, ...]
    """Folders of the distribution that are needed."""
    conftest: str
    tests: tuple[str, ...]
    passed: int


SUITES = (
    Suite(
        "flask",
        ("examples/tutorial/flaskr", "examples/tutorial/tests"),
        FLASK,
        ("tests",),
        24,
    ),
    Suite(
        "fastapi",
        ("docs_src",),
        STARLETTE + SHARED,
        (
            *(f"docs_src/app_testing/tutorial00{number}.py" for number in (1, 2, 3, 4)),
            *(f"docs_src/app_testing/{name}/test_main.py" for name in ("app_a", "app_b", "app_b_non_an")),
        ),
        18,
    ),
    Suite("starlette", ("tests",), STARLETTE, ("tests/middleware/test_cors.py",), 18),
)


def source(package: str) -> Path:
    """The unpacked source distribution of the version that is installed."""
    name = f"{package}-{version(package)}"
    if not (CACHE / name).is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package),
            *("--dest", str(CACHE), name.replace("-", "==")),
        ]
        # What pip asks about its metadata is in the extra `test`. A version that has changed to another is given an environment of its own, which takes
        # ten times as long.
        if subprocess.run([*command, "--no-build-isolation"], check=False, timeout=300).returncode:
            subprocess.run(command, check=True, timeout=300)
        with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return CACHE / name


@pytest.mark.timeout(400)
@pytest.mark.parametrize("suite", SUITES, ids=[suite.package for suite in SUITES])
def test_TH10_a_published_suite_runs_unmodified(pytester: pytest.Pytester, suite: Suite) -> None:
    for part in suite.parts:
        shutil.copytree(
            source(suite.package) / part, pytester.path / (part if part.startswith("docs") else Path(part).name)
        )
    (pytester.path / "conftest.py").write_text(suite.conftest)
    choice = ("-k", "asyncio") if suite.package == "starlette" else ()
    asynchronous = suite.package == "starlette"
    result = run(pytester, "-W", "ignore", "-p", "no:trio", *choice, *suite.tests, asynchronous=asynchronous)
    result.assert_outcomes(passed=suite.passed, deselected=None)
