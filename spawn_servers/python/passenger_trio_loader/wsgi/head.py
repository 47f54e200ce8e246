"""From the names and values in the head of a request to the environ: which are required, and how a path is decoded."""

from operator import itemgetter

take_required = itemgetter(
    "REQUEST_METHOD", "PATH_INFO", "REQUEST_SCHEME", "SCRIPT_NAME", "QUERY_STRING", "REQUEST_URI",
    "SERVER_PROTOCOL", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT",
)  # fmt: skip
ESCAPES = {a + b: chr(int(a + b, 16)) for a in "0123456789ABCDEFabcdef" for b in "0123456789ABCDEFabcdef"}


def percent_decoded(text):
    """A path as PEP 3333 wants it: each escape is a byte, and each byte a character of latin-1. A malformed escape stays."""
    first, *parts = text.split("%")
    for part in parts:
        character = ESCAPES.get(part[:2])
        first += "%" + part if character is None else character + part[2:]
    return first
