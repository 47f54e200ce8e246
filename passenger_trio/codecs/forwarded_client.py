"""What a trusted proxy says about the client: ``X-Forwarded-*`` and ``Forwarded`` as a value (R11; RFC 7239).

The caller decides which peers are trusted. Each proxy appends what it knows, so the right end of a list is
the nearest, and only the part written by trusted proxies counts. The rules:

* The client is the rightmost address that is not a trusted proxy; if all are trusted, the leftmost. An
  element that is not an address (``unknown``, ``_hidden``) ends the search: the result is the last address to
  its right, or the peer.
* ``X-Forwarded-Proto``, ``-Host`` and ``-Port`` with one value give that value. With as many values as
  ``X-Forwarded-For``, the one at the client's position counts; otherwise the last.
* ``Forwarded`` is used only if none of the others is there: proxies that write the others often pass
  ``Forwarded`` on unchanged from the client. The element that names the client counts, as a whole. A value
  that breaks the grammar is ignored.
* Lines with the same name form one list. A scheme other than http, https, ws and wss, an invalid host and a
  port outside 1 to 65535 are ignored; the other fields still count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address

from passenger_trio.codecs.hosts import name_of, port_of, valid_host
from passenger_trio.codecs.patterns import compiled
from passenger_trio.late_classes import frozen

__all__ = ["Origin", "read_origin"]

MAX_HOPS = 32
"""The most addresses to look at, from the right. Nobody has more proxies."""

_SCHEMES = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}
_PORTS = {b"http": b"80", b"https": b"443"}
_WEBSOCKET = {b"http": b"ws", b"https": b"wss"}
_NAMES = {
    b"x-forwarded-for": 0,
    b"x-forwarded-proto": 1,
    b"x-forwarded-host": 2,
    b"x-forwarded-port": 3,
    b"forwarded": 4,
}
_LONGEST, _SHORTEST = max(map(len, _NAMES)), min(map(len, _NAMES))
_LONGEST_ADDRESS = 64
_ADDRESS = compiled(rb'"?(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|([0-9A-Fa-f:]+(?:[0-9]+(?:\.[0-9]+){3})?))"?')
_ADDRESS_AND_PORT = compiled(rb'"?(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})"?')
_PAIR = compiled(
    rb"[ \t]*+([!#$%&'*+\-.^_`|~0-9A-Za-z]++)=(?:([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]++)"
    rb'|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+)")[ \t]*+'
)
_SEPARATORS = compiled(rb"[ \t]*+[,;][ \t,;]*+")

_Pairs = dict[bytes, bytes]


@frozen
class Origin:
    """The request as it was before the proxies. A value that they did not tell is empty."""

    client: str = ""
    """The client's address. An IPv4-mapped address is written as IPv4."""
    client_port: int = 0
    """0: not told."""
    scheme: bytes = b""
    """``http`` or ``https``."""
    host: bytes = b""
    """With its port, as for ``Host``."""
    port: bytes = b""

    def authority(self, host: bytes) -> bytes:
        """The authority that the client has asked for. Adds the port to ``host`` if only the proxy told it, unless it is the scheme's default."""
        host = self.host or host
        if not self.port or not host or port_of(host) or self.port == _PORTS.get(self.scheme or b"http"):
            return host
        return host.removesuffix(b":") + b":" + self.port

    def pairs(self, connection_pairs: bytes) -> bytes:
        """The pairs of the peer's connection as those of the client's (CONTRACT.md section 3)."""
        parts = connection_pairs.split(b"\0")
        pairs = dict(zip(parts[::2], parts[1::2], strict=False))
        if self.client:
            pairs[b"REMOTE_ADDR"] = self.client.encode()
            pairs[b"REMOTE_PORT"] = b"%d" % self.client_port
        if self.scheme:
            websocket = pairs.get(b"REQUEST_SCHEME", b"").startswith(b"ws")
            pairs[b"REQUEST_SCHEME"] = _WEBSOCKET[self.scheme] if websocket else self.scheme
        own_port = _PORTS[self.scheme or b"http"]
        if self.host:
            pairs[b"SERVER_NAME"] = name_of(self.host)
            pairs[b"SERVER_PORT"] = self.port or port_of(self.host) or own_port
        elif self.port:
            pairs[b"SERVER_PORT"] = self.port
        elif self.scheme and b"SERVER_SOCKET" in pairs:
            pairs[b"SERVER_PORT"] = own_port
        return b"".join([b"%b\0%b\0" % pair for pair in pairs.items()])


