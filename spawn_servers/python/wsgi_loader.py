"""Runs a WSGI application for passenger_trio, in the application's own interpreter.

    python wsgi_loader.py              a worker: loads the application and serves it
    python wsgi_loader.py --preload    a preloader: loads it once, and forks workers when it is asked to

This program keeps spawn_servers/CONTRACT.md, which is the text to read first. What loaders of every interface do is in
passenger_trio_loader.py, beside it; what is here is the session protocol (frames) and PEP 3333. It runs on Python 3.8
and everything after it, on the standard library alone, and imports nothing of the supervisor. What it imports it
imports before the application is loaded, under its own names.

The file is read from top to bottom:

    Input, FileWrapper    what PEP 3333 gives to the application besides the environ
    Session               one request and its response
    Worker                the socket, the streams, the threads
    Wsgi                  what the common part must know of it

Laws:

* A small session costs one ``recv`` and one write. Nothing is polled: whoever waits, waits in the kernel.
* Whatever arrives that is not in the contract closes its stream. It is never answered, and the worker lives.
* ``close()`` of an application's iterable is called exactly once, on every path.
* Nothing that the application raises ends the worker, ``sys.exit()`` in a request included.
"""

import errno
import io
import os
import select
import stat
import sys
from operator import itemgetter
from os import fstat, pread, sendfile
from select import POLLERR, POLLHUP, POLLIN, poll
from socket import MSG_DONTWAIT, MSG_PEEK, SHUT_RD, SHUT_RDWR
from time import monotonic, sleep

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from passenger_trio_loader import (
    ABORT,
    DATA,
    END,
    ERROR,
    HEAD,
    MAX_FRAME,
    MAX_HEAD,
    OUT_OF_SOMETHING,
    OWN_FILES,
    RESPONSE,
    THE_ABORT,
    THE_END,
    THE_LAST,
    Bare,
    Interface,
    Leave,
    NativeThread,
    Unfit,
    belongings,
    cannot_listen,
    class_name,
    error_payload,
    frame,
    has_green_threads,
    is_coroutine_function,
    is_green,
    nothing_to_read,
    open_listener,
    remove_file,
    run,
    say,
    start,
    traceback_of,
)

del sys.path[0]

# Linux has it; PyPy has not the name.
POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)


# ------------------------------------------------------------------------------------------------------------
# What a session is made of

BLOCK = 65536
"""Bytes asked from the kernel at a time. A body up to this size is copied next to its head, to be one write."""
FILE_FRAME = 1024 * 1024
"""Bytes of a file in one frame, so that an abort is noticed between frames."""
DRAIN_BYTES = 1024 * 1024
DRAIN_TIME = 0.2
"""How much of a body that the application has not read is dropped to save the stream, which costs 0.1 ms."""

take_required = itemgetter(
    "REQUEST_METHOD", "PATH_INFO", "REQUEST_SCHEME", "SCRIPT_NAME", "QUERY_STRING", "REQUEST_URI",
    "SERVER_PROTOCOL", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT",
)  # fmt: skip

ESCAPES = {a + b: chr(int(a + b, 16)) for a in "0123456789ABCDEFabcdef" for b in "0123456789ABCDEFabcdef"}


