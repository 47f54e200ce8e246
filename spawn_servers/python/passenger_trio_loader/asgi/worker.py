"""An ASGI worker: its listener, its streams, its sessions, and the event loop around them.

Everything runs in the event loop, in the main thread. ``stop``, ``cancel`` and ``give_up`` come from the watcher's
thread, and hand over to the loop.
"""

import errno
import os
import select
from socket import SHUT_RDWR

from passenger_trio_loader.asgi.lifespan import Lifespan
from passenger_trio_loader.asgi.stream import Stream
from passenger_trio_loader.at_fork import own_descriptors
from passenger_trio_loader.control_connection import Step
from passenger_trio_loader.listener import open_listener, remove_file
from passenger_trio_loader.originals import epoll
from passenger_trio_loader.output import write_stderr

EPOLLRDHUP = getattr(select, "EPOLLRDHUP", 0x2000)  # Linux has it; PyPy may not have the name.
BACKLOG = 4096
"""Length of the listen queue if any number of sessions may be served. The kernel has a limit of its own."""


class Worker:
    """Serves sessions on a Unix socket. ``concurrency`` is how many of them the supervisor counts at a time (0: any number)."""

    def __init__(self, application, options, watcher, loop, concurrency):
        self.application = application
        self.loop = loop
        self.lifespan = None
        self.stopping = False
        self.path = os.path.join(options["socket_dir"], options["socket_name"])
        self.concurrency = concurrency
        self._most_streams = 0 if options["unlimited"] else self.concurrency
        """Streams at a time, 0: any number. There are more than ``concurrency`` if the supervisor does not count all sessions."""
        self._watcher = watcher
        self._announce = None
        self._listener = None
        self._is_listening = False
        """Whether the loop watches the listener."""
        self._all_accepted = False
        """The listener is shut down and its queue is empty."""
        self._streams = set()
        self._sessions = set()
        """Sessions whose application has not returned, also if they are complete on the wire."""
        self._eof_watch = epoll()
        own_descriptors.add(self._eof_watch)
        self._changed = None
        self._given_up = False
        """The worker does not wait for its sessions any more."""

    @property
    def is_leaving(self):
        return self._watcher.leaving

    def listen(self):
        self._listener = open_listener(self.path, max(128, self._most_streams or BACKLOG))
        self._listener.setblocking(False)

    def socket_message(self):
        return {
            "address": "unix:" + self.path,
            "protocol": "session",
            "concurrency": self.concurrency,
            "websocket": True,
        }

    def remove_socket(self):
        remove_file(self.path)

    def run(self, announce):
        """Serve until ``stop`` was called and the sessions in hand are finished. In the main thread."""
        self._announce = announce
        self.loop.run(self._main, self._watcher)

    async def _main(self):
        self._changed = self.loop.condition()
        self.lifespan = Lifespan(self)
        with Step(self._watcher.control, "start_up"):
            await self.lifespan.start_up()
        self._announce()
        self.loop.add_reader(self._eof_watch, self._on_eofs)
        self._accept()
        while not self._given_up and (not self._all_accepted or self._streams or self._sessions):
            await self._changed.wait()
        self.loop.remove_reader(self._eof_watch)
        await self.lifespan.shut_down()

    # Streams

    def _accept(self):
        """Accept the waiting connections, up to ``_most_streams``."""
        while self._listener is not None and self._has_room and not self._all_accepted:
            try:
                conn, _ = self._listener.accept()
            except OSError as error:
                would_wait = isinstance(error, (BlockingIOError, InterruptedError))
                self._set_listener_watched(would_wait and not self.stopping)
                if self.stopping and (would_wait or error.errno == errno.EINVAL):
                    # The listener was shut down before this call, so its queue is empty and stays so.
                    self._all_accepted = True
                    self._changed.notify_all()
                elif not would_wait:
                    write_stderr("passenger_trio: cannot accept a connection: %s\n" % error)
                    self.loop.call_later(0.1, self._accept)
                return
            conn.setblocking(False)
            own_descriptors.add(conn)
            stream = Stream(self, conn)
            self._streams.add(stream)
            if self.stopping:
                stream.on_stopping()
        self._set_listener_watched(False)

    @property
    def _has_room(self):
        return not self._most_streams or len(self._streams) < self._most_streams

    def _set_listener_watched(self, wanted):
        if wanted != self._is_listening:
            self._is_listening = wanted
            if wanted:
                self.loop.add_reader(self._listener, self._accept)
            else:
                self.loop.remove_reader(self._listener)

    def stream_closed(self, stream):
        self._streams.discard(stream)
        self._changed.notify_all()
        if not self._is_listening:
            # Later: the caller is in the middle of closing a stream.
            self.loop.call_later(0, self._accept)

    def watch_eof(self, stream):
        self._eof_watch.register(stream, EPOLLRDHUP)

    def unwatch_eof(self, stream):
        try:
            self._eof_watch.unregister(stream)
        except (OSError, ValueError):
            pass  # The stream was closed at this moment.

    def _on_eofs(self):
        ended = {descriptor for descriptor, _ in self._eof_watch.poll(0)}
        for stream in [stream for stream in self._streams if stream.fileno() in ended]:
            stream.on_eof()

    # Sessions

    def begin(self, session):
        self._sessions.add(session)
        session.task = self.loop.spawn(session.run)

    def session_ended(self, session):
        self._sessions.discard(session)
        if self.stopping:
            self._changed.notify_all()

    # Stopping

    def stop(self):
        """Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.

        The listener is shut down at once, even if the event loop is blocked: the kernel hands out the connections in the
        queue, then ``accept`` fails. The loop does everything else. It reads once more from each stream that waits for
        a head, because what the supervisor sent before ``shutdown`` has arrived by then.
        """
        self.stopping = True
        try:
            self._listener.shutdown(SHUT_RDWR)
        except OSError:
            pass
        self.loop.call_from_thread(self._stop)

    def _stop(self):
        for stream in list(self._streams):
            stream.on_stopping()
        self._accept()

    def cancel(self):
        """Cancel the sessions in hand: their time is over. From any thread."""
        self.loop.call_from_thread(self._cancel)

    def _cancel(self):
        sessions = list(self._sessions)
        if sessions:
            shown = [
                "%s %s" % (session.scope.get("method", "WebSocket"), session.scope["path"]) for session in sessions
            ]
            write_stderr(
                "passenger_trio: stopping: these %d requests have not ended in time and are cancelled: %s\n"
                % (len(sessions), ", ".join(shown[:5] + ["..."] * (len(shown) > 5)))
            )
        for session in sessions:
            session.cancelled = True
            self.loop.cancel(session)
        for stream in list(self._streams):
            if stream.session is None:
                stream.close()  # It has a part of a head, whose rest has not arrived.

    def give_up(self):
        """Stop waiting for cancelled sessions that do not end. From any thread."""
        self.loop.call_from_thread(self._give_up)

    def _give_up(self):
        self._given_up = True
        for stream in list(self._streams):
            stream.close()
        self._changed.notify_all()
