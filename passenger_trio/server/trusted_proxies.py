"""Which peers are trusted proxies, whose fields about their clients the server believes (``--trusted-proxies``, R11).

This module knows addresses, networks and uids. It never knows the fields that a peer sends (``codecs/forwarded_client`` finds the client's address in them)."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from passenger_trio.errors import OptionError
from passenger_trio.options import ServerOptions

__all__ = ["TrustedProxies", "trusted_networks"]


class TrustedProxies:
    """The peers that the options name."""

    def __init__(self, options: ServerOptions) -> None:
        """:raises OptionError: an entry is invalid."""
        self._trusts_unix = bool({"unix", "*"} & set(_peers(options)))
        self._trusted = trusted_networks(options)

    def trusts(self, address: str) -> bool:
        """Whether the forwarded fields of a TCP peer are trusted (R11)."""
        peer = ip_address(address.partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self._trusted)

    def trusts_user(self, uid: int) -> bool:
        """Like ``trusts``, for a peer on our Unix socket. Trusts the superuser and the server's own user. Trusts all other users only if
        ``unix`` is listed.
        """
        return self._trusts_unix or uid in (0, os.getuid())


def trusted_networks(options: ServerOptions) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of the trusted proxies.

    :raises OptionError: an entry is invalid.
    """
    networks: list[IPv4Network | IPv6Network] = []
    for text in _peers(options):
        try:
            if text == "*":
                networks += [ip_network("0.0.0.0/0"), ip_network("::/0")]
            elif text != "unix":
                networks.append(ip_network(text, strict=False))
        except ValueError:
            raise OptionError(
                "--trusted-proxies", text, "an address, a network, unix, or *: 10.0.0.1, 10.0.0.0/8, ::1, unix"
            ) from None
    return tuple(networks)


def _peers(options: ServerOptions) -> list[str]:
    """All peers. An entry may list several peers with commas, as in gunicorn and uvicorn."""
    return [peer.strip() for text in options.trusted_proxies for peer in text.split(",")]