def percent_decoded(text):
    """As PEP 3333 wants a path: escapes are bytes, and a byte is a character of latin-1. What is no escape stays."""
    first, *parts = text.split("%")
    for part in parts:
        character = ESCAPES.get(part[:2])
        first += "%" + part if character is None else character + part[2:]
    return first


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


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable. A real file never enters Python: see ``Session._send_file``."""

    def __init__(self, file, block_size=8192):
        self.file = file
        self.block_size = max(block_size, BLOCK)
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.file.read(self.block_size)
        if data:
            return data
        raise StopIteration

    def plain_file(self):
        """(descriptor, position, bytes from there to the end) if the kernel can send it; else None.

        Only of objects that are known to show the bytes of their descriptor: a ``GzipFile`` has one, too.
        """
        file = self.file
        if type(file) is io.BufferedReader:
            file = file.raw
        if type(file) is not io.FileIO:
            return None
        try:
            descriptor = file.fileno()
            status = fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            at = self.file.tell()
            size = max(0, status.st_size - at)
            # What the kernel makes up when it is read (/proc, /sys) has no blocks, and a size that says nothing.
            if not status.st_blocks and size <= BLOCK and len(pread(descriptor, size + 1, at)) != size:
                return None
        except (OSError, ValueError):
            return None
        return descriptor, at, size


class Session:
    """One request and its response.

    ``head`` is the response head as the application gave it, encoded, None before; ``begun`` says that it was sent,
    and ``done`` that the response is complete on the wire. ``gone`` says that nobody reads it any more; what the
    application raises then is not its error.
    """

    __slots__ = (
        "_aborted",
        "_arrivals",
        "_body",
        "_conn",
        "_is_head",
        "_length",
        "_no_body",
        "_sent",
        "begun",
        "done",
        "gone",
        "head",
    )

    def __init__(self, conn, body, is_head):
        self._conn = conn
        self._body = body
        self._is_head = is_head
        self._no_body = is_head
        self._length = None
        """What the response head says of the body's length."""
        self._sent = 0
        self._aborted = False
        self._arrivals = None
        self.head = None
        self.begun = False
        self.done = False
        self.gone = False

    def run(self, application, environ):
        """Serve it. True if the stream may carry another session."""
        iterable = None
        try:
            iterable = application(environ, self.start_response)
            self._deliver(iterable)
        except Leave:
            raise
        except BaseException as error:
            self._failed(error)
        finally:
            # An iterable is closed once: here, whatever happened.
            close = getattr(iterable, "close", None)
            if close is not None:
                try:
                    close()
                except Leave:
                    raise
                except BaseException as error:
                    say(traceback_of(error))
        body = self._body
        if self._aborted or body.aborted:
            if not (self.done or self.gone or body.broken):
                self._push_last(THE_LAST)
            return False
        return self.done and (body.ended or body.finish())

    # What the application calls

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle through the frames, otherwise
        elif self.head is not None:
            raise AssertionError("start_response was called a second time, without exc_info")
        if not isinstance(status, str):
            raise TypeError("the status must be str, not %s" % type(status).__name__)
        code = status[:3]
        if len(code) != 3 or not code.isdecimal() or code < "200" or status[3:4] not in ("", " "):
            raise ValueError("not the status of a response: %r (it looks like '200 OK')" % status)
        if not isinstance(headers, list):
            raise TypeError("the headers must be a list of tuples, not %s" % type(headers).__name__)
        texts = [code, status[4:]]
        add = texts.append
        length = None
        try:
            for name, value in headers:
                add(name)
                add(value)
                # The check of the length spares most names the lower(). A length that is no number is the
                # supervisor's to judge.
                if len(name) == 14 and name.lower() == "content-length":
                    length = int(value) if value.isdecimal() and len(value) < 19 else None
            add("")
            text = "\0".join(texts)
            head = text.encode("latin-1")
        except Exception:
            raise bad_header(status, headers) from None
        if text.count("\0") != len(texts) - 1 or "" in texts[2:-1:2] or len(head) > MAX_HEAD:
            raise bad_header(status, headers)
        self.head = head
        self._length = length
        self._no_body = self._is_head or code == "204" or code == "304"
        return self.write

    def write(self, data):
        """PEP 3333's imperative way to send the body: the data is on its way when it returns."""
        if not isinstance(data, bytes):
            raise TypeError("write() takes bytes, not %s" % type(data).__name__)
        if data:
            self._send_chunk(data)

    # What goes out

    def _deliver(self, iterable):
        kind = type(iterable)
        if (kind is list or kind is tuple) and not self.begun:
            self._send_whole(iterable[0] if len(iterable) == 1 else whole(iterable))
        elif kind is FileWrapper and not self.begun:
            self._send_file(iterable)
        else:
            if iterable is None:
                raise TypeError("the application returned None instead of an iterable")
            if isinstance(iterable, (str, bytes)):
                # It would be sent character by character, or fail with a puzzling message.
                raise TypeError("the application returned %s instead of an iterable of bytes" % kind.__name__)
            for chunk in iterable:
                if not isinstance(chunk, bytes):
                    raise TypeError("the application yielded %s instead of bytes" % type(chunk).__name__)
                if chunk:
                    if self.begun or self._length is not None or not hasattr(kind, "__len__") or len(iterable) != 1:
                        self._send_chunk(chunk)
                    else:
                        self._send_whole(chunk)
                    if self.done and (self._no_body or self._sent > self._length):
                        break
            if not self.done:
                self._send_end()

    def _send_whole(self, body):
        """Send a body of which there is no more."""
        if not isinstance(body, bytes):
            raise TypeError("the application yielded %s instead of bytes" % type(body).__name__)
        head = self._checked_head()
        size = len(body)
        if self._length is None:
            # Nothing is known of the body of a HEAD request's GET from an empty one.
            if not self._no_body or (self._is_head and size):
                self.head = head = head + b"Content-Length\0%d\0" % size
                self._length = size
        if size == self._length and 0 < size <= BLOCK and not self._no_body:
            self.begun = True
            self._sent = size
            self._push(b"".join((start(RESPONSE, len(head)), head, start(DATA, size), body, self._end_frame())))
            self.done = True
        else:
            if body:
                self._send_chunk(body)
            if not self.done:
                self._send_end()

    def _send_chunk(self, chunk):
        """Send a part of the body: behind the head if it is the first, before the end if it makes the body complete."""
        parts = []
        if not self.begun:
            head = self._checked_head()
            parts += (start(RESPONSE, len(head)), head)
        elif self.done:
            if not self._no_body:
                self._tell_excess(len(chunk))
            return
        elif self._peer_gave_up():
            self._hang_up()
        self.begun = True
        if self._no_body:
            self._push(b"".join(parts) + self._end_frame())
            self.done = True
            return
        size = len(chunk)
        excess = 0
        if self._length is not None:
            excess = max(0, self._sent + size - self._length)
            if excess:
                chunk = chunk[:-excess]
                size -= excess
        self._sent += size
        complete = self._sent == self._length
        if size <= BLOCK:
            if size:
                parts += (start(DATA, size), chunk)
            if complete:
                parts.append(self._end_frame())
            self._push(b"".join(parts))
        else:
            view = memoryview(chunk)
            for at in range(0, size, MAX_FRAME):
                piece = view[at : at + MAX_FRAME]
                parts += (start(DATA, len(piece)), piece)
            if complete:
                parts.append(self._end_frame())
            self._push_parts(parts)
        self.done = complete
        if excess:
            self._tell_excess(excess)

    def _send_end(self):
        """There is no more."""
        parts = b""
        if not self.begun:
            head = self._checked_head()
            if self._length is None and not self._no_body:
                head += b"Content-Length\0%d\0" % 0
            parts = start(RESPONSE, len(head)) + head
            self.begun = True
        if not self._no_body and self._length is not None and self._sent < self._length:
            # No end: the client must not take this for the whole of it.
            self._push(parts)
            say(
                "passenger_trio: the response ended after %d of the %d bytes of its Content-Length\n"
                % (self._sent, self._length)
            )
        else:
            self._push(parts + self._end_frame())
            self.done = True

    def _send_file(self, wrapper):
        """Let the kernel send it, if it can: 1 MiB takes one call."""
        plain = wrapper.plain_file()
        if plain is None:
            for block in wrapper:
                if not isinstance(block, bytes):
                    raise TypeError("the file for wsgi.file_wrapper gave %s, not bytes" % type(block).__name__)
                self._send_chunk(block)
                if self.done:
                    break
            if not self.done:
                self._send_end()
            return
        descriptor, at, size = plain
        head = self._checked_head()
        if self._length is None and (not self._no_body or self._is_head):
            self.head = head = head + b"Content-Length\0%d\0" % size
            self._length = size
        if self._no_body or not size:
            self._send_end()
            return
        # A file that is longer than the Content-Length is no mistake: ranges are sent like this.
        size = min(size, self._length)
        if size <= BLOCK:
            self._send_whole(pread(descriptor, size, at))
            return
        end = at + size
        parts = start(RESPONSE, len(head)) + head
        while at < end:
            if self.begun and self._peer_gave_up():
                self._hang_up()
            until = min(end, at + FILE_FRAME)
            self.begun = True
            self._push(parts + start(DATA, until - at))
            while at < until:
                count = self._push_file(descriptor, at, until - at)
                if not count:
                    raise RuntimeError("the file became shorter while it was sent")
                at += count
                self._sent += count
            parts = b""
        self._send_end()

    def _checked_head(self):
        if self._body.broken:
            self._hang_up()
        if self.head is None:
            raise AssertionError("the application did not call start_response before the body of its response")
        return self.head

    def _end_frame(self):
        body = self._body
        if body.broken:
            self._hang_up()
        body.answered = True
        return THE_LAST if self._aborted or body.aborted else THE_END

    def _hang_up(self):
        raise ConnectionAbortedError(errno.ECONNABORTED, "the client is gone")

    def _tell_excess(self, size):
        say("passenger_trio: %d bytes beyond the Content-Length of the response were dropped\n" % size)
        self._sent += size

    def _failed(self, error):
        if self.gone or self._aborted or self._body.aborted or self._body.broken:
            return  # It was told that nobody waits any more, and did as it should.
        report = traceback_of(error)
        say(report)
        if self.begun:
            return  # No end: the client must see that the response is incomplete (if it was not complete before).
        payload = error_payload(error, report)
        self.begun = True
        try:
            self._push(start(ERROR, len(payload)) + payload + self._end_frame())
            self.done = True
        except OSError:
            pass

    # The stream

    def _peer_gave_up(self):
        """Whether an abort or the end of the stream has come. Asked only between the chunks of a response."""
        arrivals = self._arrivals
        if arrivals is None:
            arrivals = self._arrivals = poll()
            arrivals.register(self._conn, POLLIN | POLLRDHUP)
        for _, event in arrivals.poll(0):
            if event & (POLLRDHUP | POLLHUP | POLLERR):
                self._aborted = True
            elif not self._body.ended:
                self._aborted = self._body.abort_is_next()
            else:
                # Behind a whole request only an abort may come. Anything else is not answered, not even with an end.
                self._aborted = True
                self.gone = self._conn.recv(5, MSG_DONTWAIT) != THE_ABORT
        return self._aborted or self._body.aborted or self._body.broken

    def _push(self, data):
        try:
            self._conn.sendall(data)
        except OSError:
            self.gone = True
            raise

    def _push_parts(self, parts):
        """``sendall`` of several buffers, without copying them together."""
        try:
            while parts:
                sent = self._conn.sendmsg(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts[0])
                    del parts[0]
                if sent:
                    parts[0] = memoryview(parts[0])[sent:]
        except BlockingIOError:
            self._push(b"".join(parts))  # A socket of eventlet's, which waits in ``sendall`` only.
        except OSError:
            self.gone = True
            raise

    def _push_file(self, descriptor, at, size):
        try:
            return sendfile(self._conn.fileno(), descriptor, at, size)
        except ConnectionError:
            self.gone = True
            raise
        except OSError:
            # It is the file, not the stream. What cannot be sent from there may be readable; if not, the application is told so.
            data = pread(descriptor, min(size, BLOCK), at)
        self._push(data)
        return len(data)

    def _push_last(self, data):
        try:
            self._conn.sendall(data)
        except OSError:
            pass


