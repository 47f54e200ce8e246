"""``wsgi.input``: the body of a request."""

import errno
from select import POLLIN, poll
from socket import MSG_DONTWAIT, MSG_PEEK
from time import monotonic

from passenger_trio_loader.session_frames import ABORT, BLOCK, DATA, END, THE_ABORT, ProtocolViolation

DRAIN_BYTES = 1024 * 1024
DRAIN_TIME = 0.2
"""How much of a body that the application has not read is dropped to save the stream, which costs 0.1 ms."""
OF_A_BODY = bytes((DATA, END, ABORT))
"""Types of the frames that may follow a head."""


class Input:
    """``wsgi.input``: the request body, read from its frames as the application asks for it.

    It ends where the body ends (``E``), whatever the request said of its length. When the client is gone before
    that, reading raises ``ConnectionAbortedError``.
    """

    __slots__ = ("_at", "_conn", "_frames", "_have", "aborted", "answered", "behind", "broken", "ended")

    def __init__(self, conn, frames):
        """:param frames: the stream's ``FrameReader``, which has what came behind the head."""
        self._conn = conn
        self._have = b""
        self._at = 0
        self._frames = frames
        self.ended = False
        self.aborted = False
        """The supervisor sent ``A``, or hung up."""
        self.broken = False
        """What came is not in the contract: no answer."""
        self.answered = False
        """The end of the response is on its way: the next head may follow, also while the body is still being read."""
        self.behind = b""
        """What has come of that."""
        self._take_in()

    def read(self, size=-1):
        have = self._have
        at = self._at
        if size is not None and 0 <= size <= len(have) - at:
            self._at = at + size
            return have[at : at + size]
        pieces = [have[at:]] if at else [have]
        self._have = b""
        self._at = 0
        if size is None or size < 0:
            while self._more():
                pieces.append(self._have)
                self._have = b""
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        size -= len(pieces[0])
        while size and self._more():
            piece = self._have[:size]
            self._at = len(piece)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size=-1):
        limit = size if size is not None and size >= 0 else None
        pieces = []
        while limit != 0 and (self._at < len(self._have) or self._more()):
            have = self._have
            end = have.find(b"\n", self._at) + 1
            if limit is not None:
                end = min(end or len(have), self._at + limit)
            piece = have[self._at : end or len(have)]
            self._at += len(piece)
            pieces.append(piece)
            if limit is not None:
                limit -= len(piece)
            if piece.endswith(b"\n"):
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readlines(self, hint=-1):
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self):
        return iter(self.readline, b"")

    def _more(self):
        """Put the next piece of the body into ``_have``. False: there is none."""
        self._have = b""
        self._at = 0
        while not self._have:
            if self.aborted or self.broken:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the client went away in the middle of its request")
            if self.ended:
                return False
            self._receive()
        return True

    def _receive(self):
        try:
            data = self._conn.recv(BLOCK)
        except OSError:
            data = b""
        if data:
            self._frames.feed(data)
            self._take_in()
        else:
            self.aborted = True

    def _take_in(self):
        """Append the payloads that have come to ``_have``."""
        frames = self._frames
        pieces = [self._have] if self._have else []
        try:
            while True:
                found = frames.next_frame(OF_A_BODY)
                if found is None:
                    break
                kind, payload, _ = found
                if kind == DATA:
                    pieces.append(payload)
                    continue
                if kind == END:
                    self._on_end()
                else:
                    self.aborted = True
                break
        except ProtocolViolation:
            self.broken = True
        self._have = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _on_end(self):
        self.ended = True
        # The client may be gone already. Nothing else can follow before the response has ended: there is no pipelining.
        behind = self._frames.take_rest()
        if behind:
            if THE_ABORT.startswith(behind):
                self.aborted = True
            else:
                self.behind = behind
                self.broken = not self.answered

    def abort_is_next(self):
        """Something has come, and the body has not ended: is it an abort? One behind more of the body is not seen."""
        if self._frames.is_between_frames:
            try:
                if self._conn.recv(1, MSG_PEEK | MSG_DONTWAIT) == b"A":
                    self._receive()
            except OSError:
                self.aborted = True
        return self.aborted or self.broken

    def finish(self):
        """Drop what the application has not read. True if the stream is at a boundary then.

        What has come is read (up to a bound), however late we are: the supervisor has been told that the stream lives on, and may have used it again.
        """
        if self.ended:
            return not (self.aborted or self.broken)
        arrivals = poll()
        arrivals.register(self._conn, POLLIN)
        budget = DRAIN_BYTES
        until = monotonic() + DRAIN_TIME
        while not (self.ended or self.aborted or self.broken):
            wait = max(0.0, until - monotonic())
            if budget <= 0 or not arrivals.poll(wait * 1000):
                return False
            self._have = b""
            self._receive()
            budget -= len(self._have)
        return not (self.aborted or self.broken)
