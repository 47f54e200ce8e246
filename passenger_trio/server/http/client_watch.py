"""Watching a client that waits for its response: whether it is still there. It takes no task: the poller tells.

What it sends ahead meanwhile is read, up to a limit, and no byte more (R31), for a hang-up cannot be told from what stands before it. A half-close is none: who has said all that he
has to say still waits for an answer (R28). One who has closed altogether looks the same at first, and is found out when something is written to him (``half_closed`` is who can do that), or
in a minute or so by the kernel's probes (``RawStream.probe_peer``), which say nothing to the client.

Law: between ``begin`` and ``end`` nobody else reads from the client. After it was told once, nothing more is.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from passenger_trio.server.http.client import Client
from passenger_trio.server.http.stage import READ_AHEAD
from passenger_trio.system.poller import HUNG_UP, READABLE

__all__ = ["ClientWatch"]


class ClientWatch:
    """:param gone: called when the client's connection broke; it neither waits nor raises.
    :param half_closed: the same, when the client has ended its side.
    """

    __slots__ = ("_client", "_ended", "_gone", "_half_closed", "_reads")

    def __init__(self, client: Client, gone: Callable[[], None], half_closed: Callable[[], None] | None = None) -> None:
        self._half_closed = half_closed
        self._client = client
        self._gone = gone
        self._reads = False
        """Whether more may be read of it."""
        self._ended = False

    def begin(self) -> None:
        """Not after its end: what is left of an exchange, the sending of its request body, may find out late that it is done."""
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
            client.front.warn_rarely("cannot watch a client's socket: %s", error.strerror)

    def end(self) -> None:
        """Idempotent, and for good."""
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
