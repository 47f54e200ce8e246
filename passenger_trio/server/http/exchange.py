"""An Exchange: one request and its response, while they last.

It holds everything that outlives one stage. The connection's deadline may cancel a stage (the fast path's timeout, a stalled
write). The next step then continues from the state in which the stage left the exchange.

Law: a field is written by the modules that the heading above it names, and by no other
(``tests/server/http/test_who_writes.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.request_id import request_id_of
from passenger_trio.codecs.worker_protocol import SESSION_ENCODING, BodyEncoding, Reader
from passenger_trio.core.model import ProcessId, SessionOutcome
from passenger_trio.pool.session import Session
from passenger_trio.pool.waiter import Waiter
from passenger_trio.server.http.body_clock import BodyClock
from passenger_trio.server.mounts import Route
from passenger_trio.server.spill.spill_buffer import SpillBuffer

__all__ = ["Exchange", "Spans", "Upgraded"]

_SECURE = (b"https", b"wss")


class Upgraded(Protocol):
    """A connection after the response that has upgraded it: a WebSocket, or a relay of raw bytes. The driver knows only these methods."""

    @property
    def active(self) -> float:
        """When something last passed, in monotonic seconds."""

    @property
    def bytes_up(self) -> int:
        """Bytes from the client."""

    @property
    def bytes_down(self) -> int:
        """Bytes to the client, behind the head of the response."""

    @property
    def lingers(self) -> bool:
        """Whether the client's connection is still open when ``run`` returns."""

    async def run(self) -> None:
        """Forward bytes until both sides have ended, and give the session back. Raises nothing but cancellation."""

    def end_soon(self) -> None:
        """The server is about to end: both sides get a last time to end by themselves."""

    def send_final_close(self) -> None:
        """The connection is about to be closed: tell the client why, if that can be done at once."""

    def record_end(self) -> None:
        """Give the access log its record of the connection. Idempotent."""


class Spans(Protocol):
    """The spans of a request, if spans are made (``tracing/spans.py``)."""

    def ask(self, exchange: Exchange, now: float) -> bytes:
        """A process is about to get the request. Returns the ``id_pairs`` for it."""

    def finish(self, exchange: Exchange, client: str, now: float) -> None:
        """The response, or whatever ended the request, is over. :param client: the client's address."""


