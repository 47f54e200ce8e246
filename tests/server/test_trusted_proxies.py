"""``TrustedProxies``: yes to whom the options name, and to nobody else (R11)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from needs import needs

from passenger_trio.options import ServerOptions
from passenger_trio.server.trusted_proxies import TrustedProxies


def proxies_of(*proxies: str) -> TrustedProxies:
    return TrustedProxies(ServerOptions(trusted_proxies=proxies) if proxies else ServerOptions())


@pytest.mark.parametrize(
    ("proxies", "address", "trusted"),
    [
        ((), "127.0.0.1", True),
        ((), "127.255.0.9", True),
        ((), "::1", True),
        ((), "::ffff:127.0.0.1", True),
        ((), "10.0.0.1", False),
        ((), "::2", False),
        ((), "::ffff:10.0.0.1", False),
        (("10.0.0.0/8",), "10.200.3.4", True),
        (("10.0.0.0/8",), "::ffff:10.200.3.4", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "::ffff:11.0.0.1", False),
        (("10.0.0.0/8",), "127.0.0.1", False),
        (("10.0.0.0/8",), "::1", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("2001:db8::/32",), "fe80::1%eth0", False),
        (("192.0.2.1",), "192.0.2.1", True),
        (("192.0.2.1",), "192.0.2.2", False),
        (("unix",), "127.0.0.1", False),
    ],
)
def test_a_peer_by_its_address(proxies: tuple[str, ...], address: str, trusted: bool) -> None:
    assert proxies_of(*proxies).trusts(address) is trusted


def test_a_peer_by_its_user() -> None:
    ordinary = proxies_of()
    assert ordinary.trusts_user(os.getuid())
    assert ordinary.trusts_user(0)
    assert not ordinary.trusts_user(os.getuid() + 1)
    assert not ordinary.trusts_user(65534)
    assert not proxies_of("10.0.0.0/8").trusts_user(os.getuid() + 1)
    assert proxies_of("10.0.0.0/8", "unix").trusts_user(os.getuid() + 1)


AS_ANOTHER_USER = """
import os
from passenger_trio.admin.server import may_steer
from passenger_trio.options import ServerOptions
from passenger_trio.server.trusted_proxies import TrustedProxies
from passenger_trio.system.unix_peers import PeerCredentials
os.setuid(65534)
proxies = TrustedProxies(ServerOptions())
for uid in (0, 65534, 1, 65533):
    print(uid, proxies.trusts_user(uid), may_steer(PeerCredentials(1, uid, uid)))
"""


def test_a_server_that_is_not_the_superusers() -> None:
    """The superuser may all, our own user may all; another may nothing, though it be of our group."""
    needs(os.geteuid() == 0, "the superuser, to become another user")
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER_USER], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["0 True True", "65534 True True", "1 False False", "65533 False False"], (
        done.stderr
    )
