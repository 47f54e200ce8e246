"""The client watch notices that a client has left while it waits for its response. It takes no task: the poller calls it.

* A hang-up cannot be seen behind unread bytes. So bytes that the client sends ahead are read, up to a limit (R31).
* A half-close is not a hang-up: the client may have sent everything, and wait for its answer (R28).
* A client that closed its socket altogether looks like a half-close at first. Writing to it shows the difference:
  ``half_closed`` is called so that a caller can do that. Else the kernel's probes show it within about a minute
  (``RawStream.probe_peer``); they send no bytes to the client.

Law: between ``begin`` and ``end`` nothing else reads from the client. After ``gone`` was called, nothing is called any
more."""

from __future__ import annotations

from collections.abc import Callable

import trio

from passenger_trio.core.buffer_sizes import READ_AHEAD
from passenger_trio.server.http.client import Client
from passenger_trio.system.poller import HUNG_UP, READABLE

__all__ = ["ClientWatch"]


class ClientWatch:
    """:param gone: called when the client's connection broke; must neither wait nor raise.
    :param half_closed: called when the client has ended its side; must neither wait nor raise.
    """

    __slots__ = ("_client", "_ended", "_gone", "_half_closed", "_reads")

    def __init__(self, client: Client, gone: Callable[[], None], half_closed: Callable[[], None] | None = None) -> None:
        self._half_closed = half_closed
        self._client = client
        self._gone = gone
        self._reads = False
        """Whether the watch reads bytes that the client sends ahead."""
        self._ended = False

    def begin(self) -> None:
        """Watch. Does nothing after ``end``, because a request body may be sent completely only after the response is over."""
        if self._ended:
            return
        client = self._client
        stream = client.stream
        self._reads = self._has_room
        if client.codec.peer_closed:
            self._notice_end()
        try:
            stream.registration = client.front.poller.register(
                stream.fd, READABLE if self._reads else 0, self.on_readable, client.give_up
            )
        except OSError as error:
            # Then the next write to the client shows whether it has left.
            client.front.warn_rarely(f"cannot watch a client's socket: {error.strerror}")

    def end(self) -> None:
        """Stop for good. Idempotent."""
        self._ended = True
        self._client.stream.unregister()

    @property
    def _has_room(self) -> bool:
        codec = self._client.codec
        return codec.buffered < READ_AHEAD and not codec.peer_closed

    def on_readable(self, events: int) -> None:
        codec, stream = self._client.codec, self._client.stream
        if self._reads:
            try:
                codec.receive(stream.recv_nowait(READ_AHEAD - codec.buffered))
            except trio.WouldBlock:
                return
            except trio.BrokenResourceError:
                self._leave()
                return
            if not self._has_room and stream.registration is not None:
                self._reads = False
                stream.registration.modify(0)
                if codec.peer_closed:
                    self._notice_end()
        elif events & HUNG_UP:
            self._leave()

    def _notice_end(self) -> None:
        self._client.stream.probe_peer()
        if self._half_closed is not None:
            self._half_closed()

    def _leave(self) -> None:
        self.end()
        self._gone()
