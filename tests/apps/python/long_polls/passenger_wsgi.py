"""Responses that last: a long poll that waits for news, and server-sent events. ``LOG`` is a file that gets a line when the server closes one."""

import os
import time

TEXT = [("Content-Type", "text/plain")]


class Noted:
    """An iterable whose close is noted."""

    def __init__(self, name, chunks):
        self._name = name
        self._chunks = chunks

    def __iter__(self):
        return self._chunks

    def close(self):
        with open(os.environ["LOG"], "a") as file:
            file.write("%s closed\n" % self._name)


def until_there(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def poll(path):
    yield b"waiting\n"
    until_there(path)
    yield b"news\n"


def events(pause):
    number = 0
    while True:
        number += 1
        yield b"data: %d\n\n" % number
        time.sleep(pause)


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/poll":
        start_response("200 OK", TEXT)
        return Noted("poll", poll(query))
    if path == "/silent":
        until_there(query)
        start_response("200 OK", TEXT)
        return [b"news\n"]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return Noted("events", events(float(query)))
