"""The health of the whole server, answered by a front (``--health-path``, OB3).

Only the owner knows the pool, so the front asks the owner over the admin socket. ``livez`` needs no owner: the front's event loop answers.

Laws: anybody who reaches the public listener may ask. So the front asks the owner one question at a time, and the same question at most every
``_FRESH`` seconds. If the owner does not answer within ``_PATIENCE`` seconds, it cannot take requests either: the answer is 503.
"""

from __future__ import annotations

import trio

from passenger_trio.codecs.http1_worker_head import parse_plain_head
from passenger_trio.core.health import Check, Health
from passenger_trio.errors import MalformedResponse

__all__ = ["OwnersHealth"]

_FRESH = 0.25
_PATIENCE = 2.0
_LONGEST = 65536


class OwnersHealth:
    """Asks the owner."""

    def __init__(self, admin_socket: str) -> None:
        self._admin_socket = admin_socket
        self._turn = trio.Lock()
        self._told: dict[tuple[str, bool], tuple[float, tuple[int, bytes]]] = {}
        """Question -> (time of the last answer, the answer)."""

    async def ask(self, question: str, verbose: bool) -> tuple[int, bytes]:
        """Status and text. See ``health_paths.Ask``."""
        if question == "livez":
            return 200, Health(question, True, (Check("loop"),)).text(verbose=verbose).encode("ascii")
        async with self._turn:
            known = self._told.get((question, verbose))
            if known is not None and trio.current_time() - known[0] < _FRESH:
                return known[1]
            answer = 503, b"the main process does not answer\n"
            with trio.move_on_after(_PATIENCE):
                try:
                    answer = await self._fetch(question, verbose)
                except (OSError, trio.BrokenResourceError, MalformedResponse):
                    pass
            self._told[question, verbose] = trio.current_time(), answer
            return answer

    async def _fetch(self, question: str, verbose: bool) -> tuple[int, bytes]:
        """:raises OSError: (or BrokenResourceError, MalformedResponse) the owner does not answer."""
        async with await trio.open_unix_socket(self._admin_socket) as stream:
            query = "?verbose&brief" if verbose else ""
            await stream.send_all(
                f"GET /{question}{query} HTTP/1.1\r\nHost: owner\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            data = b""
            while len(data) < _LONGEST and (more := await stream.receive_some()):
                data += more
        found = parse_plain_head(data, b"GET")
        if found is None or found[0].status not in (200, 503):
            raise MalformedResponse("the admin socket did not answer the question")
        head, end = found
        return head.status, data[end : end + head.length]