def whole(chunks):
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            raise TypeError("the application yielded %s instead of bytes" % type(chunk).__name__)
    return b"".join(chunks)


def bad_header(status, headers):
    """What is wrong with a response head that could not be encoded."""
    if "\0" in status or not is_latin_1(status):
        return ValueError("the status %r has a character that HTTP cannot carry" % status)
    for header in headers:
        if not isinstance(header, tuple) or len(header) != 2:
            return TypeError("a response header must be a tuple of a name and a value, not %r" % (header,))
        for text in header:
            if not isinstance(text, str):
                return TypeError(
                    "the response header %r: a name or value must be str, not %s" % (header[0], type(text).__name__)
                )
            if "\0" in text or not is_latin_1(text):
                return ValueError("the response header %r has a character that HTTP cannot carry" % header[0])
        if not header[0]:
            return ValueError("a response header has an empty name")
    return ValueError("the response head is longer than %d bytes" % MAX_HEAD)


def is_latin_1(text):
    return all(character <= "\xff" for character in text)


def raise_in(threads, kind):
    """Raise an exception in threads, wherever each of them next runs Python code."""
    try:
        from ctypes import c_ulong, py_object, pythonapi

        for thread in threads:
            if thread.is_alive():
                pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread.ident), py_object(kind))
    except Exception as error:  # An interpreter without ctypes, or without this function: PyPy.
        say("passenger_trio: %s: threads cannot be interrupted here\n" % class_name(error))


