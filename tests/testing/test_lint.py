"""TH5: lint at the boundary: planted violations of WSGI, ASGI and Rack in the application's process, and of HTTP in responses; what keeps the rules has none.

Starts the command: the lint without pytest, by a `Supervisor`, is the subject.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import needs

from passenger_trio.testing import Supervisor, eventually
from passenger_trio.testing.faults import Faults, FaultSetup
from passenger_trio.testing.lint import Finding, LintFile, lint_response
from passenger_trio.testing.worker import asgi_rules, wsgi_rules

HERE = Path(__file__).resolve().parent
APPS = HERE.parent / "apps"

WSGI = """
class Chunks:
    def __init__(self, *chunks):
        self.chunks = chunks
    def __iter__(self):
        return iter(self.chunks)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    status, headers, body = "200 OK", [("Content-Type", "text/plain")], [b"hello"]
    if path == "/status":
        status = "200"
    elif path == "/headers":
        headers.append(("X-Bad_", "1"))
    elif path == "/content-type":
        headers = []
    elif path == "/hop-by-hop":
        headers.append(("Connection", "close"))
    elif path == "/content-length":
        headers.append(("Content-Length", "9"))
    elif path == "/body-type":
        body = Chunks(b"a", bytearray(b"b"))
    elif path == "/start-missing":
        return [b"hello"]
    elif path == "/start-twice":
        start_response(status, headers)
    elif path == "/start-arguments":
        start_response(status=status, headers=headers)
        return body
    elif path == "/exc-info":
        start_response(status, headers, [])
        return body
    elif path == "/iterable":
        start_response(status, headers)
        return b"hello"
    elif path == "/input":
        environ["wsgi.input"].read()
    elif path == "/errors":
        environ["wsgi.errors"].close()
    elif path == "/generator":
        body = (piece for piece in (b"hel", b"lo"))
    elif path == "/file":
        import io
        body = environ["wsgi.file_wrapper"](open(__file__, "rb"))
    start_response(status, headers)
    return body
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    path = scope["path"]
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    body = {"type": "http.response.body", "body": b"hello"}
    if path == "/header-name":
        start["headers"].append((b"X-Upper", b"1"))
    elif path == "/transfer-encoding":
        start["headers"].append((b"transfer-encoding", b"chunked"))
    elif path == "/start-type":
        start["headers"] = [("content-type", "text/plain")]
    elif path == "/body-before-start":
        await send(body)
    elif path == "/start-twice":
        await send(start)
    elif path == "/body-type":
        body["body"] = bytearray(b"hello")
    elif path == "/content-length":
        start["headers"].append((b"content-length", b"3"))
    elif path == "/incomplete":
        body["more_body"] = True
    elif path == "/message":
        await send({"type": "http.response.end"})
    elif path == "/trailers":
        await send(start)
        await send(body)
        return await send({"type": "http.response.trailers", "headers": []})
    elif path == "/after-disconnect":
        while (await receive())["type"] != "http.disconnect":
            pass
    await send(start)
    await send(body)
    if path == "/after-end":
        await send(body)
