"""The message with which a front hands a client's connection to another front (FR6), as one packet. The connection's descriptor comes with it.

Sans-I/O. Numbers are in network order. ``read_moved`` is strict: a front parses bytes of clients, so another front believes of its packet only what it can
check. Whether the client is trusted is not in it: each front decides that by its own options.
"""

from __future__ import annotations

import math
import struct

from passenger_trio.errors import BadFrontMessage
from passenger_trio.late_classes import frozen

__all__ = ["MovedConnection", "encode_moved", "read_moved"]

_HEAD = struct.Struct("!ddQqH")
_NO_USER = -1
_MOST_ADDRESS = 255
_MOST_PAIRS = 4096
_NAMES = (b"REQUEST_SCHEME", b"SERVER_NAME", b"SERVER_PORT", b"REMOTE_ADDR", b"REMOTE_PORT", b"SERVER_SOCKET")


@frozen
class MovedConnection:
    """What a front knows of an idle connection."""

    address: str
    """See ``Peer``; so are the next two."""
    cgi_pairs: bytes
    user: int | None
    opened: float
    """When it was accepted, in seconds of the owner's clock, which all fronts use."""
    idle_since: float
    served: int
    """Requests that were begun on it."""


def encode_moved(moved: MovedConnection) -> bytes:
    """The packet of a connection that moves."""
    address = moved.address.encode()
    user = _NO_USER if moved.user is None else moved.user
    return _HEAD.pack(moved.opened, moved.idle_since, moved.served, user, len(address)) + address + moved.cgi_pairs


def read_moved(packet: bytes) -> MovedConnection:
    """The connection of a packet.

    :raises BadFrontMessage: the packet is no such message.
    """
    try:
        opened, idle_since, served, user, size = _HEAD.unpack_from(packet)
        address = packet[_HEAD.size : _HEAD.size + size].decode()
    except (struct.error, UnicodeDecodeError):
        raise BadFrontMessage("a front moved a connection with a packet that is cut off") from None
    pairs = packet[_HEAD.size + size :]
    if not 0 < size <= _MOST_ADDRESS or len(packet) < _HEAD.size + size or not address.isprintable():
        raise BadFrontMessage("a front moved a connection without an address")
    if not all(math.isfinite(time) and math.copysign(1.0, time) > 0 for time in (opened, idle_since)):
        raise BadFrontMessage("a front moved a connection with an invalid time")
    if user < _NO_USER:
        raise BadFrontMessage("a front moved a connection of a user that is none")
    words = pairs.split(b"\0")
    if len(pairs) > _MOST_PAIRS or words.pop() or len(words) % 2 or not set(words[::2]) <= set(_NAMES):
        raise BadFrontMessage("a front moved a connection with variables that are none of a connection's")
    return MovedConnection(address, pairs, None if user == _NO_USER else user, opened, idle_since, served)