def read_origin(fields: Sequence[tuple[bytes, bytes]], trusts: Callable[[str], bool]) -> Origin | None:
    """Read the fields of a trusted peer; None if it sent none of them.

    :param trusts: whether an address is a trusted proxy's.
    """
    said: list[list[bytes]] | None = None
    for name, value in fields:
        if _SHORTEST <= len(name) <= _LONGEST and (kind := _NAMES.get(name.lower())) is not None:
            if said is None:
                said = [[], [], [], [], []]
            said[kind] += (value,) if kind == 4 else [word.strip(b" \t") for word in value.split(b",")]
    if said is None:
        return None
    hops, schemes, hosts, ports, standard = ([word for word in words if word] for words in said)
    if standard and not (hops or schemes or hosts or ports):
        return _read_standard(b",".join(standard), trusts)
    at, client = _client(hops, trusts)
    port = _pick(ports, at, len(hops)).lstrip(b"0")
    host = _pick(hosts, at, len(hops))
    return Origin(
        *client,
        _SCHEMES.get(_pick(schemes, at, len(hops)).lower(), b""),
        host if valid_host(host) else b"",
        port if port.isdigit() and len(port) <= 5 and int(port) <= 65535 else b"",
    )


def _read_standard(value: bytes, trusts: Callable[[str], bool]) -> Origin | None:
    elements = _elements(value)
    if not elements:
        return None
    at, client = _client([element.get(b"for", b"") for element in elements], trusts)
    element = elements[at]
    host = element.get(b"host", b"")
    return Origin(
        *client,
        _SCHEMES.get(element.get(b"proto", b"").lower(), b""),
        host if valid_host(host) else b"",
    )


def _client(hops: Sequence[bytes], trusts: Callable[[str], bool]) -> tuple[int, tuple[str, int]]:
    """Which of the hops is the client's, and its address and port."""
    known = ("", 0)
    at = len(hops)
    for at in range(len(hops) - 1, max(-1, len(hops) - 1 - MAX_HOPS), -1):
        found = _address(hops[at])
        if found is None:
            break
        known = found
        if not trusts(found[0]):
            break
    return at, known


def _pick(words: Sequence[bytes], at: int, hops: int) -> bytes:
    if not words:
        return b""
    return words[at] if len(words) == hops and at < hops else words[-1]


def _address(text: bytes) -> tuple[str, int] | None:
    if len(text) > _LONGEST_ADDRESS:
        return None
    match = _ADDRESS.fullmatch(text)
    port = 0
    if match is None:
        match = _ADDRESS_AND_PORT.fullmatch(text)
        if match is None:
            return None
        port = int(match[3])
        host = match[1] or match[2]
    else:
        host = match[1] or match[2] or match[3]
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:
        return None
    return (str(getattr(address, "ipv4_mapped", None) or address), port) if port <= 65535 else None


def _elements(value: bytes) -> list[_Pairs] | None:
    """The elements of a ``Forwarded`` value (RFC 7239 section 4), without empty ones; None: the value is invalid."""
    elements: list[_Pairs] = [{}]
    at = 0
    after_pair = False
    while at < len(value):
        match = _PAIR.match(value, at)
        if match is not None:
            name = match[1].lower()
            if after_pair or name in elements[-1]:
                return None
            text = match[2] if match[2] is not None else match[3]
            elements[-1][name] = _unescaped(text)
            at = match.end()
            after_pair = True
            continue
        # All that stand together in one step, without a copy of what follows: they may be a client's, and as many as fit into a head.
        separators = _SEPARATORS.match(value, at)
        if separators is None:
            return None
        after_pair = False
        if b"," in separators[0]:
            elements.append({})
        at = separators.end()
    return [element for element in elements if element]


def _unescaped(text: bytes) -> bytes:
    parts = text.split(b"\\\\")
    return b"\\".join(part.replace(b"\\", b"") for part in parts)
