"""TH6, TH7, TH10: servers that a test starts itself (``Supervisor.start``) are watched: a failing test shows their requests and their log, and one that is left
running fails its test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_plugin import run

from passenger_trio.testing.watched_evidence import read_access

ROOT = Path(__file__).resolve().parents[2]

DOCUMENTED = next(
    code
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
    if "Supervisor.start(" in code
)
SUITE = """
import pytest
from passenger_trio.testing import Supervisor

APP = '''
def application(environ, start_response):
    print("asked for", environ["PATH_INFO"], flush=True)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("app")
    (root / "passenger_wsgi.py").write_text(APP)
    with Supervisor.start(root) as server:
        server.root = root
        yield server


def test_good(server):
    assert server.get("/before").status == 200
    server.wait_access_log("/before")


def test_planted(server):
    assert server.get("/planted?1").status == 200
    with server.connect() as client:
        client.send(b"GET /raw HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
        client.receive_all()
    server.wait_access_log("/planted")
    server.wait_log("asked for /raw")
    with Supervisor.start(server.root, "--access-log-format", "json") as own:
        own.get("/own")
        own.wait_access_log("/own")
        assert False, "planted"


def test_left_behind(server):
    Supervisor.start(server.root)


def test_dynamic_fixture(request, tmp_path):
    assert request.getfixturevalue("server").get("/").status == 200
"""


@pytest.mark.os
def test_TH6_TH7_a_failing_test_shows_the_servers_that_it_has_started(pytester: pytest.Pytester) -> None:
    (pytester.mkdir("shop") / "passenger_wsgi.py").write_text(
        "from wsgiref.simple_server import demo_app as application"
    )
    pytester.makepyfile(test_suite=SUITE, test_documented=DOCUMENTED)
    result = run(pytester)
    result.assert_outcomes(passed=4, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*passenger: requests and log of the server *",
            "*GET /planted?1  200, 2 bytes, complete",
            "*client      connected *, sent *, first byte *, last byte *",
            "*process     pid *",
            "*GET /raw  200, *read as bytes",
            "*info     asked for /planted",
            "*passenger: artefact*",
            "*passenger: requests and log of the server *",
            "*GET /own  200, 2 bytes, complete",
        ]
    )
    shown = result.stdout.str()
    assert "/before" not in shown, "of an earlier test"
    assert "the test has started servers and not ended them" in shown
    artefacts = sorted((pytester.path / "test-results").glob("*.json"))
    assert len(artefacts) == 4
    for artefact in artefacts:
        if "planted" in artefact.name:
            assert json.loads(artefact.read_text())["trace"]["entries"]


def test_TH6_lines_of_an_access_log_in_both_formats() -> None:
    combined = (
        '127.0.0.1 - - [23/Nov/2025:07:43:01 +0000] "GET /a?b HTTP/1.1" 200 5120 "-" "curl/8.5 \\"x\\"" id=3f2a9c1e-1 pid=4711 group=shop'
        " time=0.012 queue=0.002 retried=1 spilled=77"
    )
    refused = '127.0.0.1 - - [23/Nov/2025:07:43:01 +0000] "-" 400 12 "-" "-" id=- pid=0 group=- time=0.001 queue=0.000 refused=bad_request'
    as_json = '{"time":"2025-11-23T07:43:01.000Z","event":"access","method":"GET","target":"/c"}'
    first, second, third = read_access([combined, "a line of one's own", refused, '{"event":"other"}', "{", as_json])
    assert (first["method"], first["target"], first["status"], first["bytes_sent"]) == ("GET", "/a?b", 200, 5120)
    assert (first["pid"], first["duration"], first["queue_time"]) == (4711, 0.012, 0.002)
    assert (first["retried"], first["spilled"], first["request_id"]) == (True, 77, "3f2a9c1e-1")
    assert first["time"] == "2025-11-23T07:43:01+00:00"
    assert (second["method"], second["status"], second["pid"]) == ("", 400, 0)
    assert third["target"] == "/c"
