"""Runs an ASGI 3 application for passenger_trio, in the application's own interpreter.

    python asgi_loader.py              a worker: loads the application and serves it
    python asgi_loader.py --preload    a preloader: loads it once, and forks workers when it is asked to

This program keeps spawn_servers/CONTRACT.md, which is the text to read first. What loaders of every interface do is in
passenger_trio_loader.py, beside it; what is here is the session protocol (frames) and the ASGI specification: HTTP,
WebSocket and lifespan, on asyncio or on Trio. It runs on Python 3.8 and everything after it, on the standard library
alone (and on the Trio of the application's environment, where that is asked for), and imports nothing of the
supervisor. What it imports it imports before the application is loaded, under its own names; where WSGI was guessed this
file is itself imported after it, so what applications replace (gevent has no ``epoll``) comes from passenger_trio_loader.py.

The file is read from top to bottom:

    OnAsyncio, OnTrio     what an event loop must do for us: the rest knows only these two
    read_head             the payload of a head -> a connection scope
    Session               what an HTTP request and a WebSocket have in common: the application, and an HTTP response
    Http, WebSocket       the two kinds
    Stream                a connection from the supervisor: frames in, one session after another
    Lifespan              the application's start-up and shutdown
    Worker                the socket, the streams, the sessions, the event loop around them
    Asgi                  what the common part must know of it

Laws:

* The event loop runs in the main thread of a worker, never in a preloader. Each session is a task of its own; what
  reads a stream, and so sees the end of it, is never the task that runs the application.
* A frame is written whole, even if the task that sends it is cancelled: what the kernel does not take at once belongs
  to the stream. ``send`` waits until the kernel has it.
* A small response costs one write. A chunk of a longer one is written before ``send`` returns, and other tasks have
  their turn then.
* Whatever arrives that is not in the contract ends its stream. It is never answered, and the worker lives.
* Nothing that the application raises ends the worker, ``sys.exit()`` in a request or in a task of its own included.
* A session is over on the wire when its last frame is written: what the application does behind that (background
  tasks) holds up no other request, only the end of the worker.
* When the client is gone, ``receive`` says so, and what is sent is dropped, as version 2.3 of the HTTP specification
  has it. On Trio the application is cancelled.
"""

import errno
import os
import select
import sys
from collections import deque
from http import HTTPStatus
from operator import itemgetter
from socket import SHUT_RDWR

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from passenger_trio_loader import (
    ABORT,
    DATA,
    END,
    ERROR,
    HEAD,
    MAX_FRAME,
    MAX_HEAD,
    RESPONSE,
    THE_END,
    THE_LAST,
    Interface,
    Leave,
    Step,
    Unfit,
    belongings,
    class_name,
    epoll,
    error_payload,
    frame,
    is_coroutine_function,
    monotonic,
    nothing_to_read,
    open_listener,
    remove_file,
    run,
    say,
    start,
    text_of,
    traceback_of,
)

del sys.path[0]

EPOLLRDHUP = getattr(select, "EPOLLRDHUP", 0x2000)  # Linux has it; PyPy may not have the name.

INTERIM, ACCEPT, TEXT, BINARY, CLOSE, TRAILERS = b"IWTBCL"
LIMITS = {
    HEAD: (1, MAX_HEAD),
    DATA: (1, MAX_FRAME),
    END: (0, 0),
    ABORT: (0, 0),
    TEXT: (0, MAX_FRAME),
    BINARY: (0, MAX_FRAME),
    CLOSE: (0, 125),
}
"""Frames to a worker: least and greatest length."""

BLOCK = 65536
"""Bytes asked from the kernel at a time. A body up to this size is copied next to its head, to be one write."""
HIGH_WATER = 65536
"""Bytes that wait for the application to receive them before the stream is not read any more."""
MOST_MESSAGES = 64
"""The same for the messages of a WebSocket, which may be empty."""
BACKLOG = 4096
"""Connections that may come at once where any number of sessions is served. (The kernel has a limit of its own.)"""
DRAIN_BYTES = 1024 * 1024
"""How much of a body that came too late for the response is dropped to save the stream."""
DEAF_TIME = 10.0
"""Seconds for which an application may go on sending to a client that is gone. Then ``send`` raises: it would not end
by itself."""

SPECIFICATION = {"version": "3.0", "spec_version": "2.3"}
HTTP_EXTENSIONS = ("http.response.early_hint",)
TRAILERS_EXTENSION = "http.response.trailers"
"""Only where the client takes them (``TE``)."""
WEBSOCKET_EXTENSIONS = ("websocket.http.response",)

NORMAL, NO_STATUS, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1005, 1006, 1011, 1012
"""Close codes of WebSockets (RFC 6455, 7.4.1, and its registry)."""


# ------------------------------------------------------------------------------------------------------------
# Event loops


