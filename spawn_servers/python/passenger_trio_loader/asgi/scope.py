"""From the head of a request to a connection scope (ASGI, "HTTP & WebSocket Message Format")."""

from operator import itemgetter

from passenger_trio_loader.session_frames import ProtocolViolation

SPECIFICATION = {"version": "3.0", "spec_version": "2.3"}
HTTP_EXTENSIONS = ("http.response.early_hint",)
TRAILERS_EXTENSION = "http.response.trailers"
"""Offered only if the client accepts trailers (``TE``)."""
WEBSOCKET_EXTENSIONS = ("websocket.http.response",)
REQUIRED = (
    b"REQUEST_METHOD", b"REQUEST_URI", b"SCRIPT_NAME", b"PATH_INFO", b"QUERY_STRING", b"SERVER_PROTOCOL",
    b"SERVER_NAME", b"SERVER_PORT", b"REMOTE_ADDR", b"REMOTE_PORT", b"REQUEST_SCHEME",
)  # fmt: skip
take_required = itemgetter(*REQUIRED)
ESCAPES = {
    (a + b).encode(): bytes((int(a + b, 16),)) for a in "0123456789ABCDEFabcdef" for b in "0123456789ABCDEFabcdef"
}
SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/!$&'()*+,;=:@")
header_names = {b"CONTENT_TYPE": b"content-type", b"CONTENT_LENGTH": b"content-length", **dict.fromkeys(REQUIRED)}
"""A cache: name in a head -> name of the header field, or None if it is no header field."""


def header_name(name):
    found = name[5:].lower().replace(b"_", b"-") if name.startswith(b"HTTP_") else None
    if len(header_names) < 1000:  # Clients invent names, so the cache is bounded.
        header_names[name] = found
    return found


def percent_decoded(path):
    """Each escape is a byte. A malformed escape stays."""
    first, *parts = path.split(b"%")
    pieces = [first]
    for part in parts:
        byte = ESCAPES.get(part[:2])
        pieces += (b"%", part) if byte is None else (byte, part[2:])
    return b"".join(pieces)


def percent_encoded(text):
    return "".join(chr(byte) if byte in SAFE else "%%%02X" % byte for byte in text).encode()


def address(host, port):
    """(host, port) for the scope. None: the peer is on a Unix socket and has no name."""
    return (host.decode("latin-1"), int(port)) if host and port.isdigit() else None


def decoded_path(found):
    return found[b"SERVER_SOCKET"].decode(errors="surrogateescape")


def read_head(payload):
    """The connection scope for a head, without ``state``.

    :raises ProtocolViolation: the head is not as the contract has it.
    """
    fields = payload.split(b"\0")
    if fields.pop() or len(fields) % 2:
        raise ProtocolViolation("the head is not pairs of NUL-terminated strings")
    found = dict(zip(fields[0::2], fields[1::2]))
    if len(found) != len(fields) // 2 or b"" in found:
        raise ProtocolViolation("a name in the head is empty, or comes twice")
    try:
        method, target, root, path, query, protocol, host, port, peer, peer_port, scheme = take_required(found)
    except KeyError as missing:
        raise ProtocolViolation("the head lacks %s" % missing) from None
    if not path and not root and method == b"OPTIONS":
        path = b"*"  # the target itself; CGI has an empty path for it
    if b"%" in path:
        raw, path = path, percent_decoded(path)
    else:
        raw = path
    # ASGI's path begins with the root path. So does the target, if it is a path.
    raw = target.partition(b"?")[0] if target.startswith(b"/") else percent_encoded(root) + raw
    headers = []
    for name, value in found.items():
        try:
            field = header_names[name]
        except KeyError:
            field = header_name(name)
        if field is not None:
            headers.append((field, value))
    scheme = scheme.decode("latin-1")
    scope = {
        "type": "http",
        "asgi": SPECIFICATION.copy(),
        "http_version": protocol.decode("latin-1").partition("/")[2] or "1.1",
        "method": method.decode("latin-1"),
        "scheme": scheme,
        "path": (root + path).decode("utf-8", "replace"),
        "raw_path": raw,
        "query_string": query,
        "root_path": root.decode("utf-8", "replace"),
        "headers": headers,
        "client": address(peer, peer_port),
        "server": (decoded_path(found), None) if b"SERVER_SOCKET" in found else address(host, port),
    }
    if scheme in ("ws", "wss"):
        scope["type"] = "websocket"
        del scope["method"]
        protocols = found.get(b"HTTP_SEC_WEBSOCKET_PROTOCOL", b"").decode("latin-1").split(",")
        scope["subprotocols"] = [protocol.strip() for protocol in protocols if protocol.strip()]
        scope["extensions"] = {name: {} for name in WEBSOCKET_EXTENSIONS}
    else:
        scope["extensions"] = {name: {} for name in HTTP_EXTENSIONS}
        if b"HTTP_TE" in found:
            scope["extensions"][TRAILERS_EXTENSION] = {}
    return scope
