"""``/meet``: answers when as many requests as ``?N`` are here at the same time. ``/main``: whether this is the main thread."""

import threading

barriers = {}
lock = threading.Lock()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/meet":
        count = int(environ["QUERY_STRING"])
        with lock:
            barrier = barriers.setdefault(count, threading.Barrier(count))
        barrier.wait(10)
        body = threading.current_thread().name
    else:
        body = str(threading.current_thread() is threading.main_thread())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
