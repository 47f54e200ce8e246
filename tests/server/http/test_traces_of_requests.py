"""OB4: a request's place in its trace (``--tracing``), with OpenTelemetry's SDK for the spans."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing
from dummy_front import Request, World, end, get, head, requests, respond, serving, simulated
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from passenger_trio.codecs.trace_context import read_traceparent
from passenger_trio.options import ServerOptions
from passenger_trio.server.tracing.spans import Spans
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
MAKE = ServerOptions(tracing="make")
OK = head() + end()


def telling(seen: list[Request]) -> Callable[[Request], bytes]:
    """A worker's answer that keeps what it was asked."""

    def answer(request: Request) -> bytes:
        seen.append(request)
        return OK

    return answer


async def ask(world: World, *fields: str, trusted: bool = True) -> None:
    client = world.connect(trusted=trusted)
    client.send(get("/a?secret", *fields))
    await client.answer()


@pytest.mark.parametrize("trusted", [True, False])
@simulated
async def test_OB4_make_passes_on_what_can_be_read(trusted: bool) -> None:
    seen: list[Request] = []
    async with serving(respond(telling(seen)), options=MAKE) as world:
        await ask(world, f"traceparent: {GOOD}", "tracestate: a=1", "tracestate: b=2", trusted=trusted)
    assert seen[0].pairs["HTTP_TRACEPARENT"] == GOOD
    assert seen[0].pairs["HTTP_TRACESTATE"] == "a=1, b=2"
    assert world.records[0].trace == (TRACE, SPAN)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("traceparent: nonsense", "tracestate: a=1"),
        ("tracestate: a=1",),
        (f"traceparent: {GOOD}", f"traceparent: {GOOD}"),
    ],
)
@simulated
async def test_OB4_make_makes_what_is_missing_or_wrong(fields: tuple[str, ...]) -> None:
    seen: list[Request] = []
    async with serving(respond(telling(seen)), options=MAKE) as world:
        await ask(world, *fields)
        client = world.connect()
        for _ in range(2):  # the second one comes with the same fields to the last byte
            client.send(get("/", *fields))
            await client.answer()
    made = [read_traceparent(request.pairs["HTTP_TRACEPARENT"].encode()) for request in seen]
    assert None not in made
    assert len({parent.trace_id for parent in made if parent}) == 3
    assert all(parent.sampled for parent in made if parent)
    assert all("HTTP_TRACESTATE" not in request.pairs for request in seen)
    assert [record.trace for record in world.records] == [(p.trace_id, p.span_id) for p in made if p]


@simulated
async def test_OB4_a_tracestate_that_cannot_be_read_goes_alone() -> None:
    seen: list[Request] = []
    async with serving(respond(telling(seen)), options=MAKE) as world:
        await ask(world, f"traceparent: {GOOD}", "tracestate: A=1")
    assert seen[0].pairs["HTTP_TRACEPARENT"] == GOOD
    assert "HTTP_TRACESTATE" not in seen[0].pairs


# -- spans ----------------------------------------------------------------------------------------------------------


def with_spans(world: World, sampler: Sampler | None = None) -> InMemorySpanExporter:
    provider = TracerProvider(shutdown_on_exit=False) if sampler is None else TracerProvider(sampler)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    world.front.tracing = Spans(api, provider, world.front.kernel, owns_provider=False)
    return exporter


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


