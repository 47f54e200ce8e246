"""A connection from the supervisor: frames in, frames out, one session after another.

Callbacks of the event loop read and write; no task belongs to a stream. What the kernel does not take at once is kept
here, so a frame is written whole even if the task that sent it is cancelled.
"""

from collections import deque
from socket import SHUT_RDWR

from passenger_trio_loader.asgi.http_session import Http
from passenger_trio_loader.asgi.scope import read_head
from passenger_trio_loader.asgi.websocket_session import WebSocket
from passenger_trio_loader.at_fork import own_descriptors
from passenger_trio_loader.events import do_oob_work
from passenger_trio_loader.originals import nothing_to_read
from passenger_trio_loader.session_frames import (
    ABORT,
    BETWEEN_SESSIONS,
    BLOCK,
    CLOSE,
    CLOSING_END_FRAME,
    END,
    END_FRAME,
    HEAD,
    OOB_WORK,
    FrameReader,
    ProtocolViolation,
)


class Stream:
    """A connection from the supervisor: one session after another."""

    __slots__ = (
        "_closing",
        "_conn",
        "_drained",
        "_reading_ended",
        "_frames",
        "_new_session",
        "_paused",
        "_unsent",
        "session",
        "worker",
    )

    def __init__(self, worker, conn):
        self.worker = worker
        self.session = None
        self._conn = conn
        self._frames = FrameReader()
        self._new_session = None
        """A session whose head has arrived in these bytes. Its application is called when all of them are read."""
        self._unsent = deque()
        """What the kernel has not taken."""
        self._drained = worker.loop.condition()
        self._paused = False
        self._reading_ended = False
        """Reading has ended: at the end of the stream, or because the stream is closed."""
        self._closing = False
        worker.loop.add_reader(conn, self.on_readable)

    def fileno(self):
        return self._conn.fileno()

    # Reading

    def on_readable(self):
        if self._reading_ended:
            return
        try:
            data = self._conn.recv(BLOCK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._on_data(data)
        else:
            self.on_eof()

    def on_eof(self):
        """The supervisor has ended the stream. In the middle of a session this means that the client is gone."""
        self._stop_reading()
        if self.session is None:
            self.close_when_sent(False)
        else:
            self.session.on_client_gone()

    def on_stopping(self):
        """The worker stops: close the stream unless a session is in hand. A part of a head counts as a session.

        What has arrived is read first.
        """
        if self.session is None and not self._reading_ended:
            self.on_readable()
            if self.session is None and self._frames.is_between_frames and not self._reading_ended:
                self._stop_reading()
                self.close_when_sent(False)  # After the rest of the last response.
        elif self.session is not None and self.session.done and not self.session.ended:
            session = self.session
            while self.session is session and not self._reading_ended and not nothing_to_read(self._conn):
                self.on_readable()
            if self.session is session:
                self.close_when_sent(False)

    def _on_data(self, data):
        frames = self._frames
        frames.feed(data)
        try:
            while not self._reading_ended:
                session = self.session
                found = frames.next_frame(BETWEEN_SESSIONS if session is None else session.expects)
                if found is None:
                    break
                kind, payload, is_whole = found
                if kind == HEAD:
                    self._begin_session(payload)
                elif kind == OOB_WORK:
                    do_oob_work()
                    self.write(END_FRAME)
                elif kind == END:
                    session.on_body_end()
                elif kind == ABORT:
                    self._stop_reading()
                    session.on_client_gone()
                elif kind == CLOSE:
                    session.on_close(payload)
                else:
                    session.on_data(kind, payload, is_whole)
        except ProtocolViolation:
            self._reject()
            return
        session = self._new_session
        if session is not None:
            self._new_session = None
            if session.gone:
                self.close_when_sent(True)
            else:
                self.worker.begin(session)

    def _begin_session(self, payload):
        """:raises ProtocolViolation:"""
        scope = read_head(payload)
        scope["state"] = self.worker.lifespan.state.copy()
        self.session = self._new_session = (WebSocket if scope["type"] == "websocket" else Http)(self, scope)

    def _reject(self):
        """What arrived breaks the contract: close the stream without an answer."""
        session = self.session
        is_fresh = self._new_session is not None
        self.close()
        if session is not None and not is_fresh:
            session.on_client_gone()

    def pause_reading(self):
        """Let the supervisor wait, because the application does not receive. The end of the stream is noticed all the same."""
        if not self._paused and not self._reading_ended:
            self._paused = True
            self.worker.loop.remove_reader(self._conn)
            self.worker.watch_eof(self)

    def resume_reading(self):
        if self._paused:
            self._paused = False
            self.worker.unwatch_eof(self)
            self.worker.loop.add_reader(self._conn, self.on_readable)

    def _stop_reading(self):
        if not self._reading_ended:
            self._reading_ended = True
            if self._paused:
                self._paused = False
                self.worker.unwatch_eof(self)
            else:
                self.worker.loop.remove_reader(self._conn)

    # Writing

    @property
    def has_unsent(self):
        return bool(self._unsent)

    def write(self, data):
        """Write, now or as soon as the kernel takes it. On a broken stream the data is dropped."""
        if self._conn is None:
            return
        if self._unsent:
            self._unsent.append(data)
            return
        try:
            sent = self._conn.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._on_broken()
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self.worker.loop.add_writer(self._conn, self._on_writable)

    def write_parts(self, parts):
        """As ``write``, for several buffers, without joining them."""
        if self._conn is None:
            return
        is_first = not self._unsent
        self._unsent.extend(parts)
        if is_first and not self._send_unsent():
            self.worker.loop.add_writer(self._conn, self._on_writable)

    async def wait_flushed(self):
        while self._unsent:
            await self._drained.wait()

    def _on_writable(self):
        if self._conn is not None and self._send_unsent() and self._conn is not None:
            self.worker.loop.remove_writer(self._conn)
            self._drained.notify_all()
            if self._closing:
                self.close()

    def _send_unsent(self):
        """True: everything is written."""
        unsent = self._unsent
        while unsent:
            try:
                sent = self._conn.sendmsg([unsent[at] for at in range(min(len(unsent), 16))])
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._on_broken()
                return True
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = memoryview(unsent[0])[sent:]
        return True

    def _on_broken(self):
        """Writing failed: the supervisor has closed the stream."""
        session = self.session
        self.close()
        if session is not None:
            session.on_client_gone()

    # Ending

    def release(self, session):
        """The session is complete on the wire: the stream is free for the next one."""
        if self.session is session:
            self.session = None
            self.resume_reading()
            if self.worker.stopping and not self._closing:
                self.worker.loop.call_later(0, self.on_stopping)

    def close_when_sent(self, with_end):
        """Close the stream when everything is written. With ``with_end``, after an end frame with the close flag."""
        if with_end and not self._closing:
            self.write(CLOSING_END_FRAME)
        self._closing = True
        if not self._unsent:
            self.close()

    def close(self):
        conn = self._conn
        if conn is None:
            return
        self._stop_reading()
        if self._unsent:
            self.worker.loop.remove_writer(conn)
            self._unsent.clear()
            self._drained.notify_all()
        self._conn = None
        own_descriptors.discard(conn)
        try:
            # A process that the application forked may hold a copy: closing alone would not end the stream.
            conn.shutdown(SHUT_RDWR)
        except OSError:
            pass
        conn.close()
        self.worker.stream_closed(self)
