"""Spans of requests and of spawns, through OpenTelemetry (``--tracing spans``, OB4).

::

    GET                      server    from the first byte of the request to the last of the response
     |- proxy queue          internal  from a trusted proxy's X-Request-Start to our first byte
     |- queue                internal  the place in the pool's queue
     `- application          client    with a process; one for each process that got the request. The application's own spans are below it
    spawn                    internal  an attempt to start a process; in a trace of its own, because no request is its cause

The names of attributes are written out, so that the package of OpenTelemetry's conventions is not needed.

Spans go to the provider that the embedding program has set. If there is none, they go to a provider of ours, which exports by OTLP over HTTP and is configured
by the usual variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``, ...). A thread of the SDK sends them; ``run`` ends it.

Laws: no fault here reaches a request. If the SDK fails, spans are lost (KE1). If the collector does not answer, spans use memory up to the SDK's bound, and the end
of the server takes ``_LAST_FLUSH`` seconds longer. Only ``open_spans`` imports OpenTelemetry.
"""

from __future__ import annotations

import os
import time
from typing import Any

import trio

from passenger_trio.codecs.trace_context import TraceParent, read_trace
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.server.http.exchange import Exchange
from passenger_trio.server.tracing.tracing import drop_trace, trace_pairs
from passenger_trio.system.extras import import_extra
from passenger_trio.system.threads import NoThread, in_thread

__all__ = ["Spans", "open_spans"]

_LAST_FLUSH = 3.0
_TASK = "tracing"
_FEATURE = "--tracing spans"
_METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"])


def open_spans(kernel: ErrorKernel) -> Spans:
    """:raises MissingExtra: OpenTelemetry is not installed."""
    api = import_extra("opentelemetry.trace", "otel", _FEATURE)
    provider = api.get_tracer_provider()
    own = isinstance(provider, api.ProxyTracerProvider)
    if own:
        provider = _provider()
    return Spans(api, provider, kernel, owns_provider=own)


def _provider() -> Any:
    """A provider that is configured by the usual variables."""
    sdk = import_extra("opentelemetry.sdk.trace", "otel", _FEATURE)
    resources = import_extra("opentelemetry.sdk.resources", "otel", _FEATURE)
    export = import_extra("opentelemetry.sdk.trace.export", "otel", _FEATURE)
    otlp = import_extra("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel", _FEATURE)
    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = resources.Resource.create({} if is_named else {"service.name": "passenger_trio"})
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return provider


class Spans:
    """A ``Tracing``."""

    def __init__(self, api: Any, provider: Any, kernel: ErrorKernel, *, owns_provider: bool) -> None:
        """:param api: the module ``opentelemetry.trace``."""
        self._api = api
        self._provider = provider
        self._kernel = kernel
        self._owns_provider = owns_provider
        self._tracer = provider.get_tracer("passenger_trio")
        self._no_parent = import_extra("opentelemetry.context", "otel", _FEATURE).Context()

    async def run(self) -> None:
        """Wait until cancelled. Then send the remaining spans within ``_LAST_FLUSH`` seconds, if the provider is ours."""
        try:
            await trio.sleep_forever()
        finally:
            if self._owns_provider:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_FLUSH):
                    try:
                        await in_thread(
                            self._provider.shutdown, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
                        )
                    except NoThread:
                        pass  # the spans of the last seconds are lost

    def begin(self, exchange: Exchange, now: float) -> None:
        with self._kernel.contain(_TASK, "the request goes on without spans"):
            parent, members, _ = read_trace(exchange.head.fields)
            spans = RequestSpans(self._kernel, self._api, self._tracer, self._below(parent, members), exchange, now)
            if not spans.is_valid:
                return  # an SDK that is switched off: the fields go on as they came
            drop_trace(exchange)
            exchange.spans = spans

    def _below(self, parent: TraceParent | None, members: list[tuple[str, str]]) -> Any:
        """The context that a request's spans are in."""
        if parent is None:
            return self._no_parent
        api = self._api
        position = api.SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(parent.flags),
            trace_state=api.TraceState(members),
        )
        return api.set_span_in_context(api.NonRecordingSpan(position), self._no_parent)

    def spawned(self, app: str, method: str, outcome: str, seconds: float) -> None:
        """An attempt to start a process has ended. Raises nothing.

        :param outcome: ``ready``, ``failed`` or ``abandoned``.
        """
        with self._kernel.contain(_TASK):
            end = time.time_ns()
            span = self._tracer.start_span(
                "spawn",
                context=self._no_parent,
                attributes={
                    "passenger_trio.app": app,
                    "passenger_trio.spawn.method": method,
                    "passenger_trio.spawn.outcome": outcome,
                },
                start_time=end - int(seconds * 1e9),
            )
            if outcome == "failed":
                span.set_status(self._api.StatusCode.ERROR)
            span.end(end)


