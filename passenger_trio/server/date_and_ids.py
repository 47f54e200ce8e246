"""The ``Date`` field, and the id and start of a request.

It reads the wall clock, and prepares once a second what each request then gets in one step. Ids are unique in the server: a random prefix, then a count.
"""

from __future__ import annotations

import itertools
import secrets
import time

from passenger_trio.codecs.request_id import NO_REQUEST_ID, RequestId, make_id_pairs
from passenger_trio.server.http_date import http_date

__all__ = ["DateAndIds"]


class DateAndIds:
    """The dates and ids of one server."""

    def __init__(self) -> None:
        self._date_second = 0
        self._date = b""
        self._id_prefix = secrets.token_hex(4).encode()
        self._ids = itertools.count(1)
        self._second = 0
        self._new_pairs = b""
        """A template of the ``id_pairs`` of requests that begin in this second."""

    def date(self) -> bytes:
        """The current value of the ``Date`` field (RFC 9110 section 6.6.1)."""
        now = int(time.time())
        if now != self._date_second:
            self._date_second = now
            self._date = http_date(now)
        return self._date

    def new_id_pairs(self, said: RequestId = NO_REQUEST_ID) -> bytes:
        """The ``id_pairs`` of a new request: the id and time that a trusted proxy has sent, else new ones."""
        now = time.time()
        if said is NO_REQUEST_ID:  # the usual case: one formatting step, because the rest was prepared for this second
            second = int(now)
            if second != self._second:
                self._second = second
                self._new_pairs = b"HTTP_X_REQUEST_ID\0%b-%%x\0HTTP_X_REQUEST_START\0t=%d.%%06d\0" % (
                    self._id_prefix,
                    second,
                )
            return self._new_pairs % (next(self._ids), (now - second) * 1e6)
        return make_id_pairs(
            said.request_id or b"%b-%x" % (self._id_prefix, next(self._ids)), said.start or b"t=%.6f" % now
        )
