"""Answers with its environ: name, type of the value, value, as JSON. A change to one environ must not be seen in the next."""

import json


def application(environ, start_response):
    assert type(environ) is dict
    assert "left.behind" not in environ
    dump = {name: [type(value).__name__, str(value)] for name, value in environ.items()}
    environ["left.behind"] = True
    body = json.dumps(dump).encode("ascii")
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
