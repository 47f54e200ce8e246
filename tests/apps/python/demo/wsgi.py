"""The bundled demo: one page that shows which process answered, a stream, and an error. Standard library only."""

import html
import os
import time

_STARTED = time.time()
_served = 0

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>passenger_trio demo</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem }}
  td {{ padding: .2rem 1rem .2rem 0; vertical-align: top }}
</style>
<h1>It works</h1>
<p>This page was made by process <b>{pid}</b>, which has run for {uptime:.0f} s and served {served} requests.</p>
<p><a href="/stream">a stream</a> (a line a second) · <a href="/error">an error</a> · <code>passenger-trio status</code> in another terminal shows the pool.</p>
<h2>The request</h2>
<table>{rows}</table>
</html>
"""


def application(environ, start_response):
    global _served
    _served += 1
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return _stream()
    if path == "/error":
        raise RuntimeError("this is what an error in an application looks like")
    if path != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"There is nothing here.\n"]
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{html.escape(str(environ[name]))}"
        for name in sorted(environ)
        if name.startswith(("HTTP_", "REQUEST_", "REMOTE_", "SERVER_")) or name == "QUERY_STRING"
    )
    body = _PAGE.format(pid=os.getpid(), uptime=time.time() - _STARTED, served=_served, rows=rows).encode()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def _stream():
    for number in range(1, 11):
        yield f"line {number} of 10, from process {os.getpid()}\n".encode()
        time.sleep(1)
