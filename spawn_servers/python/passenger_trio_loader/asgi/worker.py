"""An ASGI worker: the socket, the streams, the sessions, the event loop around them."""

import errno
import os
import select
from socket import SHUT_RDWR

from passenger_trio_loader.asgi.lifespan import Lifespan
from passenger_trio_loader.asgi.stream import Stream
from passenger_trio_loader.at_fork import belongings
from passenger_trio_loader.control_connection import Step
from passenger_trio_loader.listener import open_listener, remove_file
from passenger_trio_loader.originals import epoll
from passenger_trio_loader.output import say

EPOLLRDHUP = getattr(select, "EPOLLRDHUP", 0x2000)  # Linux has it; PyPy may not have the name.
BACKLOG = 4096
"""Connections that may come at once where any number of sessions is served. (The kernel has a limit of its own.)"""


class Worker:
    """Serves sessions on a Unix socket, up to ``concurrency`` streams at a time (0: any number) that the supervisor counts."""

    def __init__(self, application, options, lifeline, loop, concurrency):
        self.application = application
        self.loop = loop
        self.lifespan = None
        self.stopping = False
        self.path = os.path.join(options["socket_dir"], options["socket_name"])
        self.concurrency = concurrency
        self._most_streams = 0 if options["unlimited"] else self.concurrency
        """0: any number. The supervisor does not count all of them."""
        self._lifeline = lifeline
        self._announce = None
        self._listener = None
        self._is_listening = False
        """The loop watches the listener."""
        self._all_accepted = False
        """The listener is shut down, and nobody waits in its queue any more."""
        self._streams = set()
        self._sessions = set()
        """Also those that are over on the wire, but whose application has not returned."""
        self._hangups = epoll()
        belongings.add(self._hangups)
        self._bell = None
        self._given_up = False
        """Nobody waits for the sessions any more."""

    @property
    def is_leaving(self):
        return self._lifeline.leaving

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
        """Until ``stop``, and until the sessions in hand are finished. In the main thread."""
        self._announce = announce
        self.loop.run(self._main, self._lifeline)

    async def _main(self):
        self._bell = self.loop.bell()
        self.lifespan = Lifespan(self)
        with Step(self._lifeline.control, "start_up"):
            await self.lifespan.begin()
        self._announce()
        self.loop.watch(self._hangups, self._on_hangups)
        self._accept()
        while not self._given_up and (not self._all_accepted or self._streams or self._sessions):
            await self._bell.wait()
        self.loop.unwatch(self._hangups)
        await self.lifespan.end()

    # Streams

    def _accept(self):
        """Take the connections that wait, as many as may be."""
        while self._listener is not None and self._has_room and not self._all_accepted:
            try:
                conn, _ = self._listener.accept()
            except OSError as error:
                would_wait = isinstance(error, (BlockingIOError, InterruptedError))
                self._heed_listener(would_wait and not self.stopping)
                if self.stopping and (would_wait or error.errno == errno.EINVAL):
                    # It was shut down before this was called: nobody waits, and nobody will.
                    self._all_accepted = True
                    self._bell.ring()
                elif not would_wait:
                    say("passenger_trio: cannot accept a connection: %s\n" % error)
                    self.loop.call_later(0.1, self._accept)
                return
            conn.setblocking(False)
            belongings.add(conn)
            stream = Stream(self, conn)
            self._streams.add(stream)
            if self.stopping:
                stream.look_again()
        self._heed_listener(False)

    @property
    def _has_room(self):
        return not self._most_streams or len(self._streams) < self._most_streams

    def _heed_listener(self, wanted):
        if wanted != self._is_listening:
            self._is_listening = wanted
            if wanted:
                self.loop.watch(self._listener, self._accept)
            else:
                self.loop.unwatch(self._listener)

    def stream_closed(self, stream):
        self._streams.discard(stream)
        self._bell.ring()
        if not self._is_listening:
            # Not from here: whoever closes a stream has more to do.
            self.loop.call_later(0, self._accept)

    def watch_hangup(self, stream):
        self._hangups.register(stream, EPOLLRDHUP)

    def unwatch_hangup(self, stream):
        try:
            self._hangups.unregister(stream)
        except (OSError, ValueError):
            pass  # It has gone in this moment.

    def _on_hangups(self):
        ended = {descriptor for descriptor, _ in self._hangups.poll(0)}
        for stream in [stream for stream in self._streams if stream.fileno() in ended]:
            stream.hung_up()

    # Sessions

    def begin(self, session):
        self._sessions.add(session)
        session.task = self.loop.start(session.run)

    def forget(self, session):
        self._sessions.discard(session)
        if self.stopping:
            self._bell.ring()

    # The end

    def stop(self):
        """Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.

        The listener is shut down at once, whatever the event loop does: the kernel still gives out what is in its
        queue, then fails. Everything else is done in the loop. There, a stream that waits for a head is looked at once
        more: what the supervisor sent before it told us to stop is in the kernel by then.
        """
        self.stopping = True
        try:
            self._listener.shutdown(SHUT_RDWR)
        except OSError:
            pass
        self.loop.call_from_thread(self._stop)

    def _stop(self):
        for stream in list(self._streams):
            stream.look_again()
        self._accept()

    def cancel(self):
        """The sessions in hand have had their time: their applications are cancelled. From any thread."""
        self.loop.call_from_thread(self._cancel)

    def _cancel(self):
        sessions = list(self._sessions)
        if sessions:
            shown = [
                "%s %s" % (session.scope.get("method", "WebSocket"), session.scope["path"]) for session in sessions
            ]
            say(
                "passenger_trio: the process is to end, and these %d requests are cancelled, which have not: %s\n"
                % (len(sessions), ", ".join(shown[:5] + ["..."] * (len(shown) > 5)))
            )
        for session in sessions:
            session.cancelled = True
            self.loop.cancel(session)
        for stream in list(self._streams):
            if stream.session is None:
                stream.close()  # A part of a head, whose rest has not come.

    def give_up(self):
        """What is cancelled and does not end is left alone. From any thread."""
        self.loop.call_from_thread(self._give_up)

    def _give_up(self):
        self._given_up = True
        for stream in list(self._streams):
            stream.close()
        self._bell.ring()
