"""The Node loader keeps spawn_servers/CONTRACT.md, on every Node that is here."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from node_http import LOADER, nodes, subject, supervisor_of

from passenger_trio.testing.conformance import CHECKS, Check, eventually

NODES = nodes()
CASES = [
    pytest.param(check, node, id=f"{name}-{check}")
    for name, node in NODES.items()
    for check in CHECKS
    if check.concerns(subject(node))
]


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize(("check", "node"), CASES)
def test_contract(check: Check, node: str) -> None:
    """Each check by its name and with each Node, which the log of a run lists."""
    check(subject(node))


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_a_response_that_is_whole_before_its_end_does_not_cost_the_next_request(node: str, tmp_path: Path) -> None:
    """The next request is in hand although the response before it has been closed behind its head."""
    (tmp_path / "app.js").write_text("""
const http = require('http');
const fs = require('fs');
let early = null;
http.createServer((request, response) => {
  if (request.url === '/early') {
    response.writeHead(200, { 'content-length': 5 });
    response.write('early');
    early = response;
  } else {
    early.once('close', () => fs.writeFileSync('closed', ''));
    early.end();
    const wait = setInterval(() => {
      if (!fs.existsSync('go')) return;
      clearInterval(wait);
      response.end('late');
    }, 5);
  }
}).listen(3000);
""")
    with supervisor_of(node, tmp_path, "app.js") as worker, worker.open() as stream:
        assert stream.request("GET", "/early").body == b"early"
        stream.begin("GET", "/late")
        assert eventually((tmp_path / "closed").exists)
        worker.shut_down()
        time.sleep(0.2)  # it looks at its streams two turns of its loop from there
        (tmp_path / "go").touch()
        assert stream.response().body == b"late"


def test_there_is_a_node_to_check_and_enough_to_check() -> None:
    assert len(CASES) >= 25 * len(NODES) > 0


def test_it_uses_the_standard_library_of_node_16_only() -> None:
    text = LOADER.read_text()
    assert set(re.findall(r"require\('([^']+)'\)", text)) == {"cluster", "fs", "http", "module", "net", "path", "url", "worker_threads"}
    for newer in (r"structuredClone", r"\bfetch\(", r"\.at\(-?\d", r"Object\.hasOwn", r"closeIdleConnections", r"\.findLast", r"node:test"):
        assert not re.search(newer, text), newer