@simulated
async def test_OB4_a_request_has_spans_and_the_application_s_are_below() -> None:
    seen: list[Request] = []
    async with serving(respond(telling(seen))) as world:
        exporter = with_spans(world)
        await ask(world, f"traceparent: {GOOD}", "tracestate: a=1")
        spans = by_name(exporter)
    server, application = spans["GET"], spans["application"]
    assert server.parent is not None
    assert (f"{server.parent.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, SPAN)
    assert server.parent.is_remote
    assert application.parent == server.context
    assert (server.kind, application.kind) == (api.SpanKind.SERVER, api.SpanKind.CLIENT)
    assert server.attributes is not None
    assert {name: server.attributes[name] for name in ("http.request.method", "url.path", "http.response.status_code")} == {
        "http.request.method": "GET",
        "url.path": "/a",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert "secret" not in str(server.attributes)
    assert application.context is not None
    below = f"00-{TRACE}-{application.context.span_id:016x}-01"
    assert seen[0].pairs["HTTP_TRACEPARENT"] == below
    assert seen[0].pairs["HTTP_TRACESTATE"] == "a=1"
    assert world.records[0].traceparent.decode() == below
    assert world.records[0].request_id.decode() == server.attributes["passenger_trio.request_id"]
    assert times(server)[0] <= times(application)[0] <= times(application)[1] <= times(server)[1]


@simulated
async def test_OB4_the_wait_in_the_queue_has_a_span_and_so_has_the_one_in_front_of_us() -> None:
    opens = trio.Event()

    async def slow(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await opens.wait()
            await trio.sleep(2)
            await stream.send_all(OK)

    async with serving(slow) as world:
        exporter = with_spans(world)
        first, second = world.connect(), world.connect()
        first.send(get("/first"))
        await trio.testing.wait_all_tasks_blocked()
        second.send(get("/second", f"X-Request-Start: t={time.time() - 30.01:.3f}"))
        await trio.testing.wait_all_tasks_blocked()
        opens.set()
        await first.answer()
        await second.answer()
    spans = [s for s in exporter.get_finished_spans() if s.name != "GET"]
    assert sorted(span.name for span in spans) == ["application", "application", "proxy queue", "queue"]
    [queue] = [span for span in spans if span.name == "queue"]
    [proxy] = [span for span in spans if span.name == "proxy queue"]
    start, stop = times(queue)
    assert stop - start == pytest.approx(world.records[1].queue_time * 1e9, abs=1e6)
    assert world.records[1].queue_time >= 2
    start, stop = times(proxy)
    assert stop - start == pytest.approx(world.records[1].proxy_time * 1e9, abs=1e6)
    assert world.records[1].proxy_time >= 30


@simulated
async def test_OB4_a_process_that_fails_is_an_error_and_each_try_has_a_span() -> None:
    tries = 0

    async def fails_once(process: DummyProcess, stream: RawStream) -> None:
        nonlocal tries
        async for _ in requests(stream):
            tries += 1
            if tries == 1:
                stream.close()
                return
            await stream.send_all(OK)

    async with serving(fails_once) as world:
        exporter = with_spans(world)
        await ask(world)
    assert world.records[0].status == 200
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["application", "application", "GET"]
    assert [span.status.is_ok for span in spans] == [False, True, True]


@simulated
async def test_OB4_what_the_sampler_drops_is_passed_on_as_dropped() -> None:
    seen: list[Request] = []
    async with serving(respond(telling(seen))) as world:
        exporter = with_spans(world, ALWAYS_OFF)
        await ask(world)
    assert not exporter.get_finished_spans()
    parent = read_traceparent(seen[0].pairs["HTTP_TRACEPARENT"].encode())
    assert parent is not None
    assert not parent.sampled


class Broken(Sampler):
    def should_sample(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        raise RuntimeError("a sampler of somebody")

    def get_description(self) -> str:
        return "broken"


@simulated
async def test_OB4_a_fault_of_the_sdk_costs_spans_and_no_request() -> None:
    seen: list[Request] = []
    async with serving(respond(telling(seen))) as world:
        with_spans(world, Broken())
        await ask(world, f"traceparent: {GOOD}")
    assert world.records[0].status == 200
    assert seen[0].pairs["HTTP_TRACEPARENT"] == GOOD
    assert world.front.kernel.faults["tracing"].count == 1


def test_OB4_opentelemetry_is_imported_only_when_it_is_on() -> None:
    program = "import sys, passenger_trio.tree, passenger_trio.fronts.process; sys.exit('opentelemetry' in str(list(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
