"""For a WSGI server that is started as a program."""


def application(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"one ", b"two ", b"three"])
    size = 0
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
    text = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {size} {environ['HTTP_X_FORWARDED_FOR']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
