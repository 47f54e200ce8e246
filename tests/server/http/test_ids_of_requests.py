"""OB4: the id and the start of a request are the same for the application, the log and the error page; a proxy's word counts if it is trusted."""

from __future__ import annotations

import re
import time

import pytest
from dummy_front import Request, World, end, get, head, respond, serving, simulated

from passenger_trio.server.logs.access_format import format_combined, format_json
from passenger_trio.server.logs.access_record import AccessRecord

OURS = r"[0-9a-f]{8}-[0-9a-f]+"


async def ask(world: World, seen: list[Request], *fields: str, trusted: bool) -> tuple[dict[str, str], AccessRecord]:
    """What the application and the log got of one request."""
    client = world.connect(trusted=trusted)
    client.send(get("/", *fields))
    await client.answer()
    return seen[-1].pairs, world.records[-1]


@pytest.mark.parametrize("trusted", [True, False])
@simulated
async def test_OB4_who_is_trusted_names_the_request_and_says_since_when_it_waits(trusted: bool) -> None:
    seen: list[Request] = []
    start = f"t={time.time() - 2.01:.3f}"
    async with serving(respond(lambda request: seen.append(request) or head() + end())) as world:  # type: ignore[func-returns-value]
        pairs, record = await ask(world, seen, "X-Request-ID: theirs", f"X-Request-Start: {start}", trusted=trusted)
    assert (pairs["HTTP_X_REQUEST_ID"] == "theirs") is trusted
    assert (pairs["HTTP_X_REQUEST_START"] == start) is trusted
    assert record.request_id.decode() == pairs["HTTP_X_REQUEST_ID"]
    assert (2 <= record.proxy_time < 300) is trusted
    assert (b" proxy=" in format_combined(record)) is trusted
    assert (b'"proxy_time":' in format_json(record)) is trusted


@pytest.mark.parametrize(
    "fields", [(), ("X-Request-ID: a b", "X-Request-Start: now"), ("X-Request-ID: a", "X-Request-ID: b")]
)
@simulated
async def test_OB4_what_is_not_said_is_made(fields: tuple[str, ...]) -> None:
    seen: list[Request] = []
    before = time.time()
    async with serving(respond(lambda request: seen.append(request) or head() + end())) as world:  # type: ignore[func-returns-value]
        pairs, record = await ask(world, seen, *fields, trusted=True)
        others, _ = await ask(world, seen, *fields, trusted=True)
    assert re.fullmatch(OURS, pairs["HTTP_X_REQUEST_ID"])
    assert pairs["HTTP_X_REQUEST_ID"] != others["HTTP_X_REQUEST_ID"]
    made = re.fullmatch(r"t=([0-9]{10}\.[0-9]{6})", pairs["HTTP_X_REQUEST_START"])
    assert made is not None
    assert before - 1e-5 <= float(made[1]) <= time.time()
    assert record.proxy_time == 0


@simulated
async def test_OB4_requests_of_one_connection_are_told_apart() -> None:
    """The fields are the same to the last byte but for one of them, and then to the last byte."""
    seen: list[Request] = []
    async with serving(respond(lambda request: seen.append(request) or head() + end())) as world:  # type: ignore[func-returns-value]
        client = world.connect(trusted=True)
        for id in ("first", "second", "second"):
            client.send(get("/", f"X-Request-ID: {id}"))
            await client.answer()
        for _ in range(2):
            client.send(get("/"))
            await client.answer()
    ids = [request.pairs["HTTP_X_REQUEST_ID"] for request in seen]
    assert ids[:3] == ["first", "second", "second"]
    assert len(set(ids)) == 4


@simulated
async def test_OB4_a_trace_passes_and_its_ids_are_in_the_log() -> None:
    seen: list[Request] = []
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    fields = (f"traceparent: 00-{trace}-{span}-00", "tracestate: a=1")
    async with serving(respond(lambda request: seen.append(request) or head() + end())) as world:  # type: ignore[func-returns-value]
        for trusted in (True, False):
            pairs, record = await ask(world, seen, *fields, trusted=trusted)
            assert pairs["HTTP_TRACEPARENT"] == fields[0][13:]
            assert pairs["HTTP_TRACESTATE"] == "a=1"
            assert record.trace == (trace, span)
            assert f" trace={trace}".encode() in format_combined(record)
            assert f'"trace_id":"{trace}","span_id":"{span}"'.encode() in format_json(record)
        _, record = await ask(world, seen, "traceparent: nonsense", trusted=True)
    assert record.trace == ("", "")
    assert b"trace" not in format_combined(record) + format_json(record)
