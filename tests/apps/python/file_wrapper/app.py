"""``wsgi.file_wrapper`` around files of every kind; the path says which. ``?PATH`` is the file."""

import gzip
import io
import os
import tempfile

closed = []


class Watched(io.FileIO):
    def close(self):
        closed.append(self.name)
        super().close()


class Endless:
    """A file-like object with nothing but ``read``."""

    def read(self, size):
        return b"x" * size


def application(environ, start_response):
    wrapper = environ["wsgi.file_wrapper"]
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    headers = [("Content-Type", "application/octet-stream")]
    if path == "/closed":
        start_response("200 OK", headers)
        return [str(len(closed)).encode()]
    if path == "/plain":
        file = open(query, "rb")
    elif path == "/raw":
        file = open(query, "rb", buffering=0)
    elif path == "/write-only":
        file = io.FileIO(os.open(query, os.O_WRONLY), "w")
    elif path == "/offset":
        file = open(query, "rb")
        file.read(10)  # the buffered reader has read ahead: its position is not that of the descriptor
    elif path == "/range":
        file = open(query, "rb")
        file.seek(100)
        headers.append(("Content-Length", "50"))
    elif path == "/length-too-large":
        file = open(query, "rb")
        headers.append(("Content-Length", str(os.path.getsize(query) + 1)))
    elif path == "/at-end":
        file = open(query, "rb")
        file.seek(0, 2)
    elif path == "/gzip":
        file = gzip.open(query, "rb")
    elif path == "/buffered-gzip":
        file = io.BufferedReader(gzip.open(query, "rb"))
    elif path == "/memory":
        file = io.BytesIO(b"in memory " * 20000)
    elif path == "/temporary":
        file = tempfile.TemporaryFile()
        file.write(b"just written")
        file.seek(0)
    elif path == "/pipe":
        reading, writing = os.pipe()
        os.write(writing, b"from a pipe")
        os.close(writing)
        file = os.fdopen(reading, "rb")
    elif path == "/text":
        file = io.StringIO("text")
    elif path == "/watched":
        file = Watched(query)
    elif path == "/endless":
        file = Endless()
    elif path == "/wrapped":
        # A middleware that does not know of files: it sees an iterable.
        start_response("200 OK", headers)
        return (block.upper() for block in wrapper(open(query, "rb"), 10))
    elif path == "/after-write":
        start_response("200 OK", headers)(b"first ")
        return wrapper(open(query, "rb"))
    start_response("200 OK", headers)
    return wrapper(file)
