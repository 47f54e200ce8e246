"""Long responses and request bodies, made so that every byte can be checked. The path names the function, the query its argument."""

import hashlib
import os

BLOCK = 65536


def application(environ, start_response):
    return globals()["at_" + environ["PATH_INFO"].strip("/")](environ, start_response, environ["QUERY_STRING"])


def blocks(name, count):
    """``count`` blocks that differ from each other, and from those of other names."""
    for number in range(count):
        yield hashlib.sha256(b"%s %d" % (name.encode(), number)).digest() * (BLOCK // 32)


class Noted:
    """An iterable that tells a file when it is closed."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __iter__(self):
        return self.chunks

    def close(self):
        with open(os.environ["NOTES"], "a") as notes:
            notes.write("closed\n")


def at_length(environ, start_response, query):
    """``?name/count``: so many blocks of 64 KiB."""
    name, count = query.split("/")
    start_response("200 OK", [("Content-Length", str(int(count) * BLOCK))])
    return blocks(name, int(count))


def at_chunked(environ, start_response, query):
    name, count = query.split("/")
    start_response("200 OK", [])
    return blocks(name, int(count))


def at_noted(environ, start_response, query):
    start_response("200 OK", [])
    return Noted(blocks(query, 1 << 20))


def at_dies(environ, start_response, query):
    """So many blocks, then no process."""

    def body():
        yield from blocks("dies", int(query))
        os._exit(3)

    start_response("200 OK", [])
    return body()


def at_sum(environ, start_response, query):
    """Length and digest of the request body."""
    digest, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(262144):
        digest.update(piece)
        size += len(piece)
    start_response("200 OK", [])
    return [b"%d %s" % (size, digest.hexdigest().encode())]


def at_hello(environ, start_response, query):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def at_digest(environ, start_response, query):
    """Of the request body, which is read in small pieces."""
    whole = hashlib.sha256()
    while piece := environ["wsgi.input"].read(BLOCK):
        whole.update(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [whole.hexdigest().encode()]
