"""The peer of a client connection: its address, and whether it is trusted."""

from __future__ import annotations

from passenger_trio.late_classes import frozen

__all__ = ["Peer"]


@frozen
class Peer:
    """The peer of a connection. Never changes."""

    address: str
    """For logs: the IP address, or ``unix``."""
    trusted: bool
    """Whether its forwarded fields are believed (R11)."""
    cgi_pairs: bytes
    """REQUEST_SCHEME, SERVER_NAME, SERVER_PORT, REMOTE_ADDR and REMOTE_PORT for the applications: names and values, each ended by NUL. Made by the listener."""
    user: int | None = None
    """The user id of a peer on a Unix socket; None on TCP."""
