"""A program that dies in the middle of a response, as its path says; in a process for each connection, or in its own."""

import http.server, os, signal, socketserver, subprocess, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"first")
        self.wfile.flush()
        what = self.path[1:]
        if what == "helper":
            subprocess.run(["sh", "-c", "exit 7"])
            subprocess.run(["sh", "-c", "kill -TERM $$"])
            global leaked
            leaked = subprocess.Popen(["false"])
            time.sleep(0.1)
        elif what.startswith("exit"):
            self.wfile.write(b"last")
            os._exit(int(what[4:]))
        elif what.startswith("kill"):
            time.sleep(0.2 if what.endswith("slowly") else 0)
            os.kill(os.getpid(), getattr(signal, what[4:].removesuffix("slowly")))
            time.sleep(10)
        self.wfile.write(b"last")

    def log_message(self, *_):
        pass

if sys.argv[1] == "forking":
    class Server(socketserver.ForkingMixIn, http.server.HTTPServer): pass
else:
    Server = http.server.HTTPServer
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
