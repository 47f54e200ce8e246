"""Drives a ``ClientSide`` the way a server does, and writes down what it saw.

``exchange(pieces)`` feeds the pieces and then the client's end of file, reads each request to its end, answers it, and goes on
while the connection lives. The events are plain tuples, so that two runs compare with ``==``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any

from passenger_trio.codecs.head import HttpLimits
from passenger_trio.codecs.http1 import ClientSide
from passenger_trio.errors import RequestError

DATE = b"Thu, 01 Jan 2026 00:00:00 GMT"
Event = tuple[Any, ...]


def is_reusable(client: ClientSide) -> bool:
    """Whether it could be ready for the next request; nothing is changed."""
    return copy.copy(client).finish_message()


class Exchange:
    """One connection; ``events`` grows, ``sent`` holds what was answered."""

    def __init__(self, *, plain_parser: bool = True, limits: HttpLimits | None = None, page: bytes = b"") -> None:
        """:param page: the body of refusals."""
        self.client = ClientSide(limits or HttpLimits(), plain_parser=plain_parser)
        self.events: list[Event] = []
        self.sent = b""
        self.over = False
        self._page = page
        self._body: list[bytes] | None = None

    def feed(self, data: bytes) -> None:
        self.client.receive(data)
        while not self.over and self._step():
            pass

    def _step(self) -> bool:
        client = self.client
        try:
            if self._body is None:
                head = client.next_head()
                if head is None:
                    if client.peer_closed:
                        self._finish("end")
                    return False
                self.events.append(("head", head))
                self._body = []
            while (data := client.read_body()) != b"":
                if data is None:
                    return False
                self._body.append(data)
        except RequestError as error:
            self.events.append(("body so far", b"".join(self._body or ())))
            self.sent += client.error_response(error.status, b"", list(error.headers), self._page, DATE)
            self._finish("refused", error.status, error.code)
            return False
        self.events.append(("body", b"".join(self._body)))
        self._body = None
        self.sent += client.write_response(200, b"OK", [(b"X-Test", b"1")], b"answer", date=DATE)
        if not client.finish_message():
            self._finish("close")
            return False
        return True

    def _finish(self, *event: Any) -> None:
        self.events.append(event)
        self.over = True


def exchange(pieces: Iterable[bytes], *, plain_parser: bool = True, limits: HttpLimits | None = None) -> list[Event]:
    run = Exchange(plain_parser=plain_parser, limits=limits)
    for piece in pieces:
        run.feed(piece)
    run.feed(b"")
    return run.events


def verdict(events: list[Event]) -> tuple[int | str, str, int]:
    """Status or ``accept``, the refusal's code, and how many requests were answered before."""
    answered = sum(event[0] == "body" for event in events)
    last = events[-1]
    if last[0] == "refused":
        return last[1], last[2], answered
    return "accept", "", answered


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Whole; byte by byte; cut at every line end at once; and in two, before, inside and after each line end.

    Of long data only the first and last line ends are cut one by one. What is so long that it repeats itself thousands of times is cut every seventh byte
    instead of everywhere: all places of what repeats are met, each a few hundred times.
    """
    most = 24 if len(data) < 1024 else 2
    step = 1 if len(data) < 20_000 else 7
    yield [data]
    yield [data[at : at + step] for at in range(0, len(data), step)]
    yield re.findall(rb"[^\r\n]+|\r|\n", data)
    ends = [match.start() for match in re.finditer(rb"\r\n", data)]
    for at in sorted({*ends[:most], *ends[-most:]}):
        for cut in (at, at + 1, at + 2):
            if 0 < cut < len(data):
                yield [data[:cut], data[cut:]]
