"""OB4 on a real server: OpenTelemetry's protocol to a collector, from the fronts and from the pool; the trace goes through the application.

Starts the command: its own spans are the subject.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from faces_tools import BEHAVIOURS
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """What a collector of OpenTelemetry gets over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in told.resource_spans:
                    named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
                    collector.services.add(named["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever)

    def __enter__(self) -> Collector:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def env(self, delay: int) -> dict[str, str]:
        """:param delay: milliseconds between two exports."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.http.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": str(delay),
        }

    def of(self, trace: str) -> dict[str, Span]:
        """The spans of one trace by name."""
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace}


def attributes(span: Span) -> dict[str, object]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def server(collector: Collector) -> Iterator[Supervisor]:
    options = ("--tracing", "spans", "--fronts", "2", "--access-log-format", "json", "--health-path", "/")
    with Supervisor.start(BEHAVIOURS, *options, env={**collector.env(100), "OTEL_SERVICE_NAME": "shop"}) as running:
        yield running


def test_OB4_a_request_s_spans_come_to_the_collector(server: Supervisor, collector: Collector) -> None:
    told = json.loads(
        server.get("/environ?traced", traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=1", X_Request_ID="mine").body
    )
    eventually(lambda: {"GET", "application"} <= set(collector.of(TRACE)))
    found = collector.of(TRACE)
    top, app = found["GET"], found["application"]
    assert top.parent_span_id.hex() == SPAN
    assert app.parent_span_id == top.span_id
    assert told["HTTP_TRACEPARENT"] == f"00-{TRACE}-{app.span_id.hex()}-01"
    assert told["HTTP_TRACESTATE"] == "a=1"
    assert (top.kind, app.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert attributes(top)["url.path"] == "/environ"
    assert attributes(top)["http.response.status_code"] == 200
    assert attributes(top)["passenger_trio.request_id"] == told["HTTP_X_REQUEST_ID"] == "mine"
    assert attributes(app)["process.pid"] in server.pids
    assert top.start_time_unix_nano <= app.start_time_unix_nano < app.end_time_unix_nano <= top.end_time_unix_nano
    line = json.loads(server.wait_access_log("traced"))
    assert (line["trace_id"], line["span_id"], line["request_id"]) == (TRACE, app.span_id.hex(), "mine")


def test_OB4_a_spawn_has_a_span(server: Supervisor, collector: Collector) -> None:
    eventually(lambda: any(span.name == "spawn" for span in collector.spans))
    spawn = next(span for span in collector.spans if span.name == "spawn")
    assert attributes(spawn)["passenger_trio.app"] == "behaviours"
    assert attributes(spawn)["passenger_trio.spawn.outcome"] == "ready"
    assert not spawn.parent_span_id
    assert spawn.end_time_unix_nano > spawn.start_time_unix_nano
    assert collector.services == {"shop"}


def test_OB4_an_error_of_the_application_is_one_of_its_span(server: Supervisor, collector: Collector) -> None:
    trace = TRACE[::-1]
    server.get("/raise", traceparent=f"00-{trace}-{SPAN}-01")
    eventually(lambda: "GET" in collector.of(trace))
    top = collector.of(trace)["GET"]
    assert top.status.code == Status.STATUS_CODE_ERROR
    assert attributes(top)["error.type"] == "500"


def test_OB3_a_front_tells_the_health_of_the_whole_server(server: Supervisor) -> None:
    """On the same server: it has several fronts."""
    told = server.get("/readyz?verbose")
    assert (told.status, told.text) == (200, "[+]started ok\n[+]accepting ok\n[+]capacity ok\nreadyz check passed\n")
    assert server.get("/livez?verbose").text == "[+]loop ok\nlivez check passed\n"
    assert server.get("/startupz").text == "ok\n"
    os.kill(server.pid, signal.SIGSTOP)
    try:
        eventually(lambda: server.get("/readyz").status == 503)
        assert server.get("/livez").status == 200
    finally:
        os.kill(server.pid, signal.SIGCONT)
    eventually(lambda: server.get("/readyz").status == 200)


def test_OB4_the_last_spans_are_sent_before_the_server_ends() -> None:
    """The delay between two exports is longer than the server lives."""
    with Collector() as collector:
        with Supervisor.start(BEHAVIOURS, "--tracing", "spans", env=collector.env(600_000)) as server:
            assert server.get("/pid").status == 200
            assert not collector.spans
        assert {span.name for span in collector.spans} == {"GET", "application", "spawn"}
        assert collector.services == {"passenger_trio"}
