"""``Front.trusts`` and ``trusts_user``: yes to whom the options name, and to nobody else (R11)."""

from __future__ import annotations

import os

import pytest

from passenger_trio.core.model import GroupKey, PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.pool.pool import Pool
from passenger_trio.server.front import Front
from passenger_trio.server.mounts import Route


def front(*proxies: str) -> Front:
    options = ServerOptions(trusted_proxies=proxies) if proxies else ServerOptions()
    return Front(options, Pool(PoolLimits()), [Route(GroupKey("shop", "test"), AppOptions())], None)


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
async def test_a_peer_by_its_address(proxies: tuple[str, ...], address: str, trusted: bool) -> None:
    assert front(*proxies).trusts(address) is trusted


async def test_a_peer_by_its_user() -> None:
    ordinary = front()
    assert ordinary.trusts_user(os.getuid())
    assert ordinary.trusts_user(0)
    assert not ordinary.trusts_user(os.getuid() + 1)
    assert not ordinary.trusts_user(65534)
    assert not front("10.0.0.0/8").trusts_user(os.getuid() + 1)
    assert front("10.0.0.0/8", "unix").trusts_user(os.getuid() + 1)
