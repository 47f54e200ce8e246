"""How long the server still waits for a request body (R27). All stages wait for body bytes here."""

from __future__ import annotations

import trio

from passenger_trio.codecs.refusals import refuse
from passenger_trio.core.buffer_sizes import RECEIVE_SIZE
from passenger_trio.server.http.interruptions import ClientGone
from passenger_trio.system.raw_stream import RawStream

__all__ = ["BodyClock"]


class BodyClock:
    """A grace, and after that a minimum rate.

    The grace is a balance in seconds: waiting spends it, bytes earn it back at the minimum rate, and it never exceeds its first value. So a client
    that was fast for a while may not stop for ever after that. Only the time counts for which the server waits for the client: it is not the client's fault
    if the application does not read, or if the disk is slow. A rate of 0 demands nothing.
    """

    __slots__ = ("_grace", "_left", "_rate")

    def __init__(self, grace: float, rate: int) -> None:
        self._grace = self._left = grace
        self._rate = rate

    def waited(self, seconds: float, received: int) -> None:
        """Count a wait for the client, and the bytes that it sent meanwhile."""
        if self._rate:
            self._left = min(self._grace, self._left - seconds + received / self._rate)

    def remaining(self) -> float:
        """Seconds until the body is late."""
        return max(0.0, self._left) if self._rate else float("inf")

    async def receive(self, stream: RawStream) -> bytes:
        """Wait for the next bytes of the client; ``b""`` at its end.

        :raises RequestError: the body is late (408).
        :raises ClientGone: the client's connection broke.
        """
        begun = trio.current_time()
        with trio.move_on_after(self.remaining()):
            try:
                data = await stream.recv(RECEIVE_SIZE)
            except trio.BrokenResourceError:
                raise ClientGone from None
            self.waited(trio.current_time() - begun, len(data))
            return data
        raise refuse("body_timeout")
