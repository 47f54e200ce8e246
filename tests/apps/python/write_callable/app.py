"""The imperative ``write()``; the path says how."""

import os
import time

PLAIN = [("Content-Type", "text/plain")]


def application(environ, start_response):
    return WAYS[environ["PATH_INFO"]](environ, start_response)


def only(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"one")
    write(b"")
    write(b"two")
    return []


def then_iterable(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"one")
    return [b"two", b"three"]


def gated(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"one")
    while not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.002)
    write(b"two")
    return []


def with_length(environ, start_response):
    write = start_response("200 OK", [*PLAIN, ("Content-Length", "6")])
    write(b"one")
    write(b"two")
    return [b""]


def too_much(environ, start_response):
    write = start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
    write(b"one")
    write(b"two")
    write(b"three")
    return [b"four"]


def text(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write("text")
    return []


def raises(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"one")
    raise ValueError("after write()")


WAYS = {
    "/only": only,
    "/then-iterable": then_iterable,
    "/gated": gated,
    "/with-length": with_length,
    "/too-much": too_much,
    "/text": text,
    "/raises": raises,
}
