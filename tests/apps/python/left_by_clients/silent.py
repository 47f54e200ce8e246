"""A WSGI application that computes until there is ``EVENTS``.gate."""

import os


def application(environ, start_response):
    with open(os.environ["EVENTS"], "a") as file:
        file.write("began %s\n" % environ["PATH_INFO"])
    while not os.path.exists(os.environ["EVENTS"] + ".gate"):
        pass
    start_response("200 OK", [])
    return [b"late"]
