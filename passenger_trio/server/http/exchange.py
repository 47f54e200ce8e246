"""An Exchange: one request and its response, while they last.

It holds what outlives one stage: a stage that is cut off by the connection's deadline (patience, a stalled write) leaves the exchange as it was, and
the next step goes on from there. Each fact has one writer: the stage that its comment names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from passenger_trio.codecs.head import Head
from passenger_trio.codecs.worker_protocol import SESSION_ENCODING, BodyEncoding, Reader
from passenger_trio.core.model import ProcessId, SessionOutcome
from passenger_trio.pool.place import Place
from passenger_trio.pool.session import Session
from passenger_trio.server.http.body_clock import BodyClock
from passenger_trio.server.mounts import Route
from passenger_trio.server.spill.spill_buffer import SpillBuffer

__all__ = ["Exchange", "Upgraded"]


class Upgraded(Protocol):
    """What a connection carries behind the response that has upgraded it: a WebSocket, or a relay of raw bytes."""

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
        """Until it is over. The session has been given back then. Raises nothing."""

    def end_soon(self) -> None:
        """The server is to end: it has a last time to end by itself."""

    def send_final_close(self) -> None:
        """The connection is about to be closed: tell the client why, if that can be done at once."""

    def record_end(self) -> None:
        """The access log's record of it. Idempotent."""


class Exchange:
    """One request and its response."""

    # What most requests never touch is a value of the class: an exchange is made for every request, and 25 stores cost as much as a look into the pool.

    # buffer_body
    body_clock: BodyClock | None = None
    """Made when the client is waited for; goes on where the body is sent on while it arrives."""
    body = b""
    coming = 0
    """Bytes of it that are here already, while the rest is waited for."""
    upload: SpillBuffer | None = None
    """The request body instead of ``body``, if it is too long for memory."""
    # checkout_session
    session: Session | None = None
    place: Place | None = None
    """The place in the queue, while it waits in one."""
    queued = 0.0
    """When it was taken, in monotonic seconds."""
    queue_time = 0.0
    pid = 0
    # send_request, pump
    wants_websocket = False
    """Whether the process that has the request was asked for a WebSocket, and may accept it."""
    framing: BodyEncoding = SESSION_ENCODING
    """How what is left of the body is written to the process that has the head."""
    unsent: bytes | memoryview = b""
    """What of the request the kernel has not taken yet."""
    sent = False
    """Whether the process that is borrowed was given the request, as far as it was here and the kernel took it."""
    body_sent = False
    """Whether the process has the whole request, so that its stream is at a boundary when the response ends."""
    retried = 0
    avoided: ProcessId | None = None
    """A process that left the request unanswered: another one is to have it."""
    unreachable = 0
    """Processes that could not be reached for this request."""
    # forward_response
    reader: Reader | None = None
    unread: bytes = b""
    """What the process sent and ``reader`` was not given yet: it may hold more pieces than one step can take."""
    answered = False
    """Whether the response is whole; ``tail`` is what the client has still to take of it."""
    tail: bytes | memoryview = b""
    behind = 0
    """Body bytes in it."""
    response_begun = False
    """Whether a byte of the final response was given to the client's connection."""
    status = 0
    bytes_sent = 0
    """Response body bytes given to the client's connection."""
    buffer: SpillBuffer | None = None
    """What the client has not taken yet, in the slow path."""
    spilled = 0
    """Bytes that were on disk on their way, in either direction."""
    # pump, upgrade
    end_soon: Callable[[], None] | None = None
    """Tells the response, which has no end by itself, that it has to come to one."""
    ended_early = False
    """Whether the response has ended although the process goes on with it, and is to be told so."""
    upgraded = False
    """Whether the application has taken the connection over: from there the process's stream carries raw bytes."""
    relay: Upgraded | None = None

    def __init__(self, head: Head, route: Route, request_id: bytes, started: float) -> None:
        self.head = head
        self.route = route
        self.request_id = request_id
        self.started = started
        self.body_whole = not head.has_body
        """Whether ``body``, or ``upload``, is the whole request body; then it can be sent again."""
        # What several ways set, each in its own order, is set here first: then all exchanges have one layout, whatever becomes of them. PyPy's compiler gives up on
        # a way on which the layout of an object with floats is put into another order, and half of a request's time went there; CPython does not mind these stores.
        self.session = None
        self.place = None
        self.queued = 0.0
        self.queue_time = 0.0
        self.pid = 0
        self.status = 0
        self.response_begun = False
        self.bytes_sent = 0

    def client(self, peer: str) -> str:
        """Whose request it is: the ``peer``'s, unless that is a proxy which says more (ED1)."""
        origin = self.head.origin
        return peer if origin is None else origin.client or peer

    def hold(self, session: Session) -> None:
        """A process is borrowed."""
        self.session = session
        self.pid = session.pid
        route = self.route
        if route.unlimited_paths and route.is_unlimited(self.head.path):
            session.set_unbounded()

    def new_reader(self, session: Session) -> Reader:
        """What reads the response of the process."""
        head = self.head
        return session.worker_protocol.reader(head.method, upgrade=bool(head.upgrade), websocket=self.wants_websocket)

    def give_back(self, outcome: SessionOutcome, *, keep_stream: bool = False) -> None:
        """End the session, if there is one still."""
        session, self.session = self.session, None
        self.sent = False
        if session is not None:
            session.close(outcome, keep_stream=keep_stream)

    def drop_upload(self) -> None:
        """The request body is not wanted any more: free its memory and disk."""
        upload, self.upload = self.upload, None
        if upload is not None:
            self.spilled += upload.spilled
            upload.close()

    def release_body(self) -> None:
        """Free the request body as soon as nobody can want it again: the process has all of it, and it will be sent to no other (R30)."""
        if self.body_sent and not self.repeatable:
            self.body = b""
            self.drop_upload()

    def buffered(self) -> tuple[int, int, int, int]:
        """Bytes that are held for it: of the request in memory and on disk, of the response in memory and on disk."""
        up = [len(self.body) + self.coming + len(self.unsent), 0]
        down = [len(self.unread) + len(self.tail), 0]
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