class OnAsyncio:
    """An event loop of asyncio: of the policy that the application has set, so this may be another's."""

    always_pauses = False

    def __init__(self):
        import asyncio
        from contextvars import copy_context

        self._asyncio = asyncio
        self._copy_context = copy_context
        self._loop = None
        self._context = None
        self._tasks = set()

    def run(self, main, lifeline):
        """Run ``main`` to its end, then end what the application has left running.

        :raises BaseException: what ``main`` raised.
        """
        asyncio = self._asyncio
        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._context = self._copy_context()
        task = loop.create_task(main())
        try:
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except Leave:
                    raise
                except BaseException as error:
                    # An exit in a task or a callback of the application's goes through the loop and stops it.
                    if lifeline.leaving:
                        raise Leave(0)
                    if not task.done():
                        say(traceback_of(error))
            task.result()
        except BaseException:
            loop.set_exception_handler(lambda loop, context: None)  # The tasks that are left are no news.
            if lifeline.deserted:
                say_no_more()
            raise
        left = asyncio.all_tasks(loop)
        for one in left:
            one.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        if hasattr(loop, "shutdown_default_executor"):  # from Python 3.9 on
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def start(self, function):
        """A task, which the loop alone would not keep alive."""
        task = self._loop.create_task(function())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def guard(self, session, function):
        await function()

    def interrupt(self, session):
        pass  # The application is told, and decides.

    def cancel(self, session):
        session.task.cancel()

    def is_ours(self, error):
        return False

    # The loop would run a callback in the context of whoever asked for it: that may be a request's, which others
    # must not see.

    def watch(self, conn, callback):
        self._context.copy().run(self._loop.add_reader, conn, callback)

    def unwatch(self, conn):
        self._loop.remove_reader(conn)

    def watch_writable(self, conn, callback):
        self._context.copy().run(self._loop.add_writer, conn, callback)

    def unwatch_writable(self, conn):
        self._loop.remove_writer(conn)

    def call_later(self, seconds, callback):
        self._context.copy().run(self._loop.call_later, seconds, callback)

    def call_from_thread(self, callback):
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # It has ended.

    async def pause(self):
        """Let other tasks have their turn."""
        await self._asyncio.sleep(0)

    def bell(self):
        return AsyncioBell(self._loop)


class AsyncioBell:
    """Wakes all who wait. They look then whether what they wait for is there."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop):
        self._loop = loop
        self._waiters = []

    def ring(self):
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self):
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)


def say_no_more():
    """The supervisor is gone, and with it whoever reads what the interpreter says of tasks and threads that were left in the middle of something."""
    import warnings

    warnings.simplefilter("ignore")
    sys.stderr = open(os.devnull, "w")


class OnTrio:
    """The Trio of the application's environment."""

    always_pauses = True

    def __init__(self):
        """:raises Unfit: there is none."""
        try:
            import trio
            from contextvars import copy_context
        except ImportError as error:
            raise Unfit(
                "configuration",
                "--loop trio: the application's environment has no Trio",
                "The application is to run on Trio, but %s (Python %s) cannot import it: %s."
                % (sys.executable, sys.version.split()[0], text_of(error)),
                "Install it: %s -m pip install trio. Or run the application on asyncio: --loop asyncio."
                % sys.executable,
            )
        self._trio = trio
        self._copy_context = copy_context
        self._context = None
        self._nursery = None
        self._token = None
        self._failure = None
        self._watches = {}
        self._writers = {}

    def run(self, main, lifeline):
        # Trio wants the wake-up descriptor while it starts, and needs it for Ctrl-C alone, which is not for us.
        lifeline.take_wakeup(False)
        try:
            self._trio.run(self._main, main, lifeline)
        except BaseException:
            if lifeline.deserted:
                say_no_more()
            raise
        finally:
            lifeline.take_wakeup()
        if self._failure is not None:
            raise self._failure

    async def _main(self, main, lifeline):
        lifeline.take_wakeup()
        self._token = self._trio.lowlevel.current_trio_token()
        self._context = self._copy_context()
        async with self._trio.open_nursery() as self._nursery:
            try:
                await main()
            except Exception as error:
                self._failure = error  # The nursery would wrap it.
            self._nursery.cancel_scope.cancel()

    def start(self, function):
        # A task would get the context of whoever starts it: that may be a request's, which others must not see.
        self._context.copy().run(self._nursery.start_soon, function)

    async def guard(self, session, function):
        with self._trio.CancelScope() as session.cancel_scope:
            if session.gone or session.cancelled:
                session.cancel_scope.cancel()  # Before it began.
            await function()

    def interrupt(self, session):
        if session.cancel_scope is not None:
            session.cancel_scope.cancel()

    cancel = interrupt

    def is_ours(self, error):
        """Whether it is the cancellation of everything."""
        return isinstance(error, self._trio.Cancelled)

    def watch(self, conn, callback):
        watch = self._watches[conn] = _Watch(self._trio, conn, self._trio.lowlevel.wait_readable, callback)
        self.start(watch.run)

    def unwatch(self, conn):
        watch = self._watches.pop(conn, None)
        if watch is not None:
            watch.end()

    def watch_writable(self, conn, callback):
        watch = self._writers[conn] = _Watch(self._trio, conn, self._trio.lowlevel.wait_writable, callback)
        self.start(watch.run)

    def unwatch_writable(self, conn):
        watch = self._writers.pop(conn, None)
        if watch is not None:
            watch.end()

    def call_later(self, seconds, callback):
        async def call():
            await self._trio.sleep(seconds)
            callback()

        self.start(call)

    def call_from_thread(self, callback):
        try:
            self._token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            pass

    async def pause(self):
        await self._trio.lowlevel.checkpoint()

    def bell(self):
        return TrioBell(self._trio)


class _Watch:
    """Calls back whenever a descriptor is ready, until it is told to end: also by the callback."""

    def __init__(self, trio, conn, wait, callback):
        self._scope = trio.CancelScope()
        self._conn = conn
        self._wait = wait
        self._callback = callback
        self._on = True

    async def run(self):
        with self._scope:
            while self._on:
                await self._wait(self._conn)
                if self._on:
                    self._callback()

    def end(self):
        self._on = False
        self._scope.cancel()


