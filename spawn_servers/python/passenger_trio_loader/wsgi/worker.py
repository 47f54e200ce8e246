"""A WSGI worker: its socket, its streams and its threads.

Each thread accepts a stream, serves the sessions on it one after another, and accepts the next. With one thread that
is the main thread. ``_serve_stream`` is the hot loop: one ``recv_into`` and one pass over the head for a request.
"""

import os
import select
import sys
from socket import SHUT_RD, SHUT_RDWR
from time import sleep

from passenger_trio_loader.at_fork import own_descriptors
from passenger_trio_loader.events import do_oob_work
from passenger_trio_loader.listener import OUT_OF_SOMETHING, cannot_listen, open_listener, remove_file
from passenger_trio_loader.originals import (
    NativeThread,
    PlainSocket,
    nothing_to_read,
    sockets_are_green,
    threads_are_green,
)
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.session_frames import (
    BLOCK,
    CLOSING_END_FRAME,
    END_FRAME,
    HEAD,
    HEAD_ONLY,
    OOB_WORK_FRAME,
    FrameReader,
    ProtocolViolation,
    read_prefix,
)
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.wsgi.file_wrapper import FileWrapper
from passenger_trio_loader.wsgi.head import percent_decoded, take_required
from passenger_trio_loader.wsgi.input import Input
from passenger_trio_loader.wsgi.response import Session


