"""Callers of the admin API on a running server (KE4, faults 4 and 12): what each of them sends costs only itself, and what is answered is what is described.

Starts the command: callers of its admin socket are the subject, and one server is kept for all of them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faces_tools import BEHAVIOURS, run_command
from test_hostile_neighbours import WSGI, beside_a_hostile_one, order

from passenger_trio.admin.client import fetch_status
from passenger_trio.admin.routes import ROUTES, openapi
from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

GROUP = {"name": "behaviours", "environment": "development"}
EXAMPLES = int(os.environ.get("PASSENGER_TRIO_ADMIN_EXAMPLES", "20"))
"""Requests that schemathesis makes up for each route."""


@pytest.fixture(scope="module")
def server() -> Iterator[Supervisor]:
    with Supervisor.start(BEHAVIOURS, "--min-instances", "2") as it:
        yield it
        faults = [line for line in it.log if '"traceback"' in line or '"level":"error"' in line]
        assert not faults, faults[:3]


@pytest.fixture
def admin(server: Supervisor) -> Iterator[str]:
    """The path of the admin socket; the server must live and answer afterwards."""
    path = str(server.ready["admin_socket"])
    yield path
    assert fetch_status(path)["pid"] == server.pid
    assert server.get("/pid").status == 200


def ask(path: str, method: str, target: str, body: bytes = b"", head: bytes = b"") -> tuple[int, bytes]:
    """Status and body of one answer."""
    with RawClient(path) as client:
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        client.send(b"%b %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (method.encode(), target.encode(), length, head) + body)
        data = client.receive_all()
    lines, _, rest = data.partition(b"\r\n\r\n")
    return int(lines.split()[1]), rest


# -- each costs only itself -----------------------------------------------------------------------------------------------


def test_head_has_no_body(admin: str) -> None:
    """Fault 4"""
    for route in ROUTES:
        status, body = ask(admin, "HEAD", route.path)
        assert (status, body) == (200 if route.method == "GET" else 405, b"")
    assert ask(admin, "HEAD", "/v1/nothing") == (404, b"")


def test_an_order_that_is_nested_deeply_or_long(admin: str) -> None:
    """Fault 4"""
    assert ask(admin, "POST", "/v1/restart", b"[" * 15_000)[0] == 422
    assert ask(admin, "POST", "/v1/detach", b'{"pid": 1' + b"0" * 15_000 + b"}")[0] == 422
    with RawClient(admin) as client:
        try:
            client.send(b"POST /v1/restart HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n" + b'"' * 4_000_000)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.read_response().status == 413


def test_event_streams_that_are_closed_at_once_or_not_read(server: Supervisor, admin: str) -> None:
    """Fault 4: before a byte of the answer was sent, within it, and after nothing was read while much happened."""
    for number in range(20):
        with RawClient(admin) as client:
            client.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            if number % 2:
                client.reset()
    stalled = [RawClient(admin) for _ in range(4)]
    for client in stalled:
        client.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(3):
        assert ask(admin, "POST", "/v1/restart", b'{"wait": true}')[0] == 200
    for client in stalled:
        client.close()
    assert ask(admin, "POST", "/v1/restart", b'{"wait": true}')[0] == 200


def test_an_order_whose_caller_leaves(admin: str) -> None:
    for number in range(6):
        with RawClient(admin) as client:
            client.send(b'POST /v1/restart HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{"wait": true}')
            if number % 2:
                client.reset()


def test_garbage(admin: str) -> None:
    chance = random.Random(4)
    for _ in range(30):
        with RawClient(admin) as client:
            try:
                client.send(chance.randbytes(chance.randrange(1, 3000)) + chance.choice([b"", b"\n", b"\r\n\r\n"]))
            except (BrokenPipeError, ConnectionResetError):
                pass
            client.reset()


def test_sixty_four_silent_callers_and_as_many_followers_lock_nobody_out(server: Supervisor, admin: str) -> None:
    """KE4, fault 12: callers of another process, which come again when they are hung up on."""
    before = len(server.descriptors())
    followers = []
    for _ in range(70):
        client = RawClient(admin)  # it asks at once: 64 that are silent are the most, and the first would be sent away
        client.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        followers.append(client)
    silent = [RawClient(admin) for _ in range(64)]
    for _ in range(5):
        assert fetch_status(admin)["pid"] == server.pid
    assert run_command("status", str(server.pid), "--instance", str(server.instance_dir)).returncode in (0, 1, 2)
    done = run_command("restart", "--wait", "--instance", str(server.instance_dir))
    assert done.returncode == 0, done
    assert sum(client.at_end() for client in silent[:40]) == 40, "the oldest were sent away"
    for client in (*followers, *silent):
        client.close()
    eventually(lambda: len(server.descriptors()) <= before)


def test_an_application_that_fills_the_admin_socket(tmp_path: Path) -> None:
    """Fault 12: sixteen followers of ``events``, and silent connections as often as it likes, of an application of the same user."""
    with beside_a_hostile_one(tmp_path, WSGI) as server:
        path = server.ready["admin_socket"]
        order(server, "fill", path, 16, "/v1/events")
        order(server, "fill", path, 100)
        for _ in range(3):
            done = run_command("status", "--json", str(server.instance_dir))
            assert done.returncode == 0, (done, server.log_tail)
        assert run_command("restart", "--wait", "--instance", str(server.instance_dir)).returncode == 0


# -- what is answered is what is described --------------------------------------------------------------------------------


def exact(answer: Any, schema: dict[str, Any]) -> None:
    """The answer keeps its schema, which names each member that there is (both directions)."""
    from jsonschema_rs import validator_for

    problems = [f"{list(error.instance_path)}: {error.message}" for error in validator_for(schema).iter_errors(answer)]
    assert not problems


def answer_of(path: str, method: str, body: bytes = b"") -> Callable[[str], Any]:
    def get(admin: str) -> Any:
        status, answer = ask(admin, method, path, body)
        assert status == 200, answer
        return json.loads(answer)

    return get


def test_the_description_is_served_and_has_each_route(admin: str) -> None:
    """KE4: both directions."""
    told = json.loads(ask(admin, "GET", "/v1/openapi.json")[1])
    assert told == json.loads(json.dumps(openapi()))
    assert {(method.upper(), path) for path, methods in told["paths"].items() for method in methods} == {
        (route.method, route.path) for route in ROUTES
    }
    for route in ROUTES:
        other = "GET" if route.method == "POST" else "POST"
        assert ask(admin, other, route.path)[0] == 405, "what is not described is not there"


def test_each_answer_has_exactly_the_members_that_are_described(server: Supervisor) -> None:
    """KE4: in every state that a test can bring about; the operations that end something come last."""
    path = str(server.ready["admin_socket"])
    answers = {route.path: route.answer for route in ROUTES}
    with RawClient(path) as follower, server.connect() as busy:
        follower.send(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        busy.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly a part")
        eventually(lambda: answer_of("/v1/requests", "GET")(path)["requests"])
        for name in ("status", "requests", "memory", "trace", "openapi.json"):
            exact(answer_of(f"/v1/{name}", "GET")(path), answers[f"/v1/{name}"])
        pid = server.pids[0]
        orders: Iterable[tuple[str, dict[str, object]]] = (
            ("restart", {"wait": True}),
            ("restart", {"group": "behaviours", "hard": True}),
            ("wait-restarted", {"within": 0, "groups": [{**GROUP, "generation": 99}]}),
            ("wait-restarted", {"within": 20, "groups": [{**GROUP, "generation": 2}]}),
            ("drain", {}),
            ("resume", {}),
            ("reopen-logs", {}),
        )
        for name, words in orders:
            exact(answer_of(f"/v1/{name}", "POST", json.dumps(words).encode())(path), answers[f"/v1/{name}"])
        pid = eventually(lambda: server.pids)[0]
        exact(answer_of("/v1/enable", "POST", b'{"pid": %d}' % pid)(path), answers["/v1/enable"])
        exact(answer_of("/v1/detach", "POST", b'{"pid": %d}' % pid)(path), answers["/v1/detach"])
        events = b""
        while b'"process_detached"' not in events or not events.endswith(b"\n"):
            events += follower.receive()
        for line in events.partition(b"\r\n\r\n")[2].splitlines():
            exact(json.loads(line), answers["/v1/events"])
    status, refusal = ask(path, "POST", "/v1/detach", b'{"pid": 0}')
    assert status == 404
    exact(json.loads(refusal), openapi()["components"]["schemas"]["Error"])


class Bridge:
    """The admin socket as a WSGI application: how schemathesis reaches it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        self.calls += 1
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(self.path)
        target = environ["PATH_INFO"].encode("latin-1")
        quoted = "".join(chr(byte) if 32 < byte < 127 and byte != 37 else f"%{byte:02X}" for byte in target)
        if environ.get("QUERY_STRING"):
            quoted += "?" + environ["QUERY_STRING"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        fields = {"Content-Type": environ.get("CONTENT_TYPE") or "application/json"}
        fields |= {
            name[5:].replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_") and name not in ("HTTP_HOST", "HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION")
        }
        try:
            connection.request(environ["REQUEST_METHOD"], quoted, body or None, fields)
            response = connection.getresponse()
            answer = response.read()
            start_response(f"{response.status} {response.reason}", response.getheaders())
        finally:
            connection.close()
        return [answer]


def test_schemathesis_finds_nothing(server: Supervisor, admin: str) -> None:
    """KE4: requests made up from the description, right and wrong ones; ``PASSENGER_TRIO_ADMIN_EXAMPLES`` says how many for each route."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    def attempt(case: Any) -> None:
        case.call_and_validate()

    bridge = Bridge(admin)
    schema = schemathesis.openapi.from_wsgi("/v1/openapi.json", bridge)
    how = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    for found in schema.get_all_operations():
        operation = found.ok()
        # One ends the server, and the other does not end.
        if operation.path in ("/v1/shutdown", "/v1/events"):
            continue
        modes = [schemathesis.GenerationMode.POSITIVE]
        if operation.method == "post":  # what is asked has nothing that could be wrong
            modes.append(schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)
            how(given(cases)(attempt))()
    assert bridge.calls > EXAMPLES


def test_a_full_queue_of_the_admin_socket_is_waited_for(tmp_path: Path) -> None:
    """KE4: the kernel refuses a caller with a time limit at once (EAGAIN) while others have not been accepted yet."""
    path = str(tmp_path / "admin.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as before:
        listener.bind(path)
        listener.listen(0)
        before.connect(path)
        with socket.socket(socket.AF_UNIX) as refused:
            refused.setblocking(False)
            with pytest.raises(BlockingIOError):
                refused.connect(path)
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(fetch_status, path)
            time.sleep(0.2)
            assert not answer.done(), answer.exception()
            with listener.accept()[0], listener.accept()[0] as caller:
                assert caller.recv(65536).startswith(b"GET /v1/status ")
                caller.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"pid":1}')
                assert answer.result(30) == {"pid": 1}
