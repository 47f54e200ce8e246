"""The application that passenger_trio.testing.conformance drives; the paths are described there."""

import atexit
import os
import random
import signal
import sys
import threading
import time

LOADED_BY = os.getpid()

hook_file = os.environ.get("CONFORMANCE_HOOK_FILE")
if hook_file:

    @atexit.register
    def append_pid():
        with open(hook_file, "a") as file:
            file.write("%d\n" % os.getpid())


start = os.environ.get("CONFORMANCE_START")
if start == "raise":
    raise RuntimeError("conformance: raised while it was loaded")
if start == "raise-long":
    raise RuntimeError("conformance: " + "\x01\u20ac" * 100000 + " the end")
if start == "exit":
    sys.exit(3)
if start == "sleep":
    time.sleep(60)
if start == "thread":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("-", "_")
    return globals()["at_" + name](environ, start_response)


def text(start_response, data, *headers):
    start_response("200 OK", [("Content-Type", "text/plain"), *headers])
    return [data]


def at_hello(environ, start_response):
    return text(start_response, b"hello")


def at_meta(environ, start_response):
    lines = ["%s=%s\n" % item for item in sorted(environ.items()) if isinstance(item[1], str)]
    return text(start_response, "".join(lines).encode("latin-1"))


def at_echo(environ, start_response):
    return text(start_response, environ["wsgi.input"].read(-1))


def at_deaf(environ, start_response):
    return text(start_response, b"deaf")


def at_chunks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b"two"
    yield b"three"


def at_gate(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    while not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.002)
    yield b"two"


def at_deaf_gate(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    yield b"deaf"
    while not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.002)


def at_endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        while True:
            yield b"x" * 1000
    finally:
        with open(environ["QUERY_STRING"], "a") as file:
            file.write("closed\n")


def at_large(environ, start_response):
    return text(start_response, b"x" * 20000000)


def at_raise(environ, start_response):
    raise ValueError("conformance: raised before the head")


def at_raise_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    raise ValueError("conformance: raised after the head")


def at_exit(environ, start_response):
    sys.exit(4)


def at_nul(environ, start_response):
    return text(start_response, b"nul", ("X-Nul", "a\0b"))


def at_short(environ, start_response):
    return text(start_response, b"01234", ("Content-Length", "10"))


def at_long(environ, start_response):
    return text(start_response, b"0123456789", ("Content-Length", "5"))


def at_status(environ, start_response):
    start_response(environ["QUERY_STRING"] + " Status", [("X-Test", "1")])
    return [b"body"]


def at_print(environ, start_response):
    print(environ["QUERY_STRING"])
    return text(start_response, b"printed")


def at_sleep(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"]))
    return text(start_response, b"done")


def at_spin(environ, start_response):
    until = time.monotonic() + float(environ["QUERY_STRING"])
    while time.monotonic() < until:
        pass
    return text(start_response, b"done")


def at_process(environ, start_response):
    facts = {
        "pid": os.getpid(),
        "loaded_by": LOADED_BY,
        "random": random.random(),
        "signals": " ".join(
            str(int(number))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
            if signal.getsignal(number) == signal.SIG_IGN
        ),
        "variables": " ".join(sorted(os.environ)),
    }
    return text(start_response, "".join("%s=%s\n" % item for item in facts.items()).encode())
