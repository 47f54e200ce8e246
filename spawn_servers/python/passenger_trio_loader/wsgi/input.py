"""``wsgi.input``: the body of a request."""

import errno
from select import POLLIN, poll
from socket import MSG_DONTWAIT, MSG_PEEK
from time import monotonic

from passenger_trio_loader.session_frames import ABORT, BLOCK, DATA, END, MAX_FRAME, THE_ABORT, frame

DRAIN_BYTES = 1024 * 1024
DRAIN_TIME = 0.2
"""How much of a body that the application has not read is dropped to save the stream, which costs 0.1 ms."""


class Input:
    """``wsgi.input``: the request body, read from its frames as the application asks for it.

    It ends where the body ends (``E``), whatever the request said of its length. When the client is gone before
    that, reading raises ``ConnectionAbortedError``.
    """

    __slots__ = ("_at", "_conn", "_have", "_left", "_partial", "aborted", "answered", "behind", "broken", "ended")

    def __init__(self, conn, arrived):
        """:param arrived: what came behind the head."""
        self._conn = conn
        self._have = b""
        self._at = 0
        self._left = 0
        """Bytes of the frame under way that have not come."""
        self._partial = b""
        """The first bytes of the next frame's five."""
        self.ended = False
        self.aborted = False
        """The supervisor sent ``A``, or hung up."""
        self.broken = False
        """What came is not in the contract: no answer."""
        self.answered = False
        """The end of the response is on its way: the next head may follow, also while the body is still being read."""
        self.behind = b""
        """What has come of that."""
        self._take_in(arrived)

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
            self._take_in(data)
        else:
            self.aborted = True

    def _take_in(self, data):
        """Append the payloads in ``data`` to ``_have``."""
        left = self._left
        if len(data) <= left:
            # The middle of a large frame: nothing to cut.
            self._left = left - len(data)
            self._have += data
            return
        if self._partial:
            data = self._partial + data
            self._partial = b""
        pieces = [self._have, data[:left]]
        at = left
        while True:
            left = 0
            if len(data) - at < 5:
                self._partial = data[at:]
                # Garbage is not waited for.
                self.broken = at < len(data) and data[at] not in (DATA, END, ABORT)
                break
            kind, left = frame.unpack_from(data, at)
            at += 5
            if kind == DATA and 0 < left <= MAX_FRAME:
                pieces.append(data[at : at + left])
                at += left
                if at > len(data):
                    left = at - len(data)
                    break
                continue
            if kind == END and left == 0:
                self.ended = True
                # The client may be gone already. Nothing else can follow before the response has ended: there is no pipelining.
                behind = data[at:]
                self.aborted = bool(behind) and THE_ABORT.startswith(behind)
                if not self.aborted:
                    self.behind = behind
                    self.broken = bool(behind) and not self.answered
            elif kind == ABORT and left == 0:
                self.aborted = True
            else:
                self.broken = True
            left = 0
            break
        self._left = left
        self._have = b"".join(pieces)

    def abort_is_next(self):
        """Something has come, and the body has not ended: is it an abort? One behind more of the body is not seen."""
        if not self._left and not self._partial:
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
