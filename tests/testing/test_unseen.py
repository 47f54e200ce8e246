"""Issue 16: five bugs of published frameworks and examples pass with the framework's own client and are seen on a real server, by tests of a few lines each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_evidence import run

SUITE = Path(__file__).resolve().parent.parent / "apps" / "python" / "unseen"
SEEN = {
    "buffering": "*nobody has seen that it started*",
    "disconnect": "*computed to the end*",
    "concurrency": "*{200, 404} == {200}*",
    "process_death": "*Path('log.txt').exists*",
    "encoding": "*500 == 200*",
}


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_bugs_that_in_process_clients_do_not_see(pytester: pytest.Pytester) -> None:
    shutil.copytree(SUITE, pytester.path, dirs_exist_ok=True)
    pytester.makeini("[pytest]\n")
    result = run(pytester, "check_unseen.py", "--passenger-trace", "off", "-v")
    result.assert_outcomes(passed=6, failed=5, warnings=result.parseoutcomes().get("warnings", 0))
    for bug, words in SEEN.items():
        result.stdout.fnmatch_lines_random([f"*::test_{bug}_in_process PASSED*", f"*::test_{bug}_live FAILED*", words])
    result.stdout.fnmatch_lines(["*::test_disconnect_live_without_middleware PASSED*"])
    # TH5, TH6: by default the lint warns (here of Django's header names), and --passenger-trace off writes nothing.
    result.stdout.fnmatch_lines(["*passenger-lint: GET /progress: the header b'Content-Type' [[]asgi.header-name]*"])
    assert not (pytester.path / "test-results").exists()
