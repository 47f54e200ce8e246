"""Every way to end a process in the middle of a request; the path says which. ``/`` answers."""

import os
import signal
import sys


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/sys-exit":
        sys.exit("the application wants to end")
    if path == "/keyboard-interrupt":
        raise KeyboardInterrupt
    if path == "/generator-exit":
        raise GeneratorExit
    if path == "/os-exit":
        os._exit(7)
    if path == "/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"alive"]