class TrioBell:
    __slots__ = ("_event", "_trio")

    def __init__(self, trio):
        self._trio = trio
        self._event = None

    def ring(self):
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self):
        if self._event is None:
            self._event = self._trio.Event()
        await self._event.wait()


LOOPS = {"asyncio": OnAsyncio, "trio": OnTrio}


# ------------------------------------------------------------------------------------------------------------
# Heads

REQUIRED = (
    b"REQUEST_METHOD", b"REQUEST_URI", b"SCRIPT_NAME", b"PATH_INFO", b"QUERY_STRING", b"SERVER_PROTOCOL",
    b"SERVER_NAME", b"SERVER_PORT", b"REMOTE_ADDR", b"REMOTE_PORT", b"REQUEST_SCHEME",
)  # fmt: skip
take_required = itemgetter(*REQUIRED)

ESCAPES = {(a + b).encode(): bytes((int(a + b, 16),)) for a in "0123456789ABCDEFabcdef" for b in "0123456789ABCDEFabcdef"}
SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/!$&'()*+,;=:@")

header_names = {b"CONTENT_TYPE": b"content-type", b"CONTENT_LENGTH": b"content-length", **dict.fromkeys(REQUIRED)}
"""Names in a head -> names of header fields, or None: those that have been seen, as far as they are few."""


def header_name(name):
    found = name[5:].lower().replace(b"_", b"-") if name.startswith(b"HTTP_") else None
    if len(header_names) < 1000:  # Clients make them up.
        header_names[name] = found
    return found


def percent_decoded(path):
    """What is no escape stays."""
    first, *parts = path.split(b"%")
    pieces = [first]
    for part in parts:
        byte = ESCAPES.get(part[:2])
        pieces += (b"%", part) if byte is None else (byte, part[2:])
    return b"".join(pieces)


def percent_encoded(text):
    return "".join(chr(byte) if byte in SAFE else "%%%02X" % byte for byte in text).encode()


def address(host, port):
    """What the scope says of a peer; None where it has no name (a Unix socket)."""
    return (host.decode("latin-1"), int(port)) if host and port.isdigit() else None


def decoded_path(found):
    return found[b"SERVER_SOCKET"].decode(errors="surrogateescape")


def read_head(payload):
    """A connection scope without ``state``; None if the head is not as the contract has it."""
    fields = payload.split(b"\0")
    if fields.pop() or len(fields) % 2:
        return None
    found = dict(zip(fields[0::2], fields[1::2]))
    if len(found) != len(fields) // 2 or b"" in found:
        return None
    try:
        method, target, root, path, query, protocol, host, port, peer, peer_port, scheme = take_required(found)
    except KeyError:
        return None
    if not path and not root and method == b"OPTIONS":
        path = b"*"  # the target itself, where CGI has no path
    if b"%" in path:
        raw, path = path, percent_decoded(path)
    else:
        raw = path
    # The path has the root path in front, and so has the target, if it is a path.
    raw = target.partition(b"?")[0] if target.startswith(b"/") else percent_encoded(root) + raw
    headers = []
    for name, value in found.items():
        try:
            field = header_names[name]
        except KeyError:
            field = header_name(name)
        if field is not None:
            headers.append((field, value))
    scheme = scheme.decode("latin-1")
    scope = {
        "type": "http",
        "asgi": SPECIFICATION.copy(),
        "http_version": protocol.decode("latin-1").partition("/")[2] or "1.1",
        "method": method.decode("latin-1"),
        "scheme": scheme,
        "path": (root + path).decode("utf-8", "replace"),
        "raw_path": raw,
        "query_string": query,
        "root_path": root.decode("utf-8", "replace"),
        "headers": headers,
        "client": address(peer, peer_port),
        "server": (decoded_path(found), None) if b"SERVER_SOCKET" in found else address(host, port),
    }
    if scheme in ("ws", "wss"):
        scope["type"] = "websocket"
        del scope["method"]
        protocols = found.get(b"HTTP_SEC_WEBSOCKET_PROTOCOL", b"").decode("latin-1").split(",")
        scope["subprotocols"] = [protocol.strip() for protocol in protocols if protocol.strip()]
        scope["extensions"] = {name: {} for name in WEBSOCKET_EXTENSIONS}
    else:
        scope["extensions"] = {name: {} for name in HTTP_EXTENSIONS}
        if b"HTTP_TE" in found:
            scope["extensions"][TRAILERS_EXTENSION] = {}
    return scope


REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}


def encoded_fields(headers):
    """Pairs of header fields, and what they say of the body's length, or None."""
    parts = []
    length = None
    try:
        for name, value in headers:
            parts += (name, value)
            # A length that is no number is the supervisor's to judge.
            if len(name) == 14 and name.lower() == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 19 else None
        parts.append(b"")
        data = b"\0".join(parts)
    except Exception:
        raise bad_field(headers) from None
    if data.count(b"\0") != len(parts) - 1 or b"" in parts[0:-1:2] or len(data) > MAX_HEAD - 1000:
        raise bad_field(headers)
    return data, length


