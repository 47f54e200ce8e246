"""``wsgi.input``: the body of a request, as a file.

Nothing is read ahead: the next bytes are received when the application asks for them. The stream's ``FrameReader`` is
shared with the worker, so what follows the body is not lost: it is the next request.
"""

import errno
from select import POLLIN, poll
from socket import MSG_DONTWAIT, MSG_PEEK
from time import monotonic

from passenger_trio_loader.session_frames import ABORT, ABORT_FRAME, BLOCK, DATA, END, ProtocolViolation

DRAIN_BYTES = 1024 * 1024
DRAIN_TIME = 0.2
"""Bytes of an unread body, and seconds, that ``drain`` spends to keep the stream. A new stream costs 0.1 ms."""
BODY_FRAMES = bytes((DATA, END, ABORT))
"""Types of the frames that may follow the head."""


class Input:
    """``wsgi.input``: the request body, read from its frames as the application asks for it.

    It ends where the body ends (``E``), whatever the request said of its length. When the client is gone before
    that, reading raises ``ConnectionAbortedError``.
    """

    __slots__ = ("_position", "_conn", "_frames", "_buffer", "aborted", "answered", "next_head", "broken", "ended")

    def __init__(self, conn, frames):
        """:param frames: the stream's ``FrameReader``, which has what came behind the head."""
        self._conn = conn
        self._buffer = b""
        self._position = 0
        self._frames = frames
        self.ended = False
        self.aborted = False
        """The supervisor has sent ``A``, or closed the stream."""
        self.broken = False
        """What arrived breaks the contract. It gets no answer."""
        self.answered = False
        """The end of the response has been sent. From now on the next head may arrive, even while the body is read."""
        self.next_head = b""
        """What has arrived of that head."""
        self._read_frames()

    def read(self, size=-1):
        have = self._buffer
        at = self._position
        if size is not None and 0 <= size <= len(have) - at:
            self._position = at + size
            return have[at : at + size]
        pieces = [have[at:]] if at else [have]
        self._buffer = b""
        self._position = 0
        if size is None or size < 0:
            while self._fill():
                pieces.append(self._buffer)
                self._buffer = b""
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        size -= len(pieces[0])
        while size and self._fill():
            piece = self._buffer[:size]
            self._position = len(piece)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size=-1):
        limit = size if size is not None and size >= 0 else None
        pieces = []
        while limit != 0 and (self._position < len(self._buffer) or self._fill()):
            have = self._buffer
            end = have.find(b"\n", self._position) + 1
            if limit is not None:
                end = min(end or len(have), self._position + limit)
            piece = have[self._position : end or len(have)]
            self._position += len(piece)
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

    def _fill(self):
        """Put the next piece of the body into ``_buffer``. False: the body has ended."""
        self._buffer = b""
        self._position = 0
        while not self._buffer:
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
            self._read_frames()
        else:
            self.aborted = True

    def _read_frames(self):
        """Append the payloads that have arrived to ``_buffer``."""
        frames = self._frames
        pieces = [self._buffer] if self._buffer else []
        try:
            while True:
                found = frames.next_frame(BODY_FRAMES)
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
        self._buffer = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _on_end(self):
        self.ended = True
        # An abort may follow. Nothing else may before the response has ended: there is no pipelining.
        behind = self._frames.take_rest()
        if behind:
            if ABORT_FRAME.startswith(behind):
                self.aborted = True
            else:
                self.next_head = behind
                self.broken = not self.answered

    def look_for_abort(self):
        """Whether an abort has arrived, without reading the body. One that follows more of the body is not seen."""
        if self._frames.is_between_frames:
            try:
                if self._conn.recv(1, MSG_PEEK | MSG_DONTWAIT) == b"A":
                    self._receive()
            except OSError:
                self.aborted = True
        return self.aborted or self.broken

    def drain(self):
        """Drop what the application has not read. True: the stream can carry the next session.

        What has arrived is read (up to ``DRAIN_BYTES``) even if ``DRAIN_TIME`` is over: the supervisor was told that the
        stream is kept, and may have sent the next head on it.
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
            self._buffer = b""
            self._receive()
            budget -= len(self._buffer)
        return not (self.aborted or self.broken)
