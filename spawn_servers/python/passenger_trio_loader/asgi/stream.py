"""A connection from the supervisor: frames in, frames out, one session after another."""

from collections import deque
from socket import SHUT_RDWR

from passenger_trio_loader.asgi.http_session import Http
from passenger_trio_loader.asgi.scope import read_head
from passenger_trio_loader.asgi.websocket_session import WebSocket
from passenger_trio_loader.at_fork import belongings
from passenger_trio_loader.originals import nothing_to_read
from passenger_trio_loader.session_frames import (
    A_HEAD,
    ABORT,
    BLOCK,
    CLOSE,
    END,
    HEAD,
    THE_LAST,
    FrameReader,
    ProtocolViolation,
)


class Stream:
    """A connection from the supervisor: one session after another."""

    __slots__ = (
        "_closing",
        "_conn",
        "_drained",
        "_ended",
        "_frames",
        "_fresh",
        "_paused",
        "_pending",
        "session",
        "worker",
    )

    def __init__(self, worker, conn):
        self.worker = worker
        self.session = None
        self._conn = conn
        self._frames = FrameReader()
        self._fresh = None
        """A session whose application has not been called."""
        self._pending = deque()
        """What the kernel has not taken yet."""
        self._drained = worker.loop.bell()
        self._paused = False
        self._ended = False
        """Nothing is read from it any more."""
        self._closing = False
        worker.loop.watch(conn, self.on_readable)

    def fileno(self):
        return self._conn.fileno()

    # What comes

    def on_readable(self):
        if self._ended:
            return
        try:
            data = self._conn.recv(BLOCK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.hung_up()

    def hung_up(self):
        """Its end has come: between sessions that is all, in one it means that the client is gone."""
        self._read_no_more()
        if self.session is None:
            self.end_last(False)
        else:
            self.session.lost()

    def look_again(self):
        """The worker is to stop: a stream without a head ends, one with a part of a head is in hand. What has come is looked at first."""
        if self.session is None and not self._ended:
            self.on_readable()
            if self.session is None and self._frames.is_between_frames and not self._ended:
                self._read_no_more()
                self.end_last(False)  # Behind the rest of the last response.
        elif self.session is not None and self.session.done and not self.session.ended:
            session = self.session
            while self.session is session and not self._ended and not nothing_to_read(self._conn):
                self.on_readable()
            if self.session is session:
                self.end_last(False)

    def _take(self, data):
        frames = self._frames
        frames.feed(data)
        try:
            while not self._ended:
                session = self.session
                found = frames.next_frame(A_HEAD if session is None else session.expects)
                if found is None:
                    break
                kind, payload, is_whole = found
                if kind == HEAD:
                    self._begin(payload)
                elif kind == END:
                    session.take_end()
                elif kind == ABORT:
                    self._read_no_more()
                    session.lost()
                elif kind == CLOSE:
                    session.take_close(payload)
                else:
                    session.take_piece(kind, payload, is_whole)
        except ProtocolViolation:
            self._refuse()
            return
        session = self._fresh
        if session is not None:
            self._fresh = None
            if session.gone:
                self.end_last(True)
            else:
                self.worker.begin(session)

    def _begin(self, payload):
        """:raises ProtocolViolation:"""
        scope = read_head(payload)
        scope["state"] = self.worker.lifespan.state.copy()
        self.session = self._fresh = (WebSocket if scope["type"] == "websocket" else Http)(self, scope)

    def _refuse(self):
        """Something came that is not in the contract."""
        session = self.session
        is_fresh = self._fresh is not None
        self.close()
        if session is not None and not is_fresh:
            session.lost()

    def pause(self):
        """The application does not receive what comes: let the supervisor wait. Its end is seen all the same."""
        if not self._paused and not self._ended:
            self._paused = True
            self.worker.loop.unwatch(self._conn)
            self.worker.watch_hangup(self)

    def resume(self):
        if self._paused:
            self._paused = False
            self.worker.unwatch_hangup(self)
            self.worker.loop.watch(self._conn, self.on_readable)

    def _read_no_more(self):
        if not self._ended:
            self._ended = True
            if self._paused:
                self._paused = False
                self.worker.unwatch_hangup(self)
            else:
                self.worker.loop.unwatch(self._conn)

    # What goes

    @property
    def is_behind(self):
        return bool(self._pending)

    def write(self, data):
        """Give it to the kernel, now or as soon as it can be. What is written to a broken stream is lost."""
        if self._conn is None:
            return
        if self._pending:
            self._pending.append(data)
            return
        try:
            sent = self._conn.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._broke()
            return
        if sent < len(data):
            self._pending.append(memoryview(data)[sent:])
            self.worker.loop.watch_writable(self._conn, self._on_writable)

    def write_parts(self, parts):
        """The same for what is not to be copied together."""
        if self._conn is None:
            return
        is_first = not self._pending
        self._pending.extend(parts)
        if is_first and not self._send_pending():
            self.worker.loop.watch_writable(self._conn, self._on_writable)

    async def flushed(self):
        while self._pending:
            await self._drained.wait()

    def _on_writable(self):
        if self._conn is not None and self._send_pending() and self._conn is not None:
            self.worker.loop.unwatch_writable(self._conn)
            self._drained.ring()
            if self._closing:
                self.close()

    def _send_pending(self):
        """True: nothing is left."""
        pending = self._pending
        while pending:
            try:
                sent = self._conn.sendmsg([pending[at] for at in range(min(len(pending), 16))])
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._broke()
                return True
            while pending and sent >= len(pending[0]):
                sent -= len(pending.popleft())
            if sent:
                pending[0] = memoryview(pending[0])[sent:]
        return True

    def _broke(self):
        """Nobody reads what is written: the supervisor has closed the stream."""
        session = self.session
        self.close()
        if session is not None:
            session.lost()

    # Its ends

    def release(self, session):
        """The session is over on the wire."""
        if self.session is session:
            self.session = None
            self.resume()
            if self.worker.stopping and not self._closing:
                self.worker.loop.call_later(0, self.look_again)

    def end_last(self, with_end):
        """Close it, behind what is still to be written; ``with_end``: behind an end, which says so."""
        if with_end and not self._closing:
            self.write(THE_LAST)
        self._closing = True
        if not self._pending:
            self.close()

    def close(self):
        conn = self._conn
        if conn is None:
            return
        self._read_no_more()
        if self._pending:
            self.worker.loop.unwatch_writable(conn)
            self._pending.clear()
            self._drained.ring()
        self._conn = None
        belongings.discard(conn)
        try:
            # A process that the application forked may hold a copy, so closing alone would not end it.
            conn.shutdown(SHUT_RDWR)
        except OSError:
            pass
        conn.close()
        self.worker.stream_closed(self)