class Worker:
    """Serves sessions on a Unix socket, ``threads`` streams at a time."""

    def __init__(self, application, options, watcher=None):
        self.application = application
        self._watcher = watcher
        self.threads = max(1, options["threads"])
        self.path = os.path.join(options["socket_dir"], options["socket_name"])
        self.stopping = False
        self._listener = None
        self._threads = []
        self._streams = {}
        self._sockets_are_green = sockets_are_green()
        self._accepting = None
        self._no_body_input = Input(None, FrameReader(END_FRAME))
        """The body of every request that has none. Reading it changes no state, so one is enough."""
        self._environ = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": options["server_software"],
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": self.threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def listen(self):
        self._listener = open_listener(self.path)
        try:
            self._start_threads()
        except (OSError, RuntimeError) as error:
            raise cannot_listen(self.path, error)

    def _start_threads(self):
        if self._sockets_are_green:
            # The threads are greenlets in the main thread, so waiting for a connection must let the others run, too.
            self._listener.setblocking(False)
        if self.threads == 1:
            return  # The main thread serves: some libraries work in no other.
        from threading import Lock, Thread

        self._accepting = Lock()
        for number in range(1, self.threads + 1):
            if threads_are_green() and not self._sockets_are_green:
                # Threads are greenlets, but sockets are not patched: the first wait would stop all of them.
                thread = NativeThread(self._serve)
            else:
                # Daemon threads: nothing waits for them when the supervisor is gone. On a stop ``run`` joins them.
                thread = Thread(target=self._serve, name="passenger_trio-%d" % number, daemon=True)
                thread.start()
            self._threads.append(thread)

    def socket_message(self):
        return {"address": "unix:" + self.path, "protocol": "session", "concurrency": self.threads}

    def remove_socket(self):
        remove_file(self.path)

    def run(self, announce):
        """Serve until ``stop`` was called and the sessions in hand are finished. In the main thread."""
        announce()
        if self.threads == 1:
            self._serve()
        for thread in self._threads:
            thread.join()

    def stop(self):
        """Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.

        Shutting down the listener wakes the threads in ``accept``: the kernel hands out the connections in the queue,
        then ``accept`` fails. Shutting down the reading side of a stream wakes a thread that waits for a head. This
        must happen only if no head has arrived, which two facts show together, looked at in this order. The socket's
        queue is empty. And ``buffer[0]`` is 0: it is set to 0 before the wait, and the kernel writes the first byte of
        a head there *before* it removes the head from the queue. Whatever the supervisor sent before ``shutdown`` has
        arrived by then.
        """
        self.stopping = True
        if self._listener is None:
            return
        try:
            self._listener.shutdown(SHUT_RDWR)
        except OSError:
            pass
        for conn, buffer in list(self._streams.items()):
            try:
                if nothing_to_read(conn) and buffer[0] == 0:
                    with PlainSocket(conn) as bare:
                        bare.shutdown(SHUT_RD)
            except OSError:
                pass  # The stream was closed at this moment.

    def cancel(self):
        """Cancel the sessions in hand: their time is over. From any thread.

        A signal interrupts the main thread. In another thread an exception is raised, which it sees when it next runs
        Python code: a call into C is not interrupted. Our own waits, for the request's body and for the reader of the
        response, end because the streams are shut down.
        """
        if not self._threads:
            self._watcher.leave()
            return
        if self._streams:
            write_stderr("passenger_trio: stopping: the requests that have not ended in time are cancelled\n")
        from passenger_trio_loader.wsgi.interrupting import raise_in  # loaded before: see ``Wsgi.prepare``

        raise_in(self._threads, Leave)
        for conn in list(self._streams):
            try:
                with PlainSocket(conn) as bare:
                    bare.shutdown(SHUT_RDWR)
            except OSError:
                pass  # The stream was closed at this moment.

    def give_up(self):
        pass  # A WSGI application has no shutdown of its own. The main thread waits until it is interrupted.

    def _serve(self):
        """One thread: accept a stream, serve it to its end, repeat."""
        while True:
            try:
                conn, _ = self._accept() if self._sockets_are_green else self._listener.accept()
            except OSError as error:
                if self.stopping:
                    return
                if error.errno not in OUT_OF_SOMETHING:
                    raise
                write_stderr("passenger_trio: cannot accept a connection: %s\n" % error)
                sleep(0.1)
                continue
            # The new socket has inherited a default timeout if the application has set one.
            conn.settimeout(None)
            own_descriptors.add(conn)
            try:
                self._serve_stream(conn)
            except OSError:
                pass  # The stream has broken between two sessions.
            finally:
                own_descriptors.discard(conn)
                self._streams.pop(conn, None)
                try:
                    # A process that the application forked may hold a copy: closing alone would not end the stream.
                    conn.shutdown(SHUT_RDWR)
                except OSError:
                    pass
                conn.close()

    def _accept(self):
        """``accept`` where gevent or eventlet has patched sockets: their ``select`` waits, and the result is a socket of theirs."""
        if self._accepting is not None:
            with self._accepting:
                return self._accept_next()
        return self._accept_next()

    def _accept_next(self):
        while True:
            select.select([self._listener], [], [])
            try:
                return self._listener.accept()
            except BlockingIOError:
                if self.stopping:
                    raise  # The listener is shut down and its queue is empty.

    def _serve_stream(self, conn):
        """The hot loop: receive a head, make an environ, run a session. Until the stream ends, or cannot be used again."""
        buffer = bytearray(BLOCK)
        view = memoryview(buffer)
        self._streams[conn] = buffer
        receive = conn.recv_into
        application = self.application
        common = self._environ
        nothing = self._no_body_input
        frames = FrameReader()
        behind = b""
        while True:
            if behind:
                # ``buffer[0]`` stays the first byte of a head, so ``stop`` sees that one has arrived.
                size = len(behind)
                view[:size] = behind
                behind = b""
            else:
                buffer[0] = 0
                if self.stopping and nothing_to_read(conn):
                    return
                # A head that arrived before the stop is served.
                size = receive(buffer)
            kind, length = read_prefix(buffer)
            end = 5 + length
            if size < end or size < 5 or kind != HEAD:
                if view[:size] == OOB_WORK_FRAME:
                    do_oob_work()
                    conn.sendall(END_FRAME)
                    continue
                frames.feed(bytes(view[:size]))
                head = self._read_partial_head(conn, frames)
                if head is None:
                    return
                text = head.decode("latin-1")
                body = Input(conn, frames)
            else:
                text = str(view[5:end], "latin-1")
                if size == end + 5 and buffer[end:size] == END_FRAME:
                    body = nothing
                else:
                    frames.feed(bytes(view[end:size]))
                    body = Input(conn, frames)
            texts = text.split("\0")
            if texts.pop() or len(texts) % 2 or body.broken:
                return
            environ = common.copy()
            names = iter(texts)
            for name in names:
                environ[name] = next(names)
            # As many new names as pairs: no name came twice, and none has replaced one of ours.
            if len(environ) - len(common) != len(texts) // 2 or "" in environ:
                return
            try:
                method, path, scheme, _, _, _, _, _, _, _, _ = take_required(environ)
            except KeyError:
                return
            if body.aborted:
                conn.sendall(CLOSING_END_FRAME)
                return
            if "%" in path:
                environ["PATH_INFO"] = percent_decoded(path)
            if scheme == "https":
                environ["HTTPS"] = "on"
            environ["wsgi.url_scheme"] = scheme
            environ["wsgi.input"] = body
            if not Session(conn, body, method == "HEAD").run(application, environ):
                return
            if body is not nothing:
                behind = body.next_head

    @staticmethod
    def _read_partial_head(conn, frames):
        """The payload of a head that arrives in pieces. None: the bytes are no head. ``frames`` keeps the bytes after the head."""
        try:
            while True:
                found = frames.next_frame(HEAD_ONLY)
                if found is not None:
                    return found[1]
                data = conn.recv(BLOCK)
                if not data:
                    break
                frames.feed(data)
        except ProtocolViolation:
            pass
        return None