def bad_field(headers):
    """What is wrong with header fields that could not be encoded."""
    try:
        headers = list(headers)
    except TypeError:
        return TypeError("the headers must be a list of names and values, not %s" % type(headers).__name__)
    for header in headers:
        try:
            name, value = header
        except (TypeError, ValueError):
            return TypeError("a header must be a name and a value, not %r" % (header,))
        for text in (name, value):
            if not isinstance(text, (bytes, bytearray, memoryview)):
                return TypeError("the header %r: a name or value must be bytes, not %s" % (name, type(text).__name__))
            if b"\0" in bytes(text):
                return ValueError("the header %r has a byte that HTTP cannot carry" % (name,))
        if not name:
            return ValueError("a header has an empty name")
    return ValueError("the head is longer than %d bytes" % MAX_HEAD)


def is_farewell(error):
    """Whether an exception is no more than what an application makes of a client that is gone."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return all(is_farewell(one) for one in inner)
    kind = type(error).__name__
    return isinstance(error, OSError) or "Disconnect" in kind or kind == "CancelledError"


def is_cancellation(error):
    """Whether an exception is a task's cancellation, and nothing else."""
    inner = getattr(error, "exceptions", None)
    return all(map(is_cancellation, inner)) if inner else type(error).__name__ == "CancelledError"


def whole_response(head, body):
    return start(RESPONSE, len(head)) + head + start(DATA, len(body)) + body + THE_LAST


TOO_LATE = whole_response(
    b"503\0Service Unavailable\0content-type\0text/plain\0content-length\x0059\0",
    b"The process is to end, and this request has taken too long.",
)
"""The answer to a request that is cancelled because the process is to end."""


# ------------------------------------------------------------------------------------------------------------
# Sessions


class Session:
    """One run of the application.

    ``expects`` has the types of the frames that may come next. ``gone`` says that the client is gone or that the
    stream is broken, ``done`` that an HTTP response is complete on the wire, ``over`` that the application has
    returned. ``begun`` says that a response head was sent.
    """

    expects = b"DEA"
    cancel_scope = None
    task = None
    cancelled = False
    """By us, because the process is to end."""

    def __init__(self, stream, scope):
        self.stream = stream
        self.scope = scope
        self.worker = stream.worker
        self.loop = self.worker.loop
        self.bell = self.loop.bell()
        self.head = None
        self.begun = False
        self.done = False
        self.over = False
        self.gone = False
        self.gone_at = 0.0
        self._is_head = scope.get("method") == "HEAD"
        self._no_body = self._is_head
        self._length = None
        """What the response head says of the body's length."""
        self._sent = 0
        self._trailers = None
        """Fields behind the body, once the head has promised them."""
        self._body_ended = False

    async def run(self):
        try:
            await self.loop.guard(self, self._call)
        except Leave:
            raise
        except BaseException as error:
            if self.worker.is_leaving or self.loop.is_ours(error):
                raise
            self.over = True
            if self.cancelled and not self.done and is_cancellation(error):
                self.cut_short()
            else:
                self.failed(error)
        else:
            self.over = True
            if self.cancelled and not self.done:
                self.cut_short()
            else:
                self.returned()
        self.worker.forget(self)

    async def _call(self):
        await self.worker.application(self.scope, self.receive, self.send)

    def lost(self):
        """The client is gone, or the stream is."""
        if self.gone:
            return
        self.gone = True
        self.gone_at = monotonic()
        self.bell.ring()
        if not self.done:
            self.loop.interrupt(self)
        if self.over or self.done:
            self.stream.end_last(not self.done)

    def report(self, error):
        """The application raised: True if that is an error, and has been written to the log."""
        if (self.gone or self.gone_at) and is_farewell(error):
            return False
        say(traceback_of(error))
        return True

    def answer_error(self, error):
        """In place of a response."""
        payload = error_payload(error, traceback_of(error))
        self.begun = True
        self.done = True
        self.stream.write(start(ERROR, len(payload)) + payload + THE_END)

    async def drop(self):
        """Something was sent that nobody takes any more."""
        if monotonic() - self.gone_at > DEAF_TIME:
            raise ConnectionAbortedError("the client is gone, and this has been going on for %d s" % DEAF_TIME)
        await self.loop.pause()

    def cut_short(self):
        """It was cancelled, because the process is to end, and has not answered."""
        if self.gone:
            self.stream.end_last(not self.done)
        elif self.begun:
            self.cut()
        else:
            self.begun = self.done = True
            self.stream.write(TOO_LATE)
            self.stream.end_last(False)

    # An HTTP response

    def take_start(self, message):
        if self.head is not None:
            raise RuntimeError("%s was sent twice" % message["type"])
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError("not the status of a response: %r" % (status,))
        fields, self._length = encoded_fields(message.get("headers", ()))
        self.head = b"%d\0%s\0%s" % (status, REASONS.get(status, b""), fields)
        self._no_body = self._is_head or status in (204, 304)
        if message.get("trailers") and message["type"] == "http.response.start":
            self._trailers = []

    async def take_body(self, message):
        if self.head is None:
            raise RuntimeError("%s was sent before the start of the response" % message["type"])
        body = message.get("body", b"")
        if type(body) is not bytes:
            if not isinstance(body, (bytes, bytearray, memoryview)):
                raise TypeError("the body must be bytes, not %s" % type(body).__name__)
            body = bytes(body)
        more = message.get("more_body", False)
        parts = []
        size = len(body)
        if not self.begun:
            head = self.head
            # Nothing is known of the body of a HEAD request's GET from an empty one.
            if not more and self._trailers is None and self._length is None and (not self._no_body or (self._is_head and size)):
                head += b"content-length\0%d\0" % size
                self._length = size
            parts += (start(RESPONSE, len(head)), head)
            self.begun = True
        excess = 0
        if self._no_body:
            size = 0
            complete = True
        else:
            if self._length is not None:
                excess = max(0, self._sent + size - self._length)
                if excess:
                    body = body[:-excess]
                    size -= excess
            self._sent += size
            complete = self._sent == self._length if self._length is not None else not more
            if self._trailers is not None and complete:
                complete = False
                more = self._body_ended = True
        for at in range(0, size, MAX_FRAME):
            piece = body if size <= MAX_FRAME else memoryview(body)[at : at + MAX_FRAME]
            parts += (start(DATA, len(piece)), piece)
        stream = self.stream
        if complete:
            parts.append(THE_END)
            self.done = True
        if size <= BLOCK:
            stream.write(b"".join(parts))
        else:
            stream.write_parts(parts)
        if excess:
            say("passenger_trio: %d bytes beyond the Content-Length of the response were dropped\n" % excess)
        if complete:
            self.bell.ring()
            self.wire_over()
        elif not more:
            self._tell_short()
        if stream.is_behind:
            await stream.flushed()
        if not complete or self.loop.always_pauses:
            await self.loop.pause()

    def send_head_alone(self):
        """The application has returned without any body."""
        head = self.head
        if self._length is None and not self._no_body:
            head += b"content-length\x000\0"
        self.begun = True
        self.stream.write(start(RESPONSE, len(head)) + head)
        if self._length and not self._no_body:
            self._tell_short()
        else:
            self.done = True
            self.stream.write(THE_END)

    def take_trailers(self, message):
        if self._trailers is None:
            raise RuntimeError("trailers are sent, but http.response.start has not said that there would be any")
        if not self._body_ended:
            raise RuntimeError("trailers were sent before the end of the body")
        self._trailers += message.get("headers", ())
        if not message.get("more_trailers", False):
            self.end_with_trailers()

    def end_with_trailers(self):
        data = b""
        if self._trailers and TRAILERS_EXTENSION in self.scope["extensions"]:
            fields, _ = encoded_fields(self._trailers)
            data = start(TRAILERS, len(fields)) + fields
        self.done = True
        self.stream.write(data + THE_END)
        self.bell.ring()
        self.wire_over()

    def cut(self):
        """No end: the client must see that the response is incomplete."""
        self.done = True
        self.bell.ring()
        self.stream.end_last(False)

    def _tell_short(self):
        say(
            "passenger_trio: the response ended after %d of the %d bytes of its Content-Length\n"
            % (self._sent, self._length)
        )
        self.cut()


