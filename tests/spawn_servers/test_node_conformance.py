"""The Node loader keeps spawn_servers/CONTRACT.md, on every Node that is here."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_http import LOADER, nodes, subject, supervisor_of

from passenger_trio.testing.conformance import CHECKS, Check, FakeSupervisor, Stage, eventually

NODES = nodes()
CASES = [
    pytest.param(check, node, id=f"{name}-{check}")
    for name, node in NODES.items()
    for check in CHECKS
    if check.concerns(subject(node))
]


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    """Node -> a stage that shares its worker, among those checks that may."""
    with contextlib.ExitStack() as stack:
        yield {node: stack.enter_context(subject(node).stage(share=True)) for node in NODES.values()}


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize(("check", "node"), CASES)
def test_contract(check: Check, node: str, stages: dict[str, Stage]) -> None:
    """Each check by its name and with each Node, which the log of a run lists."""
    check(subject(node), stages[node])


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


BUSY = """
const fs = require('fs');
const server = require('http').createServer((request, response) => {
  if (request.url === '/busy') {
    fs.writeFileSync('busy', '');
    while (!fs.existsSync('go'));
  }
  response.end(request.url);
});
server.listen(3000);
"""


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
@pytest.mark.parametrize(
    "own",
    [
        "",
        "process.on('SIGTERM', () => server.close(() => process.exit(0)));",
        "process.on('SIGTERM', () => { server.close(); if (server.closeIdleConnections) server.closeIdleConnections(); });",
    ],
    ids=["ours", "closes", "closes-idle"],
)
def test_all_that_waits_in_the_kernel_is_in_hand(node: str, own: str, tmp_path: Path) -> None:
    """Node accepts one connection in each turn of its loop; and many applications close their server by themselves."""
    (tmp_path / "app.js").write_text(BUSY + own)
    with supervisor_of(node, tmp_path, "app.js") as worker, contextlib.ExitStack() as streams:
        busy, kept = (streams.enter_context(worker.open()) for _ in range(2))
        assert kept.request("GET", "/first").body == b"/first"
        busy.begin("GET", "/busy")
        assert eventually((tmp_path / "busy").exists)
        new = [streams.enter_context(worker.open()) for _ in range(10)]
        for number, stream in enumerate([kept, *new]):
            stream.begin("POST", f"/{number}")
        worker.shut_down()
        (tmp_path / "go").touch()
        for number, stream in enumerate([kept, *new]):
            assert stream.response().body == b"/%d" % number
        assert worker.exit_status() == 0


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_a_request_body_that_came_behind_its_response_does_not_keep_it_from_ending(node: str, tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("""
const fs = require('fs');
const listener = (request, response) => response.on('close', () => fs.writeFileSync('closed', '')).end('early');
const server = require('http').createServer(listener);
server.keepAliveTimeout = 0;
server.listen(3000);
""")
    with supervisor_of(node, tmp_path, "app.js") as worker, worker.open() as whole, worker.open() as cut:
        for stream, size in ((whole, 100_000), (cut, 50_000)):
            head, body = stream.encode("POST", "/", b"x" * 100_000)
            stream.send(head)
            assert stream.response().body == b"early"
            assert eventually((tmp_path / "closed").exists)
            (tmp_path / "closed").unlink()
            stream.send(body[:size])
            assert eventually(lambda stream=stream: stream.is_taken)
        worker.shut_down()
        assert worker.exit_status() == 0


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_the_first_bytes_of_a_head_are_in_hand_behind_a_response_that_ended_late(node: str, tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("""
const fs = require('fs');
require('http').createServer((request, response) => {
  if (request.url === '/next') return response.end('next');
  response.writeHead(200, { 'content-length': 5 });
  response.write('early');
  const { socket } = request;
  const read = socket.bytesRead;
  const wait = setInterval(() => {
    if (socket.bytesRead === read) return;
    clearInterval(wait);
    response.on('close', () => fs.writeFileSync('closed', '')).end();
  }, 5);
}).listen(3000);
""")
    with supervisor_of(node, tmp_path, "app.js") as worker, worker.open() as stream, worker.open() as idle:
        assert stream.request("GET", "/early").body == b"early"
        head, _ = stream.encode("GET", "/next")
        stream.send(head[:10])
        assert eventually((tmp_path / "closed").exists)
        worker.shut_down()
        assert idle.ended()
        stream.send(head[10:])
        assert stream.response().body == b"next"
        assert worker.exit_status() == 0


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_two_servers_on_any_port_are_two(node: str, tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("""
const { createServer } = require('http');
const second = createServer((request, response) => response.end('second'));
const first = createServer((request, response) => response.end(`beside ${second.address().port > 0}`));
second.on('listening', () => console.log('second listens'));
first.listen(0, () => second.listen(0));
""")
    with supervisor_of(node, tmp_path, "app.js") as worker:
        assert worker.output.wait_for("second listens")
        assert worker.request("GET", "/").body == b"beside true"


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_an_application_that_listens_to_no_signal_any_more_is_told_to_stop_all_the_same(
    node: str, tmp_path: Path
) -> None:
    (tmp_path / "app.js").write_text(BUSY + "process.removeAllListeners('SIGTERM');")
    with supervisor_of(node, tmp_path, "app.js") as worker:
        assert worker.request("GET", "/").body == b"/"
        worker.shut_down()
        assert worker.exit_status() == 0


@pytest.mark.os
@pytest.mark.slow
@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_requests_that_the_application_makes_up_are_its_own(node: str, tmp_path: Path) -> None:
    """Some ask themselves: what they give to the server has no connection, and need not be an emitter."""
    (tmp_path / "app.js").write_text("""
