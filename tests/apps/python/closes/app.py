"""Counts how often each iterable is closed; ``/count`` tells, as JSON. Every other path is one way for a response to go."""

import json
import threading

PLAIN = [("Content-Type", "text/plain")]
closed = {}
lock = threading.Lock()


class Response:
    def __init__(self, name, chunks, error=None):
        closed[name] = 0
        self.name = name
        self.chunks = iter(chunks)
        self.error = error

    def __iter__(self):
        return self

    def __next__(self):
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            return chunk
        raise StopIteration

    def close(self):
        with lock:
            closed[self.name] += 1
        if self.error is not None:
            raise self.error


class SizedResponse(Response):
    def __len__(self):
        return 1


def endless():
    while True:
        yield b"x" * 100


def application(environ, start_response):
    name = environ["PATH_INFO"]
    if name == "/count":
        start_response("200 OK", PLAIN)
        return [json.dumps(closed).encode()]
    if name == "/head-missing":
        return Response(name, [b"body"])
    headers = list(PLAIN)
    if name == "/complete-early":
        headers.append(("Content-Length", "3"))
    if name == "/too-short":
        headers.append(("Content-Length", "30"))
    start_response("304 Not Modified" if name == "/not-modified" else "200 OK", headers)
    if name == "/sized":
        return SizedResponse(name, [b"one"])
    if name == "/raises-in-close":
        return Response(name, [b"one"], ValueError("raised by close()"))
    if name == "/exits-in-close":
        return Response(name, [b"one"], SystemExit(3))
    return Response(name, CHUNKS[name]())


CHUNKS = {
    "/normal": lambda: [b"one", b"two"],
    "/empty": lambda: [],
    "/complete-early": lambda: [b"one", b"", b""],
    "/too-short": lambda: [b"one"],
    "/not-modified": lambda: [b"one"],
    "/raises-at-once": lambda: [ValueError("raised by the first next()")],
    "/raises-later": lambda: [b"one", ValueError("raised by the second next()")],
    "/exits": lambda: [b"one", SystemExit(3)],
    "/interrupted": lambda: [KeyboardInterrupt()],
    "/not-bytes": lambda: ["text"],
    "/endless": endless,
}
