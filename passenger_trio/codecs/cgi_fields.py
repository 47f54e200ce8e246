"""Request fields as the application sees them: CGI names, and which proxy fields it gets.

Two fields whose names differ only in ``-`` and ``_`` become the same CGI name. With that, a client could
forge a proxy's field. So fields whose names have anything but letters, digits and dashes are dropped (R9), and
``Proxy`` is dropped (httpoxy). Connection-specific fields are dropped (R22), except that an application is
told which upgrade the client asks for (R19). Fields in which a proxy describes the client pass only if the
peer is trusted (R11): all of them, or none. ``X-Request-Id`` and ``X-Request-Start`` of the client never pass: the server
has decided on their values before (``request_id``), which come as ``id_pairs`` (OB4).

The mapping of field names is cached, up to a bound; clients use few names.
"""

from __future__ import annotations

import re
from collections.abc import Container

from passenger_trio.codecs.head import Head

__all__ = ["cgi_pairs", "forwarded_fields"]

#: They concern this connection, or were answered here (R22; RFC 9110 7.6.1); host and length come from the head.
_ENDS_HERE = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade http2-settings expect content-length host proxy".split()
)
#: A proxy's word about the client or about what it had asked for (R11).
_FORWARDED = frozenset(
    b"forwarded x-real-ip x-client-ip client-ip true-client-ip x-cluster-client-ip cf-connecting-ip "
    b"fastly-client-ip x-original-url x-rewrite-url x-original-host".split()
)
_FORWARDED_PREFIX = b"x-forwarded-"
#: Meant for the application: a client cannot have them removed by naming them in Connection (RFC 9110 7.6.1).
_NOT_NOMINATED = frozenset((b"authorization", b"cookie", b"origin", b"referer", b"content-type"))

_CGI_SAFE = re.compile(rb"[A-Za-z0-9-]+")
_MARKS = frozenset((b"x-request-id", b"x-request-start"))
"""Told by ``request_id``."""
_MOST_KNOWN, _LONGEST_KNOWN = 4096, 64
_REQUEST_NAMES = {
    b"HTTP_X_REQUEST_ID": b"X-Request-Id",
    b"HTTP_X_REQUEST_START": b"X-Request-Start",
    b"HTTP_TRACEPARENT": b"traceparent",
    b"HTTP_TRACESTATE": b"tracestate",
}
"""A request's own pair -> the field for a process that speaks HTTP."""
_CONNECTION = b""
"""In the tables: not a name, look at the value."""


class _Names(dict[bytes, bytes | None]):
    """Field name as written -> CGI name; None if it does not come through."""

    def __init__(self, trusted: bool) -> None:
        super().__init__()
        self.trusted = trusted

    def __missing__(self, name: bytes) -> bytes | None:
        found = self._find(name, name.lower())
        if len(name) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[name] = found
        return found

    def _find(self, name: bytes, lower: bytes) -> bytes | None:
        if lower == b"connection":
            return _CONNECTION
        if lower in _ENDS_HERE or lower in _MARKS or not _CGI_SAFE.fullmatch(name):
            return None
        if not self.trusted and (lower in _FORWARDED or lower.startswith(_FORWARDED_PREFIX)):
            return None
        cgi = name.upper().replace(b"-", b"_")
        return cgi if cgi == b"CONTENT_TYPE" else b"HTTP_" + cgi


_TRUSTED, _UNTRUSTED = _Names(True), _Names(False)


def cgi_pairs(head: Head, connection_pairs: bytes, script_name: bytes, trusted: bool, id_pairs: bytes) -> bytes:
    """The payload of the ``H`` frame for a request (CONTRACT.md section 3). Each name occurs once.

    The asterisk of ``OPTIONS *`` is no path, and ``PATH_INFO`` is empty (RFC 3875 4.1.5).

    :param connection_pairs: pairs that all requests of the connection share, joined and NUL-terminated; what a trusted proxy says of the client
        (``head.origin``) takes their place.
    :param script_name: the base URI. A path that is not below it goes to ``PATH_INFO`` as a whole.
    :param trusted: whether the peer is a proxy that is believed (R11).
    :param id_pairs: the request's id, its start and its place in a trace as pairs, joined and NUL-terminated (``request_id``).
    """
    path = head.path
    if script_name:
        below = path[len(script_name) :]
        if path.startswith(script_name) and below[:1] in (b"", b"/"):
            path = below
        else:
            script_name = b""
    if path == b"*":
        path = b""
    if head.origin is not None:
        connection_pairs = head.origin.pairs(connection_pairs)
    cache = head.header_cache
    if cache is None:
        rest = _field_pairs(head, trusted)
    elif (known := cache.field_pairs) is not None:
        rest = known
    else:
        rest = cache.field_pairs = _field_pairs(head, trusted)
    return (
        b"%bREQUEST_METHOD\0%b\0REQUEST_URI\0%b\0SCRIPT_NAME\0%b\0PATH_INFO\0%b\0QUERY_STRING\0%b\0"
        b"SERVER_PROTOCOL\0HTTP/%b\0%b%b"
        % (
            connection_pairs,
            head.method,
            head.target,
            script_name,
            path,
            head.query,
            b"1.1" if head.version == b"1.1" else b"1.0",
            rest,
            id_pairs,
        )
    )


