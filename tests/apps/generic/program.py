"""A program that serves HTTP by itself: ``program.py --port N``, ``program.py --socket PATH``. It ends in good order at SIGTERM.

``--fork`` serves from a child process, which only the death of its parent's whole process group ends; ``--on N`` listens on a port of its own choice.
"""

import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "client"

    def log_message(self, *arguments):
        pass

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/pid":
            self.answer(b"%d %d" % (os.getpid(), os.getpgid(0)))
        elif path == "/headers":
            self.answer(json.dumps([list(pair) for pair in self.headers.items()]).encode())
        elif path == "/slow":
            time.sleep(float(query))
            self.answer(b"slow")
        elif path == "/die":
            os._exit(3)
        elif path == "/both":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok")
            self.wfile.flush()
        elif path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one", b"two", b"three"):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            try:
                while True:
                    self.wfile.write(b"x" * 1000)
                    time.sleep(0.01)
            except OSError:
                with open(query, "w") as file:
                    file.write("gone")
        else:
            self.answer(b"hello")

    do_HEAD = do_GET

    def do_POST(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(body)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = False
    request_queue_size = 128
    allow_reuse_address = True


class UnixServer(Server):
    address_family = socket.AF_UNIX


def main():
    options = sys.argv[1:]
    if "--fork" in options and os.fork():
        os.wait()
        return
    if options[0] == "--socket":
        server = UnixServer(options[1], Handler)
    else:
        server = Server(("127.0.0.1", int(options[1])), Handler)

    def stop(*_):
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    print("it listens", flush=True)
    server.serve_forever()
    server.server_close()
    print("it ends in good order", flush=True)


main()
