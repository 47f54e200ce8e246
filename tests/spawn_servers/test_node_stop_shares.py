"""Fault 20 for Node.js: connections of requests that do not end are destroyed in time, and ``exit`` is emitted; nothing there can be interrupted."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from node_http import nodes, supervisor_of

from passenger_trio.testing.conformance import eventually

pytestmark = pytest.mark.os
NODES = nodes()

SOURCE = """
const fs = require('fs');
const note = (text) => fs.appendFileSync(process.env.EVENTS, `${text}\\n`);
process.on('exit', () => note('exit'));
setInterval(() => {}, 1000);
require('http').createServer((request, response) => {
  note(`began ${request.url}`);
  response.on('close', () => note(`closed ${request.url}`));
  if (request.url === '/stream') setInterval(() => response.write('x'), 20);
  if (request.url === '/after') response.end('x');
}).listen(3000);
"""


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_requests_that_never_end(tmp_path: Path, node: str) -> None:
    """Fault 20."""
    (tmp_path / "app.js").write_text(SOURCE)
    events = tmp_path / "events"
    paths = ("/wait", "/stream", "/after")
    with supervisor_of(node, tmp_path, "app.js", env={"EVENTS": str(events)}, shutdown_timeout=2.0) as worker:
        opened = []
        try:
            for path in paths:
                stream = socket.socket(socket.AF_UNIX)
                opened.append(stream)
                stream.connect(worker.socket_path)
                stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            eventually(lambda: events.exists() and events.read_text().count("began") == len(paths))
            worker.shut_down()
            assert worker.exit_status() == 0
        finally:
            for stream in opened:
                stream.close()
        found = events.read_text().splitlines()
        assert {f"closed {path}" for path in paths} <= set(found)
        assert found[-1] == "exit"