const server = require('http').createServer((request, response) => {
  if (request.url !== '/outer') return response.end('inner');
  server.emit('request', { url: '/inner', socket: {} }, { end: (text) => setImmediate(() => response.end(text)) });
});
server.listen(3000);
""")
    with supervisor_of(node, tmp_path, "app.js") as worker:
        for _ in range(2):
            assert worker.request("GET", "/outer").body == b"inner"
        worker.shut_down()
        assert worker.exit_status() == 0


@pytest.mark.os
@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_installed_in_a_project_of_es_modules(node: str, tmp_path: Path) -> None:
    """HO2: in PROJECT/.venv the nearest package.json would be the project's, and with "type": "module" the loader's files would be ES modules."""
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "app.js").write_text("""
import http from 'node:http';
http.createServer((request, response) => response.end('served')).listen(0);
""")
    installed = tmp_path / ".venv" / "node"
    shutil.copytree(LOADER.parent, installed)
    with FakeSupervisor() as supervisor:
        worker = supervisor.start((node, str(installed / LOADER.name)), tmp_path, "app.js", app_type="node")
        assert worker.request("GET", "/").body == b"served"


def test_there_is_a_node_to_check_and_enough_to_check() -> None:
    assert len(CASES) >= 25 * len(NODES) > 0


def test_it_uses_the_standard_library_of_node_16_only() -> None:
    """HO2: beside it the loader requires its own files, each of them, none longer than 500 lines."""
    files = sorted(LOADER.parent.rglob("*.js"))
    text = "\n".join(file.read_text() for file in files)
    required = set(re.findall(r"require(?:\.resolve)?\('([^']+)'\)", text))
    own = {name for name in required if name.startswith(".")}
    assert required - own == {
        "cluster",
        "fs",
        "http",
        "inspector",
        "module",
        "net",
        "path",
        "tls",
        "url",
        "worker_threads",
    }
    assert {Path(name).name for name in own} == {file.name for file in files} - {LOADER.name}
    assert all(len(file.read_text().splitlines()) <= 500 for file in files)
    for newer in (
        r"structuredClone",
        r"\bfetch\(",
        r"\.at\(-?\d",
        r"Object\.hasOwn",
        r"\.closeIdleConnections\(",
        r"\.findLast",
        r"node:test",
    ):
        assert not re.search(newer, text), newer
