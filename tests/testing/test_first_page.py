"""TH11, TH2: what docs/testing.md shows, as a new user would type it. Its first test file runs with each of its four lines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import node_packages
import pytest
from needs import needs
from test_plugin import run

pytestmark = [pytest.mark.os, pytest.mark.timeout(400)]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

FLASK = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return "hello"
"""
FASTAPI = """
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
app = FastAPI()

@app.get("/")
async def index():
    return PlainTextResponse("hello")
"""
SINATRA = """
require 'sinatra/base'
class Hello < Sinatra::Base
  get('/') { 'hello' }
end
run Hello
"""
EXPRESS = """
const app = require('express')();
app.get('/', (request, response) => response.send('hello'));
app.listen(process.env.PORT);
"""


def test_TH11_the_first_page_works_for_flask_fastapi_sinatra_and_express(pytester: pytest.Pytester) -> None:
    needs(bool(shutil.which("npm") and shutil.which("ruby")), "npm and ruby")
    first, others = CODE[0], CODE[1]
    assert len(first.splitlines()) == 13, "ten lines and what stands between them"
    lines = [re.search(r"^pytestmark = .*$", first, re.MULTILINE)[0], *others.splitlines()]  # type: ignore[index]
    assert [line.rpartition(" ")[2] for line in lines] == ["application", "FastAPI", "application", "application"]
    path = pytester.path
    (path / "shop.py").write_text(FLASK)
    (path / "api.py").write_text(FASTAPI)
    for name, file, text in (("sinatra", "config.ru", SINATRA), ("express", "app.js", EXPRESS)):
        (path / name).mkdir()
        (path / name / file).write_text(text)
    (path / "express" / "node_modules").symlink_to(node_packages.install())
    for number, line in enumerate(lines):
        (path / f"test_{number}.py").write_text(first.replace(lines[0], line))
    run(pytester).assert_outcomes(passed=8)


def test_TH11_from_nothing_to_the_test_of_a_fault(pytester: pytest.Pytester) -> None:
    application, tests = CODE[2], CODE[3]
    pytester.makepyfile(app=application, test_app=tests)
    run(pytester).assert_outcomes(passed=4)
    (pytester.path / "test_app.py").write_text(re.sub(r"@pytest.mark.passenger_allow_log.*\n", "", tests, count=1))
    result = run(pytester)
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*the log has lines of level error*"])