class Http(Session):
    """A request and its response."""

    def __init__(self, stream, scope):
        super().__init__(stream, scope)
        self.ended = False
        """The whole request body has come."""
        self._body = []
        self._size = 0
        self._told = False
        """The application has received all of it."""
        self._dropped = 0

    # What comes

    def take_piece(self, kind, piece, is_last):
        if self.done or self.over:
            self._dropped += len(piece)
            if self._dropped > DRAIN_BYTES:
                self.stream.end_last(False)
            return
        self._body.append(piece)
        self._size += len(piece)
        self.bell.ring()
        if self._size > HIGH_WATER:
            self.stream.pause()

    def take_end(self):
        self.ended = True
        self.expects = b"A"
        self.bell.ring()
        self.wire_over()

    def wire_over(self):
        """Give the stream back, if nothing of this session comes or goes any more."""
        if self.done and self.ended and not self.gone:
            self.stream.release(self)
        elif self.done:
            # What is left of the body is dropped, up to a point.
            self._body.clear()
            self.stream.resume()
            if self.worker.stopping:
                self.loop.call_later(0, self.stream.look_again)

    # What the application calls

    async def receive(self):
        if self.loop.always_pauses:
            await self.loop.pause()
        while True:
            if self.gone or self.done:
                return {"type": "http.disconnect"}
            if self._body or (self.ended and not self._told):
                body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
                self._body.clear()
                self._size = 0
                self._told = self.ended
                self.stream.resume()
                return {"type": "http.request", "body": body, "more_body": not self.ended}
            await self.bell.wait()

    async def send(self, message):
        kind = message["type"]
        if self.gone:
            await self.drop()
        elif self.done:
            if self.loop.always_pauses:
                await self.loop.pause()  # The specification: further messages are ignored.
        elif kind == "http.response.body":
            await self.take_body(message)
        elif kind == "http.response.start":
            self.take_start(message)
        elif kind == "http.response.trailers":
            self.take_trailers(message)
        elif kind == "http.response.early_hint":
            self._hint(message)
        else:
            raise RuntimeError("%r cannot be sent in an HTTP session" % (kind,))

    def _hint(self, message):
        if not self.begun:
            fields, _ = encoded_fields([(b"link", link) for link in message["links"]])
            head = b"103\0Early Hints\0" + fields
            self.stream.write(start(INTERIM, len(head)) + head)

    # What comes of it

    def returned(self):
        if self.gone:
            self.stream.end_last(not self.done)
        elif self._body_ended and not self.done:
            self.end_with_trailers()  # They were promised, and there are none.
        elif not self.done and self.head is not None and not self.begun:
            # A head, and no word of a body: that is what there is.
            self.send_head_alone()
            self.wire_over()
        elif not self.done:
            self._unfinished(RuntimeError("the application returned without sending a whole response"))

    def failed(self, error):
        if not self.report(error) or self.gone:
            self.stream.end_last(not self.done)
        elif not self.done:
            self._unfinished(error, told=True)

    def _unfinished(self, error, told=False):
        if not told:
            say("passenger_trio: %s\n" % error)
        if self.begun:
            self.cut()
        else:
            self.answer_error(error)
            self.wire_over()


