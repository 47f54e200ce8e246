"""An application that does what its tests need: it waits at a gate, dies in several ways, floods, escapes. The path names the function.

The gate is a Unix socket of the test (``GATE``): whoever comes to it says which process it is, and waits until the test lets it go on.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

PLAIN = [("Content-Type", "text/plain")]


def application(environ, start_response):
    function = globals().get("at_" + environ["PATH_INFO"].strip("/").replace("-", "_"))
    if function is None:
        start_response("404 Not Found", PLAIN)
        return [b"no such behaviour\n"]
    result = function(environ, environ["QUERY_STRING"])
    if isinstance(result, (dict, list)):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(result).encode()]
    if isinstance(result, bytes):
        start_response("200 OK", PLAIN + [("Content-Length", str(len(result)))])
        return [result]
    start_response("200 OK", PLAIN)
    return result


def wait_at_gate():
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ["GATE"])
        gate.sendall(b"%d\n" % os.getpid())
        gate.recv(1)


def at_pid(environ, query):
    return b"%d" % os.getpid()


def at_gate(environ, query):
    wait_at_gate()
    return b"%d" % os.getpid()


def at_stream(environ, query):
    """A piece, the gate, another piece."""

    def pieces():
        yield b"first\n"
        wait_at_gate()
        yield b"last\n"

    return pieces()


def at_env(environ, query):
    return dict(os.environ)


def at_environ(environ, query):
    return {name: value for name, value in environ.items() if isinstance(value, (str, bool, int))}


def at_echo(environ, query):
    return environ["wsgi.input"].read()


def at_big(environ, query):
    """So many MiB, in pieces of 64 KiB."""
    return (b"x" * 65536 for _ in range(16 * int(query)))


def at_nap(environ, query):
    """So many milliseconds; for load that is not all alike."""
    time.sleep(int(query) / 1000)
    return b"%d" % os.getpid()


def at_print(environ, query):
    print("printed:", query, flush=True)
    print("complained:", query, file=sys.stderr, flush=True)
    return b"ok"


def at_raise(environ, query):
    raise RuntimeError("raised on purpose: %s" % query)


# -- dying ----------------------------------------------------------------------------------------------------------


def at_exit(environ, query):
    os._exit(int(query or 3))


def at_segfault(environ, query):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def at_kill_me(environ, query):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def at_sys_exit(environ, query):
    sys.exit("a request wanted the process to exit")


def at_exit_in_the_middle(environ, query):
    yield b"first\n"
    wait_at_gate()
    os._exit(3)


def at_segfault_in_the_middle(environ, query):
    yield b"first\n"
    wait_at_gate()
    ctypes.string_at(0)


def at_raise_in_the_middle(environ, query):
    yield b"first\n"
    wait_at_gate()
    raise RuntimeError("raised in the middle of a response")


def at_exit_after_response(environ, query):
    """The whole response goes out, then the process."""

    class Body:
        def __init__(self):
            self.pieces = iter([b"ok"])

        def __iter__(self):
            return self.pieces

        def close(self):
            os._exit(3)

    return Body()


# -- not ending -----------------------------------------------------------------------------------------------------


def at_ignore_term(environ, query):
    """Neither SIGTERM nor the loader's own thread can end this worker."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            wait_at_gate()
            return b"let go"
        except BaseException as error:
            print("not impressed by", type(error).__name__, flush=True)


def at_stop_me(environ, query):
    os.kill(os.getpid(), signal.SIGSTOP)
    return b"continued"


# -- making trouble -------------------------------------------------------------------------------------------------


def at_daemon(environ, query):
    """A daemon as daemons are made: forked twice, in a session of its own. Its pid comes back."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, b"%d" % os.getpid())
            os.execvp("sleep", ["sleep", "600"])
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pid:
        return pid.read(10)


def at_child(environ, query):
    """A child that stays, in the worker's own process group. Its pid comes back."""
    return b"%d" % subprocess.Popen(["sleep", "600"]).pid


def at_close_output(environ, query):
    os.close(1)
    os.close(2)
    return b"%d" % os.getpid()


def at_close_everything(environ, query):
    """Every descriptor, the loader's own included: as some programs do before they go to the background."""
    os.closerange(0, 1024)
    return b"%d" % os.getpid()


def at_flood(environ, query):
    """So many MiB on standard output."""
    line = b"y" * 1023 + b"\n"
    for _ in range(1024 * int(query)):
        os.write(1, line)
    return b"flooded"


def at_flood_for_ever(environ, query):
    def flood():
        line = b"z" * 1023 + b"\n"
        while True:
            os.write(1, line)

    threading.Thread(target=flood, daemon=True).start()
    return b"%d" % os.getpid()


def at_partial_line(environ, query):
    os.write(1, b"a line without an end")
    return b"ok"


def at_binary_output(environ, query):
    os.write(1, b"\x00\x1b[2J\xff\xfe \xe2\x80\xae not printable\r\n")
    return b"ok"


def at_allocate(environ, query):
    """So many MiB; more than there may be is a MemoryError."""
    return b"%d" % len(bytearray(int(query) * 1024 * 1024))


KEPT = []


def at_grow(environ, query):
    """By so many MiB, for good."""
    KEPT.append(b"x" * (int(query) * 1024 * 1024))
    return b"grown"


def at_exhaust_descriptors(environ, query):
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return str(error).encode()
    finally:
        for descriptor in held:
            os.close(descriptor)


def at_chdir(environ, query):
    os.chdir("/")
    return b"%d" % os.getpid()


def at_remove_socket(environ, query):
    """Somebody tidies up in the instance directory."""
    for name in os.listdir(query):
        if name not in ("lock", "instance.json", "admin.sock", "spawn.sock"):
            os.unlink(os.path.join(query, name))
    return b"%d" % os.getpid()


