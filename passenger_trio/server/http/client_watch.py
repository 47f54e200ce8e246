"""The client watch: notices that a client which waits for its response has left. It takes no task: the poller calls it.

Bytes that the client sends ahead meanwhile are read, up to a limit and no further (R31): a hang-up cannot be seen behind unread bytes. A half-close is no hang-up: a
client that has sent all it had still waits for its answer (R28). A client that has closed altogether looks the same at first. That is found out when something is
written to it (``half_closed`` is called so that this can be done), or in a minute or so by the kernel's probes (``RawStream.probe_peer``), which send nothing to the client.

Law: between ``begin`` and ``end`` nothing else reads from the client. After ``gone`` was called, nothing is called any more.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from passenger_trio.server.http.client import Client
from passenger_trio.server.http.stage import READ_AHEAD
from passenger_trio.system.poller import HUNG_UP, READABLE

__all__ = ["ClientWatch"]


class ClientWatch:
    """:param gone: called when the client's connection broke; must neither wait nor raise.
    :param half_closed: the same, when the client has ended its side.
    """

    __slots__ = ("_client", "_ended", "_gone", "_half_closed", "_reads")

    def __init__(self, client: Client, gone: Callable[[], None], half_closed: Callable[[], None] | None = None) -> None:
        self._half_closed = half_closed
        self._client = client
        self._gone = gone
        self._reads = False
        """Whether bytes of the client are read."""
        self._ended = False

    def begin(self) -> None:
        """Watch. Does nothing after ``end``: the sending of a request body may be done only when the response is over."""
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
            # Then it is found out when something is written to it.
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
