import hashlib
import time

BLOCK = bytes(range(256)) * 256


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/download":
        # So many MiB, in pieces of 64 KiB.
        count = 16 * int(query)
        start_response("200 OK", [("Content-Length", str(count * len(BLOCK)))])
        return (BLOCK for _ in range(count))
    if path == "/upload":
        size, digest = 0, hashlib.md5()
        while True:
            piece = environ["wsgi.input"].read(262144)
            if not piece:
                break
            size += len(piece)
            digest.update(piece[:64])
        start_response("200 OK", [("Content-Length", str(len(str(size))))])
        return [str(size).encode()]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(int(query or 0))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def stream(mebibytes):
    """Some MiB at once, then one short line every 20 ms that tells when it was made."""
    for _ in range(16 * mebibytes):
        yield BLOCK
    if mebibytes:
        time.sleep(0.5)
    for _ in range(50):
        time.sleep(0.02)
        yield b"@%.6f\n" % time.monotonic()
