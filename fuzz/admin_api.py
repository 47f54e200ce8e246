"""Whatever is sent to the admin API, whole or cut anywhere: the same request, a refusal with a documented status, or nothing; an answer to it can be read.

The input is what a caller sends on one connection, ended by its end of file. Run: ``python fuzz/admin_api.py --seconds 60``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h11

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "codecs")]

from admin_requests import read  # noqa: E402
from driver import main  # noqa: E402

from passenger_trio.admin.routes import find_route, openapi  # noqa: E402
from passenger_trio.codecs.admin_answer import decode_answer  # noqa: E402
from passenger_trio.codecs.admin_api import AdminRequest, encode_answer, read_order  # noqa: E402
from passenger_trio.errors import AdminRefused  # noqa: E402

CORPUS = HERE / "corpora" / "admin_api"
TYPES = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,)}


def admin_api(data: bytes) -> None:
    try:
        assert 100 <= decode_answer(data)[0] <= 599  # the same bytes, as an answer
    except ValueError:
        pass
    outcome = read([data])
    for size in (1, 2, 7, 100):
        assert read([data[at : at + size] for at in range(0, len(data), size)]) == outcome, size
    if not isinstance(outcome, AdminRequest):
        assert outcome in ("left", 400, 413)
        return
    status, answer, allow = 200, {}, ""
    try:
        route = find_route(outcome.method, outcome.path)
        assert str(status) in openapi()["paths"][route.path][route.method.lower()]["responses"]
        if route.method == "POST":
            order = read_order(outcome.body, route.order)
            for name, value in order.items():
                assert type(value) in TYPES[route.order[name].kind]
            assert all(name in order for name, field in route.order.items() if field.is_needed)
    except AdminRefused as refused:
        status, answer, allow = refused.status, {"error": str(refused)}, refused.allow
    assert status in (200, 404, 405, 422)
    assert bool(allow) == (status == 405)
    _can_be_read(outcome.method, encode_answer(status, answer, is_head=outcome.method == "HEAD", allow=allow))


def _can_be_read(method: str, answer: bytes) -> None:
    if method != "HEAD":
        assert json.loads(decode_answer(answer)[1]) is not None
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Response | h11.Data), event
        body += event.data if isinstance(event, h11.Data) else b""
    assert bool(body) != (method == "HEAD")
    assert client.trailing_data[0] == b""


if __name__ == "__main__":
    main(admin_api, CORPUS)
