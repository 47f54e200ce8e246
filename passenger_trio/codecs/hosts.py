"""The syntax of a host with an optional port (R5; RFC 9110 7.2, RFC 3986 3.2.2).

Used for Host, for the authority of an absolute target, and for the host that a proxy names.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["name_of", "port_of", "valid_host"]

# RFC 3986 3.2.2, but for the comma, which is also what stands between two Host fields that somebody has joined
# (RFC 9110 5.3), and two are refused (RFC 9112 3.2).
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+|\[(?:([0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+;=:-]+)\])(?::([0-9]*))?"
)


def valid_host(value: bytes) -> bool:
    """Whether this is ``uri-host [":" port]`` (R5; RFC 9110 7.2): a name, which is not empty, an IPv4 address, or an address
    in brackets. The port may be empty; otherwise it is at most 65535.
    """
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    port = (match[2] or b"").lstrip(b"0")
    if len(port) > 5 or int(port or b"0") > 65535:
        return False
    if match[1] is not None:
        try:
            ipaddress.IPv6Address(match[1].decode("ascii"))
        except ValueError:
            return False
    return True


def name_of(host: bytes) -> bytes:
    """The host without the port."""
    return host.partition(b"]")[0] + b"]" if host.startswith(b"[") else host.partition(b":")[0]


def port_of(host: bytes) -> bytes:
    """The port; empty: there is none."""
    return host.rpartition(b"]")[2].partition(b":")[2]