class WebSocket(Session):
    """A handshake, and then messages; or a handshake, and then an HTTP response that refuses it."""

    expects = b"EA"

    def __init__(self, stream, scope):
        super().__init__(stream, scope)
        self.ended = False
        self._greeted = False
        self._accepted = False
        self._said_close = None
        """(code, reason) that the application has sent; and those that have come:"""
        self._heard_close = None
        self._told = False
        """The application has received the disconnect."""
        self._messages = deque()
        self._size = 0
        self._parts = []

    # What comes

    def take_end(self):
        self.ended = True
        self._expect()
        self._give_back()

    def _expect(self):
        if not self.ended:
            self.expects = b"EA"  # The application may be faster than the end of its request.
        else:
            self.expects = b"TBCA" if self._accepted and self._heard_close is None else b"A"

    def take_piece(self, kind, piece, is_last):
        """:raises ValueError: a text is not UTF-8."""
        self._parts.append(piece)
        if not is_last:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        if kind == TEXT:
            message = {"type": "websocket.receive", "text": data.decode()}
        else:
            message = {"type": "websocket.receive", "bytes": data}
        if self.over or self._said_close is not None:
            return
        self._messages.append((message, len(data)))
        self._size += len(data)
        self.bell.ring()
        if self._size > HIGH_WATER or len(self._messages) > MOST_MESSAGES:
            self.stream.pause()

    def take_close(self, payload):
        """:raises ValueError: it is no code and a reason."""
        if len(payload) == 1:
            raise ValueError("half a close code")
        self._heard_close = (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (NO_STATUS, "")
        self.gone_at = self.gone_at or monotonic()
        self._expect()
        self.bell.ring()
        self.wire_over()

    def wire_over(self):
        """Give the stream back: the handshake was refused, or both sides have closed and the application is done."""
        if self.gone:
            return
        if self._accepted and self.over and self._heard_close is not None:
            self.done = True
            self.stream.write(THE_END)
        self._give_back()

    def _give_back(self):
        if self.done and self.ended and not self.gone:
            self.stream.release(self)

    # What the application calls

    async def receive(self):
        if self.loop.always_pauses:
            await self.loop.pause()
        while True:
            if not self._greeted:
                self._greeted = True
                return {"type": "websocket.connect"}
            if self._messages:
                message, size = self._messages.popleft()
                self._size -= size
                if not self._messages:
                    self.stream.resume()
                return message
            if self.gone or self.done or self._heard_close or self._said_close:
                self._told = True
                code, reason = self._said_close or self._heard_close or (ABNORMAL, "")
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self.bell.wait()

    async def send(self, message):
        kind = message["type"]
        if self.gone or self._heard_close:
            if not self._told:
                self.loop.interrupt(self)
            await self.drop()
        elif self.done or self._said_close:
            await self.loop.pause()  # Too late for anything.
        elif self._accepted:
            if kind == "websocket.send":
                await self._send(message)
            elif kind == "websocket.close":
                self._close(message.get("code"), message.get("reason"))
            else:
                raise RuntimeError("%r cannot be sent on an open WebSocket" % (kind,))
        elif kind == "websocket.http.response.body":
            await self.take_body(message)
        elif kind == "websocket.http.response.start":
            self.take_start(message)
        elif self.head is not None:
            raise RuntimeError("%r cannot be sent: an HTTP response has begun" % (kind,))
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self.take_start({"type": kind, "status": 403})
            await self.take_body({"type": kind})
        else:
            raise RuntimeError("%r cannot be sent before websocket.accept" % (kind,))

    def _accept(self, message):
        fields, _ = encoded_fields(message.get("headers") or ())
        if any(name.lower() == b"sec-websocket-protocol" for name, _ in message.get("headers") or ()):
            raise ValueError("the header sec-websocket-protocol is made of the subprotocol of websocket.accept")
        subprotocol = message.get("subprotocol")
        if subprotocol:
            fields += encoded_fields([(b"sec-websocket-protocol", subprotocol.encode("latin-1"))])[0]
        self._accepted = True
        self._expect()
        self.stream.write(start(ACCEPT, len(fields)) + fields)

    async def _send(self, message):
        text = message.get("text")
        data = message.get("bytes")
        if (text is None) == (data is None):
            raise ValueError("websocket.send has either text or bytes")
        kind, payload = (BINARY, bytes(data)) if text is None else (TEXT, text.encode())
        if len(payload) > MAX_FRAME:
            raise ValueError("a message of %d bytes cannot be sent: at most %d" % (len(payload), MAX_FRAME))
        stream = self.stream
        if len(payload) <= BLOCK:
            stream.write(start(kind, len(payload)) + payload)
        else:
            stream.write_parts([start(kind, len(payload)), payload])
        if stream.is_behind:
            await stream.flushed()
        await self.loop.pause()

    def _close(self, code, reason):
        code = NORMAL if code is None else code
        if not (isinstance(code, int) and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)):
            raise ValueError("not a close code that can be sent: %r" % (code,))
        text = (reason or "").encode()
        if len(text) > 123:
            raise ValueError("the reason of a close takes at most 123 bytes, not %d" % len(text))
        self._said_close = code, reason or ""
        self._messages.clear()
        self.stream.write(start(CLOSE, 2 + len(text)) + code.to_bytes(2, "big") + text)
        self.stream.resume()
        self.bell.ring()

    # What comes of it

    def returned(self):
        if not self._accepted and not self.done and not self.gone:
            self._refused(RuntimeError("the application returned without an answer to the WebSocket handshake"))
        else:
            self._finish(NORMAL)

    def failed(self, error):
        is_error = self.report(error)
        if not self._accepted and not self.done and not self.gone and is_error:
            self._refused(error, told=True)
        else:
            self._finish(INTERNAL_ERROR)

    def cut_short(self):
        if self._accepted:
            self._finish(SERVICE_RESTART)
        else:
            super().cut_short()

    def _refused(self, error, told=False):
        if not told:
            say("passenger_trio: %s\n" % error)
        if self.begun:
            self.cut()
        else:
            self.answer_error(error)
            self.wire_over()

    def _finish(self, code):
        if self.gone:
            self.stream.end_last(not self.done)
        elif self._accepted:
            if not (self._said_close or self._heard_close):
                self._close(code, "")
            self._messages.clear()
            self.stream.resume()
            self.wire_over()


