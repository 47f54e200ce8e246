"""A request of 5 ms, which tells when it began. (The monotonic clock is the machine's.)"""

import time


def application(environ, start_response):
    body = b"%.6f" % time.monotonic()
    time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
