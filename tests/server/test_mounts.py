"""Whose request it is."""

from __future__ import annotations

import pytest

from passenger_trio.core.model import GroupKey
from passenger_trio.options import AppOptions
from passenger_trio.server.mounts import Mounts, Route

ROUTES = [
    Route(GroupKey(name, "test"), AppOptions(name=name, host_name=hosts, base_uri=base))
    for name, hosts, base in [
        ("rest", (), ""),
        ("shop", (), "/shop"),
        ("admin", (), "/shop/admin"),
        ("blog", ("blog.test",), ""),
        ("wild", ("*.test",), ""),
        ("wilder", ("*.a.test",), ""),
        ("part", ("part.test",), "/part"),
    ]
]


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        (b"x", b"/", "rest"),
        (b"x", b"/shop", "shop"),
        (b"x", b"/shop/1", "shop"),
        (b"x", b"/shopping", "rest"),
        (b"x", b"/shop/admin/1", "admin"),
        (b"blog.test:8080", b"/shop", "blog"),
        (b"BLOG.test.", b"/", "blog"),
        (b"c.test", b"/", "wild"),
        (b"b.a.test", b"/", "wilder"),
        (b"test", b"/", "rest"),
        (b"part.test", b"/part/1", "part"),
        (b"part.test", b"/", "wild"),
        (b"[::1]:80", b"/", "rest"),
        (b"", b"/", "rest"),
    ],
)
def test_the_most_specific_application_is_found(host: bytes, path: bytes, name: str) -> None:
    for routes in (ROUTES, ROUTES[::-1]):
        found = Mounts(routes).find(host, path)
        assert found is not None
        assert found.group_name == name


def test_there_may_be_none() -> None:
    assert Mounts([ROUTES[1], ROUTES[3]]).find(b"x", b"/") is None
