"""Forks in a request, as multiprocessing does; the path says what the forked process does."""

import multiprocessing
import os
import signal
import sys
import time

context = multiprocessing.get_context("fork")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = b""
    if path == "/terminate":
        # It must end by SIGTERM: our own handler has no business in it.
        process = context.Process(target=time.sleep, args=(60,))
        process.start()
        process.terminate()
        process.join(10)
        body = str(process.exitcode).encode()
    elif path == "/interrupt":
        reading, writing = os.pipe()
        process = context.Process(target=wait_for_interrupt, args=(writing,))
        process.start()
        os.read(reading, 1)
        os.kill(process.pid, signal.SIGINT)
        process.join(10)
        body = str(process.exitcode).encode()
    elif path == "/descriptors":
        receiving, sending = context.Pipe()
        process = context.Process(target=lambda: sending.send(sockets()))
        process.start()
        body = "\n".join(receiving.recv()).encode()
        process.join(10)
        receiving.close()
        sending.close()
    elif path == "/incomplete":
        # The child lives on with a copy of the stream; the client must see its end nevertheless.
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        start_response("200 OK", [("Content-Length", "10")])
        return [b"short"]
    elif path == "/stray":
        # The child comes back out of the application.
        if os.fork() == 0:
            raise ValueError("in the child")
        os.wait()
        body = b"the parent"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def wait_for_interrupt(writing):
    try:
        os.write(writing, b"x")
        while True:
            time.sleep(0.01)  # A signal between two looks and a long sleep would wait for the end of that.
    except KeyboardInterrupt:
        sys.exit(42)


def sockets():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    return [target for target in found if target.startswith("socket:")]
