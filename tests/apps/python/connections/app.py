"""An application for the rules of a connection: it waits at the test's gate, counts, digests, streams, dies, and says when it was told to end.

The gate is a Unix socket of the test (``GATE``). Notes go to the file ``NOTES``, a line each.
"""

import hashlib
import itertools
import os
import signal
import socket
import time

PLAIN = ("Content-Type", "text/plain")
SEED = bytes(range(256)) * 256
COUNT = itertools.count()


def application(environ, start_response):
    function = globals()["at_" + environ["PATH_INFO"].strip("/").replace("-", "_")]
    return function(environ, start_response, environ["QUERY_STRING"])


def note(text):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(text + "\n")


def wait_at_gate():
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ["GATE"])
        gate.sendall(b"%d\n" % os.getpid())
        gate.recv(1)


def plain(start_response, body, *fields):
    start_response("200 OK", [PLAIN, *fields])
    return [body]


def at_(environ, start_response, query):
    return plain(start_response, b"hello")


def at_pid(environ, start_response, query):
    return plain(start_response, b"%d" % os.getpid())


def at_count(environ, start_response, query):
    """How many came before this one, in this process."""
    return plain(start_response, b"%d" % next(COUNT))


def at_note(environ, start_response, query):
    note(query)
    return plain(start_response, b"noted")


def at_gate(environ, start_response, query):
    wait_at_gate()
    return plain(start_response, b"%d" % os.getpid())


def at_slow(environ, start_response, query):
    time.sleep(float(query))
    return plain(start_response, b"at last")


def at_digest(environ, start_response, query):
    """Of the body, which is read in blocks; also how much there was, and how long it was said to be."""
    digest, size = hashlib.sha256(), 0
    source = environ["wsgi.input"]
    while block := source.read(65536):
        digest.update(block)
        size += len(block)
    return plain(start_response, ("%s %d %s" % (digest.hexdigest(), size, environ.get("CONTENT_LENGTH"))).encode())


def at_cut_off(environ, start_response, query):
    """Reads its body and notes how that ended."""
    note("reading")
    try:
        size = len(environ["wsgi.input"].read())
    except OSError as error:
        note("cut off: %s" % type(error).__name__)
        raise
    note("whole: %d" % size)
    return plain(start_response, b"whole")


def at_unread(environ, start_response, query):
    """Leaves its body where it is, and answers with so many KiB."""
    return plain(start_response, b"u" * 1024 * int(query))


def at_big(environ, start_response, query):
    """So many MiB, in pieces; ``?length:10`` says so beforehand."""
    words = query.split(":")
    count = 16 * int(words[-1])
    start_response("200 OK", [PLAIN] + ([("Content-Length", str(count * len(SEED)))] if len(words) == 2 else []))
    return (SEED for _ in range(count))


class Pieces:
    """A piece, the gate, another piece. Notes when it is closed."""

    def __init__(self, count=2):
        self.left = count

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        if self.left == 0:
            wait_at_gate()
        return b"piece\n"

    def close(self):
        note("closed")


def at_stream(environ, start_response, query):
    """``?length`` declares the length, ``?more`` declares more than will come."""
    length = {"": [], "length": [("Content-Length", "12")], "more": [("Content-Length", "100")]}[query]
    start_response("200 OK", [PLAIN, *length])
    return Pieces()


class Endless:
    def __iter__(self):
        return self

    def __next__(self):
        return SEED

    def close(self):
        note("closed")


def at_endless(environ, start_response, query):
    start_response("200 OK", [PLAIN])
    return Endless()


class Thoughtful(list):
    def close(self):
        note("closed")


def at_thinks(environ, start_response, query):
    """Thinks at the gate before it answers, so that it cannot be told anything meanwhile. Is closed nevertheless."""
    note("thinking")
    wait_at_gate()
    start_response("200 OK", [PLAIN])
    return Thoughtful([b"thought"])


def at_length(environ, start_response, query):
    """``?says:is``: a body of another length than is declared."""
    says, is_ = map(int, query.split(":"))
    start_response("200 OK", [PLAIN, ("Content-Length", str(says))])
    return (b"x" for _ in range(is_))


def at_status(environ, start_response, query):
    """A status, and a body whether it may have one or not."""
    start_response(query + " Whatever", [PLAIN, ("Content-Length", "5")])
    return [b"body!"]


def at_header(environ, start_response, query):
    start_response("200 OK", [PLAIN, ("X-Bad", "a\r\nSet-Cookie: evil=1")])
    return [b"ok"]


def at_die(environ, start_response, query):
    note("dying")
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