# ------------------------------------------------------------------------------------------------------------
# Streams


class Stream:
    """A connection from the supervisor: one session after another."""

    __slots__ = (
        "_closing",
        "_conn",
        "_drained",
        "_ended",
        "_fresh",
        "_kind",
        "_left",
        "_partial",
        "_paused",
        "_pending",
        "session",
        "worker",
    )

    def __init__(self, worker, conn):
        self.worker = worker
        self.session = None
        self._conn = conn
        self._partial = b""
        """What came of a frame that is not cut into pieces, or of the first five bytes of one that is."""
        self._kind = 0
        self._left = 0
        """Bytes of the frame under way that have not come."""
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
            if self.session is None and not self._partial and not self._ended:
                self._read_no_more()
                self.end_last(False)  # Behind the rest of the last response.
        elif self.session is not None and self.session.done and not self.session.ended:
            session = self.session
            while self.session is session and not self._ended and not nothing_to_read(self._conn):
                self.on_readable()
            if self.session is session:
                self.end_last(False)

    def _take(self, data):
        at = 0
        if self._left:
            piece = data[: self._left]
            at = len(piece)
            self._left -= at
            if not self._hand_over(piece):
                return
        elif self._partial:
            data = self._partial + data
            self._partial = b""
        size = len(data)
        while at < size and not self._ended:
            session = self.session
            kind = data[at]
            # Garbage is not waited for.
            if kind not in (b"H" if session is None else session.expects):
                self._refuse()
                return
            if size - at < 5:
                break
            length = frame.unpack_from(data, at)[1]
            least, most = LIMITS[kind]
            if not least <= length <= most:
                self._refuse()
                return
            begin = at + 5
            if kind == HEAD or kind == CLOSE:
                if size - begin < length:
                    break
                at = begin + length
                if not (self._begin if kind == HEAD else self._hear_close)(data[begin:at]):
                    self._refuse()
                    return
            elif kind == END:
                at = begin
                session.take_end()
            elif kind == ABORT:
                self._read_no_more()
                session.lost()
                break
            else:
                piece = data[begin : begin + length]
                at = begin + len(piece)
                self._kind = kind
                self._left = length - len(piece)
                if not self._hand_over(piece):
                    return
        if at < size and not self._ended:
            self._partial = data[at:]
        session = self._fresh
        if session is not None:
            self._fresh = None
            if session.gone:
                self.end_last(True)
            else:
                self.worker.begin(session)

    def _hand_over(self, piece):
        try:
            self.session.take_piece(self._kind, piece, not self._left)
        except ValueError:
            self._refuse()
            return False
        return not self._ended

    def _hear_close(self, payload):
        try:
            self.session.take_close(payload)
        except ValueError:
            return False
        return True

    def _begin(self, payload):
        scope = read_head(payload)
        if scope is None:
            return False
        scope["state"] = self.worker.lifespan.state.copy()
        self.session = self._fresh = (WebSocket if scope["type"] == "websocket" else Http)(self, scope)
        return True

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


# ------------------------------------------------------------------------------------------------------------
# The application's life


