"""Reads its input by the calls that the query string names: ``?read:5,readline,readlines:10,iter,read``; answers with what they gave.

``/count`` reads block by block and answers with the number of bytes and the most memory that the process has had, in KiB.
"""

import json
import resource


def application(environ, start_response):
    source = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/count":
        count = sum(len(block) for block in iter(lambda: source.read(65536), b""))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [("%d %d" % (count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)).encode()]
    results = []
    for call in environ["QUERY_STRING"].split(","):
        name, _, argument = call.partition(":")
        arguments = [None if argument == "None" else int(argument)] if argument else []
        result = list(source) if name == "iter" else getattr(source, name)(*arguments)
        results.append([part.decode("latin-1") for part in result] if type(result) is list else result.decode("latin-1"))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(results).encode("ascii")]
