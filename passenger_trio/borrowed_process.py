"""A process that a program has borrowed from its pool, and the requests that it sends to the process (LI5).

The loan is the pool's ``Session``: until it is given back, it takes one place of the application's concurrency. The
program sends requests, one after another, or opens a stream of its own to a process that speaks another protocol.

Laws: a loan ends exactly once. If the program leaves a request before its response is complete, its loan ends. The
process counts as busy until it has noticed (``finish``); no task of the program waits for that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count

import trio

from passenger_trio.app_response import AppResponse, Fields, named
from passenger_trio.codecs.head import Head
from passenger_trio.codecs.request_id import make_id_pairs
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import (
    AppResponseError,
    IncompleteResponse,
    MalformedResponse,
    ProcessUnreachable,
    RequestTimeExceeded,
)
from passenger_trio.pool.session import Session
from passenger_trio.spawning.worker_client import WorkerExchange

__all__ = ["BorrowedProcess"]

_PAIRS = (
    b"REQUEST_SCHEME\0http\0SERVER_NAME\0localhost\0SERVER_PORT\x0080\0REMOTE_ADDR\0\0REMOTE_PORT\0\0SERVER_SOCKET\0\0"
)
"""A request of a program has no address, and none is invented (ED2)."""
_IDS = count(1)


class BorrowedProcess:
    """``RunningPool.checkout`` makes it. For one task at a time."""

    def __init__(self, session: Session, script_name: str, finish: Callable[[Session, SessionOutcome], None]) -> None:
        self._session = session
        self._script_name = script_name.rstrip("/")
        self._finish = finish
        self._busy = False
        self._outcome = SessionOutcome.NOT_STARTED
        self._streams: list[trio.SocketStream] = []

    @property
    def pid(self) -> int:
        return self._session.pid

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, headers: Fields = (), body: bytes = b""
    ) -> AsyncIterator[AppResponse]:
        """Send the process a request: ``async with process.request("POST", "/job", body=job) as response``.

        :param path: below the application's mount, with the query, as it stands in a URL.
        :raises ApplicationRaised: the application raised before it sent a response head.
        :raises IncompleteResponse: the process ended before its response was complete.
        :raises RequestTimeExceeded: it lasted longer than ``max_request_time``.
        :raises AppResponseError: the process could not be reached, or its response is invalid.
        :raises trio.BusyResourceError: the last request has not been read to its end.
        """
        if self._busy:
            raise trio.BusyResourceError("the response to the last request has not been read to its end")
        session = self._session
        self._busy = True
        try:
            stream = session.stream or session.connect_nowait(new=True)
        except ProcessUnreachable:
            self._outcome = SessionOutcome.PROCESS_FAILED
            raise
        exchange = WorkerExchange(stream, session.worker_protocol)
        self._outcome = SessionOutcome.DONE
        failure: BaseException | None = None
        async with trio.open_nursery() as sending:
            head = _head(method, self._script_name + path, headers, body)
            pairs, id_pairs = _PAIRS, make_id_pairs(b"program-%x" % next(_IDS), b"")
            sending.start_soon(exchange.send, head, pairs, self._script_name.encode(), id_pairs, body)
            try:
                response = await exchange.head()
                yield AppResponse(response.status, named(response.fields), exchange.piece)
            except trio.Cancelled:
                raise
            except AppResponseError as error:
                failure = self._judge(error, exchange)
            except BaseException as error:  # noqa: BLE001  the program's own, raised below, outside of the nursery's group
                failure = error
            sending.cancel_scope.cancel()
        if exchange.complete:
            self._busy = False
            if not (exchange.keeps_stream and session.worker_protocol.keeps_idle):
                session.drop_stream()
        if failure is not None:
            raise failure

    def _judge(self, error: AppResponseError, exchange: WorkerExchange) -> AppResponseError:
        """The outcome of a session with a failed response, for the pool."""
        if isinstance(error, MalformedResponse):
            self._outcome = SessionOutcome.PROCESS_FAILED
        elif isinstance(error, IncompleteResponse):
            if self._session.is_overdue:
                return RequestTimeExceeded("the request lasted too long, and its process was ended")
            self._outcome = SessionOutcome.BROKEN_OFF if exchange.begun else SessionOutcome.UNANSWERED
        return error

    def open_stream(self) -> trio.SocketStream:
        """A stream to the process, for a program with a protocol of its own (type ``generic``). Giving the process back closes it.

        :raises ProcessUnreachable: the process does not accept a connection.
        """
        try:
            raw = self._session.process.live.connect_nowait()
        except OSError as error:
            raise ProcessUnreachable(f"process {self.pid} does not accept a connection: {error.strerror}") from error
        self._outcome = SessionOutcome.DONE
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw.socket))
        self._streams.append(stream)
        return stream

    def give_back(self) -> None:
        """End the loan. Idempotent. Called when the block of ``checkout`` is left."""
        for stream in self._streams:
            stream.socket.close()
        session = self._session
        if self._busy and self._outcome is SessionOutcome.DONE and session.stream is not None:
            self._finish(session, SessionOutcome.CLIENT_GONE)  # the process may still be at it
        elif self._outcome in (SessionOutcome.UNANSWERED, SessionOutcome.BROKEN_OFF):
            self._finish(session, self._outcome)  # it has ended, or is about to
        else:
            session.close(self._outcome)


def _head(method: str, target: str, headers: Fields, body: bytes) -> Head:
    fields = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in _pairs(headers)]
    given = {name.lower() for name, _ in fields}
    if b"host" not in given:
        fields.insert(0, (b"Host", b"localhost"))
    if body and b"content-length" not in given:
        fields.append((b"Content-Length", b"%d" % len(body)))
    raw = target.encode("utf-8", "surrogateescape")
    path, _, query = raw.partition(b"?")
    host = next(value for name, value in fields if name.lower() == b"host")
    return Head(method.encode("ascii"), raw, path, query, b"1.1", host, fields, len(body) if body else None)


def _pairs(headers: Fields) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)