"""
RACK = """
run lambda { |env|
  case env["PATH_INFO"]
  when "/status" then [99, { "Content-Type" => "text/plain" }, ["hello"]]
  when "/header" then [200, { "Content-Type" => "text/plain", "X-Number" => 1 }, ["hello"]]
  when "/body" then [200, { "Content-Type" => "text/plain", "Content-Length" => "9" }, ["hello"]]
  else [200, { "Content-Type" => "text/plain" }, ["hello"]]
  end
}
"""


NODE = """
require("http").createServer((request, response) => response.end("hello")).listen(8080);
"""


class Linted:
    """A server whose application is under lint, and what each request finds."""

    def __init__(self, server: Supervisor, lint: LintFile, faults: Faults) -> None:
        self.server, self.lint, self.faults = server, lint, faults

    def findings(self, path: str, count: int = 1, rule: str = "") -> list[Finding]:
        """:param rule: one that must be among them: what the start has found may come late."""
        eventually(lambda: self.server.pids, 60, "a process serves")  # what its start finds comes before the mark
        mark = self.lint.mark()
        try:
            self.server.get(path)
        except ConnectionError:
            pass  # such an answer is none
        if count:
            eventually(lambda: len(self.lint.since(mark)) >= count, 15, f"{path} has {count} findings")
        if rule:
            eventually(lambda: rule in {one.rule for one in self.lint.since(mark)}, 15, f"{path} breaks {rule}")
        return self.lint.since(mark)


def linted(root: Path, *arguments: str) -> Iterator[Linted]:
    lint, setup = LintFile(), FaultSetup()
    options = ("--max-pool-size", "1", "--friendly-error-pages", "off", *arguments)
    with Supervisor.start(root, *options, env={**setup.environment, **lint.environment}) as server:
        yield Linted(server, lint, setup.faults(server))
    lint.close()
    setup.close()


def directory(where: Path, file: str, text: str) -> Path:
    (where / file).write_text(text)
    return where


@pytest.fixture(scope="module")
def wsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linted]:
    yield from linted(directory(tmp_path_factory.mktemp("wsgi"), "passenger_wsgi.py", WSGI))


@pytest.fixture(scope="module")
def asgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linted]:
    yield from linted(directory(tmp_path_factory.mktemp("asgi"), "app.py", ASGI), "--app-type", "asgi")


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linted]:
    needs(shutil.which("ruby") is not None, "Ruby with Rack")
    yield from linted(directory(tmp_path_factory.mktemp("rack"), "config.ru", RACK))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linted]:
    needs(shutil.which("node") is not None, "Node.js")
    yield from linted(directory(tmp_path_factory.mktemp("node"), "app.js", NODE))


@pytest.mark.os
@pytest.mark.parametrize("rule", [rule.removeprefix("wsgi.") for rule in wsgi_rules.RULES])
def test_TH5_each_rule_of_WSGI_is_seen_in_the_process(wsgi: Linted, rule: str) -> None:
    found = wsgi.findings(f"/{rule}")
    assert {finding.rule for finding in found} == {f"wsgi.{rule}"}
    assert found[0].text == wsgi_rules.RULES[f"wsgi.{rule}"]
    assert found[0].request == f"GET /{rule}"
    assert found[0].detail


@pytest.mark.os
def test_TH5_an_application_that_keeps_the_rules_has_no_findings(wsgi: Linted, asgi: Linted, rack: Linted) -> None:
    for path in ("/", "/generator", "/file"):
        assert wsgi.findings(path, 0) == []
    assert asgi.findings("/", 0) == []
    assert rack.findings("/", 0) == []
    assert wsgi.server.get("/").header("Content-Length") == "5"  # a list of one stays one under the lint


IN_PROCESS = (
    *("header-name", "transfer-encoding", "start-type", "body-before-start", "start-twice", "body-type"),
    *("content-length", "incomplete", "message", "trailers", "after-end"),
)


@pytest.mark.os
@pytest.mark.parametrize("rule", IN_PROCESS)
def test_TH5_the_automaton_of_ASGI_sees_violations_in_the_process(asgi: Linted, rule: str) -> None:
    found = asgi.findings(f"/{rule}", rule=f"asgi.{rule}")
    assert all(finding.text == asgi_rules.RULES[finding.rule] for finding in found)


@pytest.mark.os
def test_TH5_lifespan_and_a_client_that_left(asgi: Linted) -> None:
    assert "asgi.lifespan" in {finding.rule for finding in asgi.lint.since(0)}
    mark = asgi.lint.mark()
    with asgi.server.connect() as client:
        client.send(b"GET /after-disconnect HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: asgi.server.group()["processes"][0]["sessions"] == 1)
    eventually(lambda: asgi.lint.since(mark), 15, "a finding")
    assert {finding.rule for finding in asgi.lint.since(mark)} == {"asgi.after-disconnect"}


@pytest.mark.os
def test_TH5_Rack_Lint_speaks_for_Rack(rack: Linted) -> None:
    for path, words in (("/status", "Status"), ("/header", "header"), ("/body", "Content-Length")):
        found = rack.findings(path)
        assert found[0].rule == "rack.lint"
        assert words.lower() in found[0].detail.lower()
        assert found[0].text.startswith("Rack specification, as Rack::Lint (Rack ")


@pytest.mark.os
@pytest.mark.parametrize("which", ["asgi", "rack", "node"])
def test_TH4_faults_in_the_process_of_other_interfaces(which: str, request: pytest.FixtureRequest) -> None:
    it: Linted = request.getfixturevalue(which)
    for at in ("mid_body", "before_end"):
        with it.faults.kill(at):  # type: ignore[arg-type]
            assert not it.server.get("/").complete
    with it.faults.bad_frame("head"):
        assert it.server.get("/").status == 502
    with it.faults.close_stream("mid_body"):
        assert not it.server.get("/").complete
    with it.faults.restart_now(at="mid_body"):
        assert it.server.get("/").text == "hello"
    with it.faults.kill("after_end"):
        assert it.server.get("/").complete
    with it.faults.broken_release() as broken:
        assert [result["result"] for result in broken.results] == ["rejected"]
    with it.faults.crash_on_start("exit") as crash:
        with it.faults.exit("head", status=3):
            assert it.server.get("/").status in (200, 500, 502, 503)
        crash.wait_fired()


@pytest.mark.os
def test_TH4_when_a_fault_of_starts_has_ended_the_next_request_comes_to_the_application(asgi: Linted) -> None:
    """It was refused, because the server waited after starts that failed: what came next in the test, or in another, failed by a fault that was over."""
    with asgi.faults.crash_on_start("exit", times=4) as crash:
        with asgi.faults.exit("head", status=3):
            asgi.server.get("/")
        eventually(lambda: all(order.pid is not None for order in crash._orders), 60, "four starts have failed")
    assert asgi.server.get("/").text == "hello"


# Pure


def run(scope: dict[str, Any], *script: dict[str, Any] | str) -> list[str]:
    """The rules that a script breaks. A text is the type of a message that the application receives."""
    found: list[str] = []
    automaton = asgi_rules.automaton(scope, lambda rule, detail: found.append(rule))
    assert automaton is not None
    for step in script:
        if isinstance(step, str):
            automaton.on_receive({"type": step})
        else:
            automaton.on_send(step)
    automaton.on_return()
    return found


WEBSOCKET = {"type": "websocket", "subprotocols": ["chat"], "extensions": {}}
ACCEPT = {"type": "websocket.accept", "subprotocol": "chat"}
CLOSE = {"type": "websocket.close", "code": 1000}


def say(**members: Any) -> dict[str, Any]:
    return {"type": "websocket.send", **members}


@pytest.mark.parametrize(
    ("script", "rules"),
    [
        (("websocket.connect", ACCEPT, say(text="a"), say(bytes=b"a", text=None), CLOSE), []),
        (("websocket.connect", CLOSE), []),
        (("websocket.connect", "websocket.disconnect"), []),
        ((ACCEPT,), ["asgi.accept"]),
        (("websocket.connect", ACCEPT, ACCEPT), ["asgi.accept"]),
        (("websocket.connect", {**ACCEPT, "subprotocol": "x"}), ["asgi.subprotocol"]),
        (("websocket.connect", say(text="a"), CLOSE), ["asgi.send-before-accept"]),
        (("websocket.connect", ACCEPT, CLOSE, say(text="a")), ["asgi.send-before-accept"]),
        (("websocket.connect", ACCEPT, say()), ["asgi.websocket-send"]),
        (("websocket.connect", ACCEPT, say(text="a", bytes=b"a")), ["asgi.websocket-send"]),
        (("websocket.connect", ACCEPT, say(text=b"a")), ["asgi.websocket-send"]),
        (("websocket.connect", ACCEPT, {**CLOSE, "code": 1006}), ["asgi.websocket-close"]),
        (("websocket.connect", ACCEPT, {**CLOSE, "reason": "x" * 124}), ["asgi.websocket-close"]),
        (("websocket.connect", ACCEPT, CLOSE, CLOSE), ["asgi.websocket-close"]),
        (("websocket.connect",), ["asgi.websocket-unanswered"]),
        (("websocket.connect", {"type": "websocket.http.response.start", "status": 403}), ["asgi.websocket-response"]),
        (("websocket.connect", ACCEPT, "websocket.disconnect", say(text="a")), ["asgi.after-disconnect"]),
    ],
)
def test_TH5_the_automaton_of_WebSockets(script: tuple[Any, ...], rules: list[str]) -> None:
    assert run(WEBSOCKET, *script) == rules


@pytest.mark.parametrize(
    ("status", "fields", "body", "rule"),
    [
        (200, {"Content-Type": "text/plain", "Content-Length": "5"}, b"hello", None),
        (301, {"Content-Length": "0"}, b"", "http.REDIRECT_WITHOUT_LOCATION"),
        (200, {"Last-Modified": "yesterday"}, b"", "http.BAD_DATE_SYNTAX"),
        (200, {"Cache-Control": "max-age=ten"}, b"", "http.CC_BAD_VALUE_TYPE"),
        (200, {"ETag": "unquoted"}, b"", "http.BAD_SYNTAX"),
        (200, {"Content-Length": "9"}, b"hello", "http.CL_INCORRECT"),
    ],
)
def test_TH5_responses_by_the_RFCs(status: int, fields: dict[str, str], body: bytes, rule: str | None) -> None:
    date = (b"Date", b"Sun, 29 Nov 2026 12:00:00 GMT")
    raw = [date, *((name.encode(), value.encode()) for name, value in fields.items())]
    found = lint_response(b"GET", b"/a", [(b"Host", b"a")], status, b"", raw, body)
    assert [finding.rule for finding in found] == ([] if rule is None else [rule])
    if rule is not None:
        assert found[0].request == "GET /a"
        assert len(found[0].text) > 40
        assert "<" not in found[0].text


def test_TH5_the_length_of_a_HEAD_response_is_not_its_body() -> None:
    fields = [(b"Date", b"Sun, 29 Nov 2026 12:00:00 GMT"), (b"Content-Length", b"5")]
    assert lint_response(b"HEAD", b"/", [(b"Host", b"a")], 200, b"OK", fields, b"") == []


def test_TH5_without_httplint_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httplint", None)
    with pytest.raises(ImportError, match=r"pip install 'passenger-trio\[testing\]'"):
        lint_response(b"GET", b"/", [], 200, b"OK", [], b"")