# ------------------------------------------------------------------------------------------------------------
# The worker


class Worker:
    """Serves sessions on a Unix socket, ``threads`` streams at a time."""

    def __init__(self, application, options, lifeline=None):
        self.application = application
        self._lifeline = lifeline
        self.threads = max(1, options["threads"])
        self.path = os.path.join(options["socket_dir"], options["socket_name"])
        self.stopping = False
        self._listener = None
        self._threads = []
        self._streams = {}
        self._is_green = is_green()
        self._accepting = None
        self._nothing = Input(None, THE_END)
        """The body of all requests that have none. It has no state that reading would change."""
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
        if self._is_green:
            # Who waits lets the others run, also in this wait: all of them are in the main thread, each is a greenlet.
            self._listener.setblocking(False)
        if self.threads == 1:
            return  # The main thread it is: some libraries work in no other.
        from threading import Lock, Thread

        self._accepting = Lock()
        for number in range(1, self.threads + 1):
            if has_green_threads() and not self._is_green:
                # It has made greenlets of threads and left the sockets as they are: the first that waits would stop all.
                thread = NativeThread(self._serve)
            else:
                # Daemons, so that at the supervisor's end nobody waits for them. On a stop, ``run`` does.
                thread = Thread(target=self._serve, name="passenger_trio-%d" % number, daemon=True)
                thread.start()
            self._threads.append(thread)

    def socket_message(self):
        return {"address": "unix:" + self.path, "protocol": "session", "concurrency": self.threads}

    def remove_socket(self):
        remove_file(self.path)

    def run(self, announce):
        """Until ``stop``, and until the sessions in hand are finished. In the main thread."""
        announce()
        if self.threads == 1:
            self._serve()
        for thread in self._threads:
            thread.join()

    def stop(self):
        """Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.

        Threads that wait in ``accept`` are woken by shutting the listener down: the kernel still gives out what is
        in the queue, then fails. Threads that wait for a head are woken by shutting down the reading side of their
        stream, but only if it is certain that they have no head. The byte ``buffer[0]`` says so: it is 0 from
        before the wait on, and the kernel writes the first byte of what arrived there *before* it takes that from
        the socket's queue. So a stream whose queue is empty (looked at first) and whose byte is 0 (looked at
        second) had nothing when we looked, and whatever the supervisor sent before it told us to stop was there by
        then.
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
                    with Bare(conn) as bare:
                        bare.shutdown(SHUT_RD)
            except OSError:
                pass  # Closed in this moment.

    def cancel(self):
        """The sessions in hand have had their time. From any thread.

        What the main thread runs is left by a signal. In another thread, an exception can be raised that is seen when
        it next runs Python code: what it waits for in C it waits for. Our own waits (for the request's body, for whoever
        reads the response) end because the streams are shut down.
        """
        if not self._threads:
            self._lifeline.leave()
            return
        if self._streams:
            say("passenger_trio: the process is to end, and the requests that have not are cancelled\n")
        raise_in(self._threads, Leave)
        for conn in list(self._streams):
            try:
                with Bare(conn) as bare:
                    bare.shutdown(SHUT_RDWR)
            except OSError:
                pass  # Closed in this moment.

    def give_up(self):
        pass  # The application has no shutdown of its own. The main thread waits until it is told to leave.

    def _serve(self):
        """One thread: accept a stream, serve it to its end, and again."""
        while True:
            try:
                conn, _ = self._accept() if self._is_green else self._listener.accept()
            except OSError as error:
                if self.stopping:
                    return
                if error.errno not in OUT_OF_SOMETHING:
                    raise
                say("passenger_trio: cannot accept a connection: %s\n" % error)
                sleep(0.1)
                continue
            # An application may have set a default timeout, which the new socket has inherited.
            conn.settimeout(None)
            belongings.add(conn)
            try:
                self._serve_stream(conn)
            except OSError:
                pass  # The stream broke between two sessions.
            finally:
                belongings.discard(conn)
                self._streams.pop(conn, None)
                try:
                    # A process that the application forked may hold a copy, so closing alone would not end it.
                    conn.shutdown(SHUT_RDWR)
                except OSError:
                    pass
                conn.close()

    def _accept(self):
        """``accept`` of an application of gevent's or eventlet's: the wait is theirs, and what comes is a socket of theirs."""
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
                    raise  # It was shut down, and nobody is in its queue any more.

    def _serve_stream(self, conn):
        """The hot loop. A request without a body: one recv, one pass over its head, the application, one send."""
        buffer = bytearray(BLOCK)
        view = memoryview(buffer)
        self._streams[conn] = buffer
        receive = conn.recv_into
        application = self.application
        common = self._environ
        nothing = self._nothing
        read_start = frame.unpack_from
        behind = b""
        while True:
            if behind:
                # Its first byte stands in the buffer all the time: ``stop`` sees that a head has come.
                size = len(behind)
                view[:size] = behind
                behind = b""
            else:
                buffer[0] = 0
                if self.stopping and nothing_to_read(conn):
                    return
                # A head that came before we were told to stop is served.
                size = receive(buffer)
            kind, length = read_start(buffer)
            end = 5 + length
            if size < end or size < 5 or kind != HEAD:
                head, arrived = self._slow_head(conn, bytes(view[:size]))
                if head is None:
                    return
                text = head.decode("latin-1")
                body = Input(conn, arrived)
            else:
                text = str(view[5:end], "latin-1")
                if size == end + 5 and buffer[end:size] == THE_END:
                    body = nothing
                else:
                    body = Input(conn, bytes(view[end:size]))
            texts = text.split("\0")
            if texts.pop() or len(texts) % 2 or body.broken:
                return
            environ = common.copy()
            names = iter(texts)
            for name in names:
                environ[name] = next(names)
            # As many new names as pairs: none came twice, and none has taken the place of one of ours.
            if len(environ) - len(common) != len(texts) // 2 or "" in environ:
                return
            try:
                method, path, scheme, _, _, _, _, _, _, _, _ = take_required(environ)
            except KeyError:
                return
            if body.aborted:
                conn.sendall(THE_LAST)
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
                behind = body.behind

    @staticmethod
    def _slow_head(conn, data):
        """(payload of the head, what came behind it) of a head that came in pieces; (None, b"") if it is none."""
        while True:
            # The type and the length are judged as soon as they are here: garbage is not waited for.
            if data[:1] not in (b"", b"H"):
                break
            if len(data) >= 5:
                end = 5 + frame.unpack_from(data)[1]
                if end > 5 + MAX_HEAD:
                    break
                if len(data) >= end:
                    return data[5:end], data[end:]
            more = conn.recv(BLOCK)
            if not more:
                break
            data += more
        return None, b""


# ------------------------------------------------------------------------------------------------------------
# The interface


class Wsgi(Interface):
    name = "WSGI"
    own_file = __file__

    def __init__(self):
        self._may_be_other = False

    def prepare(self, options):
        self._may_be_other = bool(options.get("guessed"))

    def turned_out(self, application, options):
        if not (self._may_be_other and is_asgi(application)):
            return self
        # Only now: most applications are what they seem to be.
        sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
        from asgi_loader import Asgi

        del sys.path[0]
        asgi = Asgi()
        OWN_FILES.add(asgi.own_file)
        asgi.prepare(options)
        return asgi

    def checked(self, found, name, where):
        if self._may_be_other and is_asgi(found):
            return found
        if is_coroutine_function(found):
            raise Unfit(
                "configuration",
                "%s in %s is an ASGI application, not a WSGI application" % (name, where),
                "It is an async callable: WSGI would call it as a function and get a coroutine instead of a response.",
                "Serve it as ASGI (--app-type asgi), or name a WSGI application instead, as in module:object.",
            )
        if not callable(found):
            raise Unfit(
                "configuration",
                "%s in %s is not a WSGI application: it cannot be called" % (name, where),
                "It is of the type %s. A WSGI application is called with an environ and a start_response function."
                % type(found).__name__,
                "Name the object that is the application, as in module:object"
                " (a function that makes one: module:factory()).",
            )
        return found

    def worker(self, application, options, lifeline):
        return Worker(application, options, lifeline)


def is_asgi(found):
    """Whether something is an ASGI application, as far as its call can tell."""
    if is_coroutine_function(found):
        return True
    code = getattr(found, "__code__", None)
    return code is not None and code.co_varnames[: code.co_argcount] == ("scope", "receive", "send")


if __name__ == "__main__":
    run(Wsgi())