class Exchange:
    """One request and its response."""

    # Fields that most requests never touch are values of the class: an exchange is made for every request, and 25 stores cost as much as a look into the pool.

    # Written by: init_request
    proxy_time: float = 0.0
    """Seconds that the request has waited before it reached this server, as a trusted proxy says."""
    sticky_route: bytes = b""
    """The route of the client's process, as its cookie names it."""

    # Written by: tracing, spans
    id_pairs: bytes
    """HTTP_X_REQUEST_ID, HTTP_X_REQUEST_START and what tracing adds, for the application: names and values, each ended by NUL (``codecs/request_id``)."""
    traceparent: bytes = b""
    """The position in a trace that was made here; ``b""``: none was."""
    spans: Spans | None = None

    # Written by: buffer_body
    body_clock: BodyClock | None = None
    """Made when the client is first waited for; ``send_body`` goes on with it."""
    body: bytes = b""
    """The request body, as far as it has arrived."""
    coming: int = 0
    """Bytes of the body that have arrived already, while ``buffer_body`` waits for the rest."""
    upload: SpillBuffer | None = None
    """The request body instead of ``body``, if it is too long for memory."""
    body_whole: bool
    """Whether ``body``, or ``upload``, is the whole request body; then it can be sent again."""

    # Written by: checkout_session, fast_path
    session: Session | None = None
    """The borrowed process."""
    waiter: Waiter | None = None
    """The place in the pool's queue, while the request waits."""
    queued: float = 0.0
    """When the place was taken, in monotonic seconds."""
    queue_time: float = 0.0
    """Seconds that the request has waited in the queue."""
    pid: int = 0
    """The pid of the process that was borrowed last; 0: none was."""

    # Written by: fast_path, send_request, connection
    asked: float = 0.0
    """When the process was given the request, in monotonic seconds; 0: not yet, or the request is on the fast path, where ``Client.since`` holds this time."""

    # Written by: fast_path
    app_time: float = 0.0
    """Seconds for which the last process had the request, until it was free again; 0: there was none. On the slow path ``stop_app_time`` sets it."""

    # Written by: send_request
    wants_websocket: bool = False
    """Whether the request to the process asks for a WebSocket, so that the process may accept it."""
    framing: BodyEncoding = SESSION_ENCODING
    """How the rest of the body is encoded for the process that has the head."""
    sent: bool = False
    """Whether the request was written to the borrowed process, as far as it had arrived and the kernel took it."""
    unreachable: int = 0
    """Processes that could not be reached for this request."""

    # Written by: send_request, send_body
    unsent: bytes | memoryview = b""
    """Bytes of the request that the kernel has not taken yet."""
    body_sent: bool = False
    """Whether the process has the whole request, so that its stream is at a boundary when the response ends."""

    # Written by: forward_response
    retried: int = 0
    """How often the request was sent again after a process had left it unanswered (R30)."""
    avoided: ProcessId | None = None
    """The process that left it unanswered."""

    # Written by: fast_path, forward_response, response_forwarder, websocket
    reader: Reader | None = None
    """Parses the response of the process."""

    # Written by: fast_path, connection
    answered: bool = False
    """Whether the response is complete. The client still has to take ``tail``."""
    tail: bytes | memoryview = b""
    behind: int = 0
    """Body bytes in ``tail``."""

    # Written by: fast_path, response_events, response_forwarder, answer_errors
    response_begun: bool = False
    """Whether a byte of the final response was given to the client's connection."""

    # Written by: fast_path, response_events, response_forwarder, answer_errors, end_connection, connection, relay, websocket
    status: int = 0
    """The status of the response; 0: there is none yet."""
    bytes_sent: int = 0
    """Response body bytes given to the client's connection."""

    # Written by: response_events, response_forwarder
    buffer: SpillBuffer | None = None
    """Bytes that the client has not taken yet, on the slow path."""
    spilled: int = 0
    """Bytes that were on disk on their way, in either direction."""
    end_soon: Callable[[], None] | None = None
    """Ends a response that has no end by itself, an event stream, after a time."""
    ended_early: bool = False
    """Whether the response was ended although the process goes on with it. The process must still be told."""
    upgraded: bool = False
    """Whether the application has taken the connection over: from there the process's stream carries raw bytes."""

    # Written by: response_events, forward_response
    relay: Upgraded | None = None
    """The upgraded connection, after a response that upgrades it."""

    def __init__(self, head: Head, route: Route, id_pairs: bytes, started: float) -> None:
        self.head = head
        self.route = route
        self.id_pairs = id_pairs
        self.started = started
        self.body_whole = not head.has_body
        # Fields that stages set in different orders are set here first: then all exchanges have one layout. PyPy's compiler gives up on a path on which the layout of
        # an object with floats comes in another order, and half of a request's time went there. CPython does not mind these stores.
        self.session = None
        self.waiter = None
        self.queued = 0.0
        self.queue_time = 0.0
        self.pid = 0
        self.status = 0
        self.response_begun = False
        self.bytes_sent = 0

    @property
    def request_id(self) -> bytes:
        """The request's id. The same one is in logs, on error pages, and in the application's ``X-Request-Id``."""
        return request_id_of(self.id_pairs)

    def sticky_fields(self, session: Session) -> list[tuple[bytes, bytes]]:
        """The fields that set the cookie of a sticky session, unless the client has it already (OP13)."""
        cookie, route = self.route.sticky, session.process.route
        if cookie is None or self.sticky_route == route:
            return []
        origin = self.head.origin
        return [cookie.field(route, secure=origin is not None and origin.scheme in _SECURE)]

    def client(self, peer: str) -> str:
        """The address of the client: the ``peer``, unless that is a trusted proxy which names another (ED1)."""
        origin = self.head.origin
        return peer if origin is None else origin.client or peer

    def use_session(self, session: Session) -> None:
        """Keep the session of a process that was borrowed."""
        self.session = session
        self.pid = session.pid
        route = self.route
        if route.unlimited_paths and route.is_unlimited(self.head.path):
            session.set_uncounted()

    def new_reader(self, session: Session) -> Reader:
        """A parser for the response of the process."""
        head = self.head
        return session.worker_protocol.reader(head.method, upgrade=bool(head.upgrade), websocket=self.wants_websocket)

    def give_back(self, outcome: SessionOutcome, *, keep_stream: bool = False) -> None:
        """End the session, if it has not ended yet."""
        self.stop_app_time()
        session, self.session = self.session, None
        self.sent = False
        if session is not None:
            session.close(outcome, keep_stream=keep_stream)

    def stop_app_time(self) -> None:
        """The process is free, or the request is over. Idempotent."""
        if self.asked and self.session is not None:
            self.app_time = self.session.now - self.asked
        self.asked = 0.0

    def drop_upload(self) -> None:
        """Free the memory and disk of the request body, which is not needed any more."""
        upload, self.upload = self.upload, None
        if upload is not None:
            self.spilled += upload.spilled
            upload.close()

    def release_body(self) -> None:
        """Free the request body if the process has all of it, and no other process will be sent it (R30)."""
        if self.body_sent and not self.repeatable:
            self.body = b""
            self.drop_upload()

    def buffered(self) -> tuple[int, int, int, int]:
        """Buffered bytes: of the request in memory and on disk, of the response in memory and on disk."""
        up = [len(self.body) + self.coming + len(self.unsent), 0]
        down = [len(self.tail), 0]
        for held, buffer in ((up, self.upload), (down, self.buffer)):
            if buffer is not None:
                held[0] += buffer.ledger.memory
                held[1] += buffer.ledger.file_length
        return up[0], up[1], down[0], down[1]

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent to another process although one has had it (R30)."""
        return (
            self.body_whole
            and not self.response_begun
            and self.retried == 0
            and self.head.method in self.route.retried_methods
        )
