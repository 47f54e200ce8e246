"""The response of an application to a request of the embedding program: the same value whether the request went
through the server (``served_app``) or to a borrowed process (``borrowed_process``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from passenger_trio.late_classes import define

__all__ = ["AppResponse", "Fields", "named"]

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields of a request."""


@define(eq=False)
class AppResponse:
    """Its head, and its body as it comes.

    Iterating (``async for piece in response``) gives the pieces of the body, each once. The response is valid
    inside the ``async with`` block that it came from.
    """

    status: int
    headers: list[tuple[str, str]]
    """In their order. Names are as the application wrote them."""
    _next_piece: Callable[[], Awaitable[bytes | None]]
    """The next bytes of the body; None at its end."""

    def header(self, name: str) -> str | None:
        """The first value of a field; None: there is none. The case of the name does not matter."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    async def read(self) -> bytes:
        """The rest of the body.

        :raises IncompleteResponse: the response ended before it was complete.
        """
        return b"".join([piece async for piece in self])

    def __aiter__(self) -> AppResponse:
        return self

    async def __anext__(self) -> bytes:
        """:raises IncompleteResponse: the response ended before it was complete."""
        piece = await self._next_piece()
        if piece is None:
            raise StopAsyncIteration
        return piece


def named(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Fields as text (RFC 9110 section 5.5: other bytes are read as latin-1)."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