class RequestSpans:
    """The spans of one request."""

    __slots__ = ("_api", "_app", "_in_server", "_kernel", "_own", "_server", "_tracer", "_tried", "_wall")

    def __init__(
        self, kernel: ErrorKernel, api: Any, tracer: Any, context: Any, exchange: Exchange, now: float
    ) -> None:
        self._kernel = kernel
        self._api = api
        self._tracer = tracer
        self._wall = time.time() - now
        """Added to a monotonic time gives seconds since 1970."""
        self._app: Any = None
        """The span of the process that has the request."""
        self._tried = 0
        self._own = b""
        head = exchange.head
        method = head.method.decode("latin-1")
        known = method in _METHODS
        self._server = tracer.start_span(
            method if known else "HTTP",
            context=context,
            kind=api.SpanKind.SERVER,
            attributes={
                "http.request.method": method if known else "_OTHER",
                "url.path": head.path.decode("latin-1"),
                "server.address": head.host.decode("latin-1"),
                "network.protocol.version": head.version.decode("latin-1"),
                "passenger_trio.app": exchange.route.group_name,
                "passenger_trio.request_id": exchange.request_id.decode("latin-1"),
            },
            start_time=self._ns(now),
        )
        self._in_server = api.set_span_in_context(self._server, context)

    @property
    def is_valid(self) -> bool:
        """Whether the request has a trace."""
        return bool(self._server.get_span_context().is_valid)

    def _ns(self, now: float) -> int:
        return int((self._wall + now) * 1e9)

    def ask(self, exchange: Exchange, now: float) -> bytes:
        """A process is about to get the request. Returns the ``id_pairs`` for it. Raises nothing."""
        with self._kernel.contain(_TASK, "the request goes on without spans"):
            if self._app is None or self._tried != exchange.retried:
                self._end_app(now, "the process did not answer, and another one is asked")
                self._tried = exchange.retried
                self._app = self._tracer.start_span(
                    "application",
                    context=self._in_server,
                    kind=self._api.SpanKind.CLIENT,
                    attributes={"passenger_trio.app": exchange.route.group_name, "process.pid": exchange.pid},
                    start_time=self._ns(now),
                )
                position = self._app.get_span_context()
                parent = TraceParent(f"{position.trace_id:032x}", f"{position.span_id:016x}", int(position.trace_flags))
                self._own = exchange.id_pairs + trace_pairs(parent, list(position.trace_state.items()))
                exchange.traceparent = parent.encode()
        return self._own or exchange.id_pairs

    def _end_app(self, now: float, trouble: str = "") -> None:
        app, self._app = self._app, None
        if app is not None:
            if trouble:
                app.set_status(self._api.StatusCode.ERROR, trouble)
            app.end(self._ns(now))

    def finish(self, exchange: Exchange, client: str, now: float) -> None:
        """The response, or whatever ended the request, is over. Raises nothing."""
        with self._kernel.contain(_TASK):
            server, status = self._server, exchange.status
            if exchange.proxy_time:
                self._past("proxy queue", exchange.started - exchange.proxy_time, exchange.started)
            if exchange.queue_time or exchange.waiter is not None:
                waited = exchange.queue_time if exchange.waiter is None else now - exchange.queued
                self._past("queue", exchange.queued, exchange.queued + waited)
            self._end_app(now)
            server.set_attribute("http.response.status_code", status)
            server.set_attribute("client.address", client)
            if status >= 500:
                server.set_attribute("error.type", str(status))
                server.set_status(self._api.StatusCode.ERROR)
            server.end(self._ns(now))

    def _past(self, name: str, start: float, end: float) -> None:
        """Record a span that has ended already."""
        self._tracer.start_span(name, context=self._in_server, start_time=self._ns(start)).end(self._ns(end))
