"""One request and its response: ``start_response``, ``write``, and everything that is sent.

Laws:

* A small response is one write: head, body and end together.
* A response that is shorter than its Content-Length gets no end frame, so that the client sees it is incomplete.
* The application's iterable is closed once, on every path.
"""

import errno
import select
from os import pread, sendfile
from select import POLLERR, POLLHUP, POLLIN, poll
from socket import MSG_DONTWAIT

from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.session_frames import (
    ABORT_FRAME,
    BLOCK,
    CLOSING_END_FRAME,
    DATA,
    END_FRAME,
    ERROR,
    MAX_FRAME,
    MAX_HEAD,
    RESPONSE,
    frame_prefix,
)
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import error_payload, traceback_of
from passenger_trio_loader.wsgi.file_wrapper import FileWrapper

# Linux has it; PyPy has not the name.
POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)
FILE_FRAME = 1024 * 1024
"""Bytes of a file in one frame. Between frames the worker looks for an abort."""


class Session:
    """One request and its response.

    ``head`` is the response head from the application, encoded, or None. ``begun``: the head was sent. ``done``: the
    response is complete on the wire. ``gone``: nobody reads the response any more, and what the application raises
    then is not reported as its error.
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
        """The response's Content-Length, if it has one."""
        self._sent = 0
        self._aborted = False
        self._arrivals = None
        self.head = None
        self.begun = False
        self.done = False
        self.gone = False

    def run(self, application, environ):
        """Serve the request. True: the stream can carry the next session."""
        iterable = None
        try:
            iterable = application(environ, self.start_response)
            self._send_iterable(iterable)
        except Leave:
            raise
        except BaseException as error:
            self._failed(error)
        finally:
            # The only place that closes the iterable.
            close = getattr(iterable, "close", None)
            if close is not None:
                try:
                    close()
                except Leave:
                    raise
                except BaseException as error:
                    write_stderr(traceback_of(error))
        body = self._body
        if self._aborted or body.aborted:
            if not (self.done or self.gone or body.broken):
                self._write_last(CLOSING_END_FRAME)
            return False
        return self.done and (body.ended or body.drain())

    # What the application calls

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # otherwise a reference cycle through the frames
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
                # The length check saves most names the lower(). The supervisor judges a length that is no number.
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
        """PEP 3333's imperative way to send the body. Returns when the kernel has the data."""
        if not isinstance(data, bytes):
            raise TypeError("write() takes bytes, not %s" % type(data).__name__)
        if data:
            self._send_chunk(data)

    # What goes out

    def _send_iterable(self, iterable):
        kind = type(iterable)
        if (kind is list or kind is tuple) and not self.begun:
            self._send_whole(iterable[0] if len(iterable) == 1 else join_chunks(iterable))
        elif kind is FileWrapper and not self.begun:
            self._send_file(iterable)
        else:
            if iterable is None:
                raise TypeError("the application returned None instead of an iterable")
            if isinstance(iterable, (str, bytes)):
                # Iterating it would send single characters, or fail with a message that does not help.
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
        """Send the complete body."""
        if not isinstance(body, bytes):
            raise TypeError("the application yielded %s instead of bytes" % type(body).__name__)
        head = self._checked_head()
        size = len(body)
        if self._length is None:
            # The empty body of a HEAD response says nothing of the length that GET would have.
            if not self._no_body or (self._is_head and size):
                self.head = head = head + b"Content-Length\0%d\0" % size
                self._length = size
        if size == self._length and 0 < size <= BLOCK and not self._no_body:
            self.begun = True
            self._sent = size
            self._write_all(
                b"".join((frame_prefix(RESPONSE, len(head)), head, frame_prefix(DATA, size), body, self._end_frame()))
            )
            self.done = True
        else:
            if body:
                self._send_chunk(body)
            if not self.done:
                self._send_end()

    def _send_chunk(self, chunk):
        """Send a part of the body. The head goes before the first part, the end after the part that completes the body."""
        if self.begun and self._length is None and not self._no_body and not self.done and len(chunk) <= BLOCK:
            # A stream of no known length: what is done below, in fewer steps.
            if self._is_client_gone():
                self._raise_client_gone()
            self._sent += len(chunk)
            self._write_all(frame_prefix(DATA, len(chunk)) + chunk)
            return
        parts = []
        if not self.begun:
            head = self._checked_head()
            parts += (frame_prefix(RESPONSE, len(head)), head)
        elif self.done:
            if not self._no_body:
                self._warn_excess(len(chunk))
            return
        elif self._is_client_gone():
            self._raise_client_gone()
        self.begun = True
        if self._no_body:
            self._write_all(b"".join(parts) + self._end_frame())
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
                parts += (frame_prefix(DATA, size), chunk)
            if complete:
                parts.append(self._end_frame())
            self._write_all(b"".join(parts))
        else:
            view = memoryview(chunk)
            for at in range(0, size, MAX_FRAME):
                piece = view[at : at + MAX_FRAME]
                parts += (frame_prefix(DATA, len(piece)), piece)
            if complete:
                parts.append(self._end_frame())
            self._write_parts(parts)
        self.done = complete
        if excess:
            self._warn_excess(excess)

    def _send_end(self):
        """End the response: the body is complete, or the application has no more of it."""
        parts = b""
        if not self.begun:
            head = self._checked_head()
            if self._length is None and not self._no_body:
                head += b"Content-Length\0%d\0" % 0
            parts = frame_prefix(RESPONSE, len(head)) + head
            self.begun = True
        if not self._no_body and self._length is not None and self._sent < self._length:
            # No end frame: the client must see that the response is incomplete.
            self._write_all(parts)
            write_stderr(
                "passenger_trio: the response ended after %d of the %d bytes of its Content-Length\n"
                % (self._sent, self._length)
            )
        else:
            self._write_all(parts + self._end_frame())
            self.done = True

    def _send_file(self, wrapper):
        """Let the kernel send a plain file, 1 MiB a call. Read any other file."""
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
        # A file may be longer than the Content-Length: ranges are sent like this.
        size = min(size, self._length)
        if size <= BLOCK:
            self._send_whole(pread(descriptor, size, at))
            return
        end = at + size
        parts = frame_prefix(RESPONSE, len(head)) + head
        while at < end:
            if self.begun and self._is_client_gone():
                self._raise_client_gone()
            until = min(end, at + FILE_FRAME)
            self.begun = True
            self._write_all(parts + frame_prefix(DATA, until - at))
            while at < until:
                count = self._write_file(descriptor, at, until - at)
                if not count:
                    raise RuntimeError("the file became shorter while it was sent")
                at += count
                self._sent += count
            parts = b""
        self._send_end()

    def _checked_head(self):
        if self._body.broken:
            self._raise_client_gone()
        if self.head is None:
            raise AssertionError("the application did not call start_response before the body of its response")
        return self.head

    def _end_frame(self):
        body = self._body
        if body.broken:
            self._raise_client_gone()
        body.answered = True
        return CLOSING_END_FRAME if self._aborted or body.aborted else END_FRAME

    def _raise_client_gone(self):
        raise ConnectionAbortedError(errno.ECONNABORTED, "the client is gone")

    def _warn_excess(self, size):
        write_stderr("passenger_trio: %d bytes beyond the Content-Length of the response were dropped\n" % size)
        self._sent += size

    def _failed(self, error):
        if self.gone or self._aborted or self._body.aborted or self._body.broken:
            return  # The application was told that the client is gone, and stopped as it should.
        report = traceback_of(error)
        write_stderr(report)
        if self.begun:
            return  # No end frame: the client must see that the response is incomplete, unless it was complete before.
        payload = error_payload(error, report)
        self.begun = True
        try:
            self._write_all(frame_prefix(ERROR, len(payload)) + payload + self._end_frame())
            self.done = True
        except OSError:
            pass

    # The stream

    def _is_client_gone(self):
        """Whether an abort or the end of the stream has arrived. Asked only between the chunks of a response."""
        arrivals = self._arrivals
        if arrivals is None:
            arrivals = self._arrivals = poll()
            arrivals.register(self._conn, POLLIN | POLLRDHUP)
        for _, event in arrivals.poll(0):
            if event & (POLLRDHUP | POLLHUP | POLLERR):
                self._aborted = True
            elif not self._body.ended:
                self._aborted = self._body.look_for_abort()
            else:
                # Only an abort may follow a complete request. Anything else gets no answer, not even an end frame.
                self._aborted = True
                self.gone = self._conn.recv(5, MSG_DONTWAIT) != ABORT_FRAME
        return self._aborted or self._body.aborted or self._body.broken

    def _write_all(self, data):
        try:
            self._conn.sendall(data)
        except OSError:
            self.gone = True
            raise

    def _write_parts(self, parts):
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
            self._write_all(b"".join(parts))  # A socket of eventlet's: it waits in ``sendall`` only.
        except OSError:
            self.gone = True
            raise

    def _write_file(self, descriptor, at, size):
        try:
            return sendfile(self._conn.fileno(), descriptor, at, size)
        except ConnectionError:
            self.gone = True
            raise
        except OSError:
            # The fault is the file's, not the stream's. It may be readable all the same. If not, the application gets the error.
            data = pread(descriptor, min(size, BLOCK), at)
        self._write_all(data)
        return len(data)

    def _write_last(self, data):
        try:
            self._conn.sendall(data)
        except OSError:
            pass


def join_chunks(chunks):
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