def _field_pairs(head: Head, trusted: bool) -> bytes:
    """The pairs that come from fields, joined and NUL-terminated."""
    pairs: dict[bytes, bytes] = {}
    if head.host:
        pairs[b"HTTP_HOST"] = head.host
    if head.content_length is not None:
        pairs[b"CONTENT_LENGTH"] = b"%d" % head.content_length
    names = _TRUSTED if trusted else _UNTRUSTED
    nominated: list[bytes] = []
    for name, value in head.fields:
        cgi = names[name]
        if not cgi:
            if cgi is not None:
                nominated += value.lower().split(b",")
        elif cgi in pairs:
            pairs[cgi] += (b"; " if cgi == b"HTTP_COOKIE" else b", ") + value
        else:
            pairs[cgi] = value
    if nominated:
        _withdraw(pairs, head.fields, {word.strip(b" \t") for word in nominated})
    if head.header_cache is None and head.version == b"1.1" and _takes_trailers(head):
        pairs[b"HTTP_TE"] = b"trailers"
    if head.upgrade:
        # What they say besides was for us; an application looks for these two words.
        pairs[b"HTTP_CONNECTION"] = b"Upgrade"
        pairs[b"HTTP_UPGRADE"] = head.upgrade
    return b"".join([b"%b\0%b\0" % pair for pair in pairs.items()])


def _takes_trailers(head: Head) -> bool:
    """Whether the client accepts trailers (``TE: trailers``, RFC 9110 10.1.4). The server forwards trailers, so the application gets this one word of a field that otherwise ends here."""
    return any(
        name.lower() == b"te" and b"trailers" in [word.strip(b" \t") for word in value.lower().split(b",")]
        for name, value in head.fields
    )


def forwarded_fields(head: Head, connection_pairs: bytes, trusted: bool, id_pairs: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a request for a process that speaks HTTP, ``Host`` first, without framing. The same fields pass as in ``cgi_pairs``.

    ``X-Forwarded-For``, ``-Proto`` and ``-Host`` are always there, once each. (``-For`` is missing if no address is known, as for the peer of a Unix
    socket.) They continue the list of a trusted proxy, and otherwise begin with the peer (R11). The parameters are those of ``cgi_pairs``.
    """
    peer = connection_pairs.split(b"\0")
    about = dict(zip(peer[::2], peer[1::2], strict=False))
    names = _TRUSTED if trusted else _UNTRUSTED
    host = head.host or about.get(b"SERVER_NAME", b"localhost")  # an HTTP/1.0 client may send none
    fields = [(b"Host", host)]
    said: dict[bytes, list[bytes]] = {b"x-forwarded-for": [], b"x-forwarded-proto": [], b"x-forwarded-host": []}
    nominated: list[bytes] = []
    for name, value in head.fields:
        cgi = names[name]
        if not cgi:
            if cgi is not None:
                nominated += value.lower().split(b",")
        elif cgi.startswith(b"HTTP_X_") and (lower := name.lower()) in said:
            said[lower].append(value)
        else:
            fields.append((name, value))
    if nominated:
        words = {word.strip(b" \t") for word in nominated}
        fields = [fields[0], *(field for field in fields[1:] if not _is_withdrawn(field[0].lower(), words))]
    origin = head.origin
    hops = said[b"x-forwarded-for"] or ([origin.client.encode()] if origin is not None and origin.client else [])
    if address := about.get(b"REMOTE_ADDR", b""):
        hops.append(address)
    scheme = (origin.scheme if origin is not None else b"") or about.get(b"REQUEST_SCHEME", b"http")
    proto = said[b"x-forwarded-proto"] or [scheme]
    hosts = said[b"x-forwarded-host"] or [host]
    if head.upgrade:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", head.upgrade)]
    if hops:
        fields.append((b"X-Forwarded-For", b", ".join(hops)))
    fields += [
        (b"X-Forwarded-Proto", b", ".join(proto)),
        (b"X-Forwarded-Host", b", ".join(hosts)),
    ]
    given = id_pairs.split(b"\0")
    fields += [(_REQUEST_NAMES[cgi], value) for cgi, value in zip(given[::2], given[1::2], strict=False)]
    return fields


def _is_withdrawn(lower: bytes, words: Container[bytes]) -> bool:
    """Whether the words in ``Connection`` remove a field of this name (R22)."""
    return lower in words and not (
        lower in _NOT_NOMINATED or lower in _FORWARDED or lower.startswith(_FORWARDED_PREFIX)
    )


def _withdraw(pairs: dict[bytes, bytes], fields: list[tuple[bytes, bytes]], words: set[bytes]) -> None:
    """Remove the fields that ``Connection`` names (R22), except those that must not be named there."""
    for name, _ in fields:
        if _is_withdrawn(name.lower(), words):
            pairs.pop(_TRUSTED[name] or b"", None)