class Lifespan:
    """Start-up and shutdown of the application, if it knows of them. ``state`` is what it keeps for its sessions."""

    cancel_scope = None
    cancelled = False
    gone = False

    def __init__(self, worker):
        self.state = {}
        self._worker = worker
        self._bell = worker.loop.bell()
        self._events = ["lifespan.startup"]
        self._received = 0
        self._answers = {}
        """Name of the answer -> its message."""
        self._over = False
        self._error = None

    async def begin(self):
        """:raises Unfit: the application says that its start-up failed."""
        self._worker.loop.start(self._run)
        while not (self._over or "lifespan.startup.complete" in self._answers):
            # Behind a failure it usually raises, and its traceback is worth waiting for.
            if "lifespan.startup.failed" in self._answers and self._received > 1:
                break
            await self._bell.wait()
        if "lifespan.startup.failed" in self._answers:
            message = str(self._answers["lifespan.startup.failed"].get("message", ""))
            error = self._error
            last = [line for line in message.splitlines() if line.strip()][-1:]
            what = "%s: %s" % (class_name(error), text_of(error)) if error is not None else "".join(last)
            report = traceback_of(error) if error is not None else message
            say(report + "\n")
            raise Unfit(
                "application",
                "The application failed in its start-up (lifespan): %s" % (what or "it does not say why"),
                "It answered lifespan.startup with lifespan.startup.failed. The traceback says where, if it told.",
                "Mend the application, or what its start-up needs (a database, another service). "
                "It is started again with the next request, or when it is restarted.",
                traceback=report,
            )
        if self._error is not None and self._received:
            # The specification: go on without. But it knew what was asked.
            say(traceback_of(self._error))
            say("passenger_trio: the application's lifespan has ended with this error; it is served without it\n")

    async def end(self):
        if self._over or "lifespan.startup.complete" not in self._answers:
            return
        self._events.append("lifespan.shutdown")
        self._bell.ring()
        while not (self._over or any(name.startswith("lifespan.shutdown.") for name in self._answers)):
            await self._bell.wait()
        failed = self._answers.get("lifespan.shutdown.failed")
        if failed is not None:
            say("passenger_trio: the application failed in its shutdown: %s\n" % failed.get("message", ""))

    async def _run(self):
        try:
            await self._worker.loop.guard(self, self._call)
        except Leave:
            raise
        except BaseException as error:
            if self._worker.is_leaving or self._worker.loop.is_ours(error):
                raise
            self._error = error
            if "lifespan.startup.complete" in self._answers:
                say(traceback_of(error))
        self._over = True
        self._bell.ring()

    async def _call(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._worker.application(scope, self._receive, self._send)

    async def _receive(self):
        if self._worker.loop.always_pauses:
            await self._worker.loop.pause()
        self._received += 1
        self._bell.ring()
        while not self._events:
            await self._bell.wait()
        return {"type": self._events.pop(0)}

    async def _send(self, message):
        kind = message["type"]
        if kind not in (
            "lifespan.startup.complete",
            "lifespan.startup.failed",
            "lifespan.shutdown.complete",
            "lifespan.shutdown.failed",
        ):
            raise RuntimeError("%r cannot be sent in a lifespan" % (kind,))
        self._answers[kind] = message
        self._bell.ring()
        if self._worker.loop.always_pauses:
            await self._worker.loop.pause()


# ------------------------------------------------------------------------------------------------------------
# The worker


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
            shown = ["%s %s" % (session.scope.get("method", "WebSocket"), session.scope["path"]) for session in sessions]
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


# ------------------------------------------------------------------------------------------------------------
# The interface


class Asgi(Interface):
    name = "ASGI"
    own_file = __file__
    options = {"loop": str, "unlimited": bool, "app_type": str, "tasks": int}

    def __init__(self):
        self._loop = None
        self._is_free = False
        """The application says which loop it needs."""

    def prepare(self, options):
        loop = options["loop"]
        self._is_free = loop == "auto"
        if self._is_free:
            loop = "asyncio"
        if loop not in LOOPS:
            raise Unfit(
                "configuration",
                "There is no event loop %r" % options["loop"],
                "An ASGI application runs on asyncio or on Trio.",
                "Give one of: --loop %s." % " or ".join(LOOPS),
            )
        self._loop = LOOPS[loop]()

    def checked(self, found, name, where):
        if not callable(found):
            raise Unfit(
                "configuration",
                "%s in %s is not an ASGI application: it cannot be called" % (name, where),
                "It is of the type %s. An ASGI application is called with a scope, and the functions receive and send."
                % type(found).__name__,
                "Name the object that is the application, as in module:object"
                " (a function that makes one: module:factory()).",
            )
        if not is_coroutine_function(found) and takes_two(found):
            raise Unfit(
                "configuration",
                "%s in %s is a WSGI application, not an ASGI application" % (name, where),
                "It is a function of two arguments. ASGI calls an application with three: scope, receive and send.",
                "Serve it as WSGI (--app-type wsgi), or name an ASGI application instead, as in module:object.",
            )
        return found

    def worker(self, application, options, lifeline):
        loop = OnTrio() if self._is_free and needs_trio(application) else self._loop
        # Where another interface was guessed, ``threads`` counts what this one does not need.
        most = options["threads"] if options["app_type"] == "asgi" else options["tasks"]
        return Worker(application, options, lifeline, loop, most)


def needs_trio(found):
    """Whether an application is a Quart-Trio one, or wraps one."""
    for _ in range(10):
        if any(kind.__module__.partition(".")[0] == "quart_trio" for kind in type(found).__mro__):
            return True
        inner = vars(found) if hasattr(found, "__dict__") else {}
        found = next((inner[name] for name in ("app", "asgi_app", "_app", "application") if name in inner), None)
        found = getattr(found, "__self__", found)  # app.asgi_app = Middleware(app.asgi_app)
        if found is None:
            return False
    return False


def takes_two(found):
    """Whether it is certain that something takes two arguments, and not three."""
    code = getattr(found, "__code__", None)
    bound = 0
    if code is None:
        code = getattr(getattr(type(found), "__call__", None), "__code__", None)
        bound = 1
    return code is not None and code.co_argcount - bound == 2 and not code.co_flags & 0x04  # inspect.CO_VARARGS


if __name__ == "__main__":
    run(Asgi())
