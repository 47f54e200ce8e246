"""Every way to call ``start_response``, right and wrong; the path says which."""

import sys

PLAIN = [("Content-Type", "text/plain")]


def application(environ, start_response):
    return WAYS[environ["PATH_INFO"]](start_response)


def with_arguments(*arguments):
    def way(start_response):
        start_response(*arguments)
        return [b"body"]

    return way


def in_generator(start_response):
    yield b""
    start_response("200 OK", PLAIN)
    yield b""
    yield b"late"


def never(start_response):
    return [b"body"]


def never_in_generator(start_response):
    yield b"body"


def never_and_empty(start_response):
    return []


def twice(start_response):
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)
    return [b"body"]


def replaced(start_response):
    start_response("200 OK", [*PLAIN, ("Content-Length", "1000"), ("X-First", "1")])
    try:
        raise ValueError("noticed before anything was sent")
    except ValueError:
        start_response("500 Replaced", PLAIN, sys.exc_info())
    return [b"replaced"]


def only_with_exc_info(start_response):
    try:
        raise ValueError("noticed")
    except ValueError:
        start_response("500 Only", PLAIN, sys.exc_info())
    return [b"only"]


def too_late(start_response):
    start_response("200 OK", PLAIN)
    yield b"sent"
    try:
        raise LookupError("noticed too late")
    except LookupError:
        start_response("500 Too Late", PLAIN, sys.exc_info())
    yield b"not reached"


def keyword(start_response):
    start_response(status="201 Made", headers=PLAIN)
    return [b"body"]


def again_after_the_end(start_response):
    start_response("200 OK", [("Content-Length", "4")])
    yield b"body"
    start_response("200 OK", PLAIN)


def recovered(start_response):
    try:
        start_response("200 OK", [("X-Wrong", 1)])
    except TypeError:
        start_response("200 OK", PLAIN)
    return [b"recovered"]


class Text(str):
    pass


WAYS = {
    "/ok": with_arguments("200 OK", PLAIN),
    "/no-reason": with_arguments("200", PLAIN),
    "/empty-reason": with_arguments("404 ", PLAIN),
    "/latin-1": with_arguments("200 D\xe9j\xe0", [("X-Name", "\xff\x80")]),
    "/none": with_arguments("200 OK", PLAIN, None),
    "/no-headers": with_arguments("299 Strange", []),
    "/repeated": with_arguments("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("x-lower", "")]),
    "/subclass": with_arguments(Text("200 OK"), [(Text("X-A"), Text("b"))]),
    "/hop-by-hop": with_arguments("200 OK", [("Connection", "close"), ("Bad Name", "a\r\nb")]),
    "/bad-length": with_arguments("200 OK", [("Content-Length", "many")]),
    "/in-generator": in_generator,
    "/never": never,
    "/never-in-generator": never_in_generator,
    "/never-and-empty": never_and_empty,
    "/twice": twice,
    "/replaced": replaced,
    "/only-with-exc-info": only_with_exc_info,
    "/too-late": too_late,
    "/keyword": keyword,
    "/again-after-the-end": again_after_the_end,
    "/recovered": recovered,
    "/status-bytes": with_arguments(b"200 OK", PLAIN),
    "/status-int": with_arguments(200, PLAIN),
    "/status-short": with_arguments("20", PLAIN),
    "/status-word": with_arguments("OK", PLAIN),
    "/status-joined": with_arguments("200OK", PLAIN),
    "/status-interim": with_arguments("103 Early Hints", PLAIN),
    "/status-nul": with_arguments("200 O\0K", PLAIN),
    "/status-unicode": with_arguments("200 \u20ac", PLAIN),
    "/status-digits": with_arguments("\u0662\u0660\u0660 OK", PLAIN),
    "/headers-tuple": with_arguments("200 OK", tuple(PLAIN)),
    "/headers-dict": with_arguments("200 OK", dict(PLAIN)),
    "/headers-none": with_arguments("200 OK", None),
    "/header-single": with_arguments("200 OK", [("Content-Type",)]),
    "/header-triple": with_arguments("200 OK", [("Content-Type", "text/plain", "x")]),
    "/header-none": with_arguments("200 OK", [None]),
    "/name-bytes": with_arguments("200 OK", [(b"Content-Type", "text/plain")]),
    "/value-bytes": with_arguments("200 OK", [("Content-Type", b"text/plain")]),
    "/value-int": with_arguments("200 OK", [("Content-Length", 4)]),
    "/value-none": with_arguments("200 OK", [("X-None", None)]),
    "/value-nul": with_arguments("200 OK", [("X-Nul", "a\0b")]),
    "/name-nul": with_arguments("200 OK", [("X-\0", "b")]),
    "/value-unicode": with_arguments("200 OK", [("X-Euro", "\u20ac")]),
    "/name-empty": with_arguments("200 OK", [("", "value")]),
    "/too-long": with_arguments("200 OK", [("X-Long", "x" * 131072)]),
}
