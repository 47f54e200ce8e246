"""One server with an application of each interface, which says what it sees of a request; chosen by the host name ``INTERFACE.test``."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from passenger_trio.testing import Supervisor

WSGI = """
import json
from wsgiref.validate import validator

@validator
def application(environ, start_response):
    about = {name: value for name, value in environ.items() if isinstance(value, str)}
    body = json.dumps(about).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""
ASGI = """
import json

async def application(scope, receive, send):
    assert scope["type"] == "http"
    about = {name: scope[name] for name in ("method", "scheme", "client", "server", "path", "root_path", "http_version")}
    about["raw_path"] = scope["raw_path"].decode("latin-1")
    about["headers"] = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(about).encode()})
"""
RACK = """
require 'json'
require 'rack/lint'
use Rack::Lint
run lambda { |env|
  about = env.select { |_, value| value.is_a?(String) }
  request = Rack::Request.new(env)
  about['url'] = request.base_url
  about['ip'] = request.ip
  [200, {'content-type' => 'application/json'}, [JSON.dump(about)]]
}
"""
NODE = """
require("http").createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({method: request.method, url: request.url, headers: request.headers}));
}).listen(process.env.PORT || 3000);
"""
SOURCES = {
    "wsgi": ("passenger_wsgi.py", WSGI),
    "asgi": ("passenger_asgi.py", ASGI),
    "rack": ("config.ru", RACK),
    "node": ("app.js", NODE),
}
THERE = [name for name in SOURCES if name in ("wsgi", "asgi") or shutil.which({"rack": "ruby", "node": "node"}[name])]
"""Those whose interpreter is here."""


def start(directory: Path, *options: str, names: Sequence[str] = THERE) -> Supervisor:
    """A server with one process of each; ``with`` it."""
    apps = []
    for name in names:
        file, text = SOURCES[name]
        (directory / name).mkdir()
        (directory / name / file).write_text(text)
        apps.append(f'[[app]]\nroot = "{name}"\nhost_name = ["{name}.test"]\n')
    (directory / "passenger-trio.toml").write_text("\n".join(apps))
    return Supervisor.start(directory, "--max-pool-size", "4", "-e", "production", *options)


def ask(server: Supervisor, data: bytes) -> tuple[bytes, bytes]:
    """Send ``data`` on a connection of its own; head and body of the answer, which must have a length or end with the connection."""
    address = server.address
    with closing(socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)) as client:
        client.settimeout(30)
        client.connect(address)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        body = b"".join(_pieces(body))
    return head, body


def seen(server: Supervisor, name: str, *lines: str, first: str = "GET /x HTTP/1.1") -> Any:
    """What the application ``name`` says of a request with these field lines."""
    fields = list(lines)
    if not any(line.lower().startswith("host:") for line in lines):
        fields.insert(0, f"Host: {name}.test")
    head, body = ask(server, "\r\n".join((first, *fields, "", "")).encode("latin-1"))
    assert head.startswith(b"HTTP/1.1 200 "), (head, body)
    return json.loads(body)


def _pieces(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
