"""Fault 26 (ED13): what the RFCs allow reaches an application of each interface as that interface has it; a HEAD that is answered by the server has no body.

Starts the command: several applications in one server, by their hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from what_applications_see import THERE, ask, seen, start

from passenger_trio.testing import Supervisor

pytestmark = pytest.mark.os


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with start(tmp_path_factory.mktemp("rfcs")) as running:
        yield running


@pytest.mark.parametrize("name", THERE)
def test_fault_26_options_asterisk(server: Supervisor, name: str) -> None:
    """RFC 3875 4.1.5: the asterisk is no PATH_INFO (wsgiref's validator and Rack::Lint look); it is ASGI's path, and the target over HTTP."""
    about = seen(server, name, first="OPTIONS * HTTP/1.1")
    match name:
        case "asgi":
            assert (about["path"], about["raw_path"], about["root_path"]) == ("*", "*", "")
        case "node":
            assert (about["method"], about["url"]) == ("OPTIONS", "*")
        case _:
            assert (about["PATH_INFO"], about["SCRIPT_NAME"], about["REQUEST_URI"]) == ("", "", "*")


@pytest.mark.parametrize("name", THERE)
def test_fault_26_absolute_form_wins_over_host(server: Supervisor, name: str) -> None:
    """RFC 9112 3.2.2: the application is chosen by it, and told of it."""
    about = seen(server, name, "Host: evil.example", first=f"GET http://{name}.test/x HTTP/1.1")
    match name:
        case "asgi":
            assert ["host", "asgi.test"] in about["headers"]
        case "node":
            assert about["headers"]["host"] == "node.test"
            assert about["url"] == "/x"
        case _:
            assert about["HTTP_HOST"] == f"{name}.test"


@pytest.mark.parametrize("name", [name for name in THERE if name != "node"])  # its parser knows a list of methods
def test_fault_26_any_token_is_a_method(server: Supervisor, name: str) -> None:
    about = seen(server, name, first="BREW /x HTTP/1.1")
    assert about["method" if name == "asgi" else "REQUEST_METHOD"] == "BREW"


@pytest.mark.parametrize("name", [name for name in THERE if name != "node"])
def test_fault_26_http_1_2_is_1_1(server: Supervisor, name: str) -> None:
    about = seen(server, name, first="GET /x HTTP/1.2")
    assert about["http_version" if name == "asgi" else "SERVER_PROTOCOL"] == ("1.1" if name == "asgi" else "HTTP/1.1")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: nobody.test\r\n\r\n", 404),
        (b"HEAD / HTTP/1.1\r\nHost: wsgi.test\r\nX : y\r\n\r\n", 400),
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
        (b"HEAD / HTTP/3.1\r\nHost: wsgi.test\r\n\r\n", 505),
        (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: wsgi.test\r\n\r\n", 414),
        (b"HEAD / HTTP/1.1\r\nHost: wsgi.test\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"HEAD / HTTP/1.1\r\nHost: wsgi.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_fault_26_a_refused_head_has_no_body(server: Supervisor, request_: bytes, status: int) -> None:
    """RFC 9110 9.3.2, whatever is wrong; the length that is said is that of GET."""
    head, body = ask(server, request_)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == b""
    head, body = ask(server, request_.replace(b"HEAD", b"GET", 1))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body


def test_fault_26_a_failed_start_answers_head_without_body(tmp_path: Path) -> None:
    """503 of an application that does not start."""
    (tmp_path / "passenger_wsgi.py").write_text("raise ValueError\n\n\ndef application(environ, start_response): ...\n")
    with Supervisor.start(tmp_path, "--min-instances", "0", "--start-timeout", "20s") as running:
        head, body = ask(running, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 5")
        assert body == b""


def test_fault_26_allowed_methods(tmp_path: Path) -> None:
    with start(tmp_path, "--allowed-methods", "GET", "--allowed-methods", "HEAD", names=["wsgi"]) as running:
        assert seen(running, "wsgi")["REQUEST_METHOD"] == "GET"
        for method in (b"BREW", b"POST", b"get"):
            assert ask(running, method + b" / HTTP/1.1\r\nHost: wsgi.test\r\n\r\n")[0].startswith(b"HTTP/1.1 501 ")
