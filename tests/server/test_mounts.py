"""Whose request it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.model import GroupKey
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions
from passenger_trio.server.mounts import Mounts, Route, _in_order, _Index

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


@pytest.mark.parametrize("host", ["ü..test", "a/b", "a.test:8080", "", "a b", "*", "a.*", "a..test", ".test", "\udcff"])
def test_a_host_name_that_no_request_could_have_is_refused(host: str) -> None:
    with pytest.raises(OptionError) as caught:
        Route(ROUTES[0].key, AppOptions(host_name=(host,)))
    assert caught.value.option == "--host-name"


@pytest.mark.parametrize(
    "host", ["a.test", "*.a.test", "A-1.test", "under_score.test", "bücher.test", "127.0.0.1", "[::1]"]
)
def test_a_host_name_that_a_request_can_have_is_taken(host: str) -> None:
    route = Route(ROUTES[0].key, AppOptions(host_name=(host,)))
    asked = route.host_names[0].replace(b"*", b"www") + b":80"
    assert Mounts([route]).find(asked, b"/") is route


@pytest.mark.parametrize("option", ["streamed_paths", "unlimited_concurrency_paths"])
@pytest.mark.parametrize("path", ["upload", "", "*"])
def test_a_path_that_no_request_could_have_is_refused(option: str, path: str) -> None:
    with pytest.raises(OptionError) as caught:
        Route(ROUTES[0].key, AppOptions(**{option: (path,)}))
    assert caught.value.option == "--" + option.replace("_", "-")


def test_OB1_counters_never_go_back_when_the_options_change() -> None:
    """A reload makes new routes; requests in flight count at the old ones."""
    key = GroupKey("shop", "production")
    before, after = Route(key, AppOptions()), Route(key, AppOptions(retry="off"))
    before.tally.finished((b"GET", 200, 0.1, 0.0, 0.1))
    after.go_on(before)
    before.tally.finished((b"GET", 200, 0.1, 0.0, 0.1))
    after.tally.finished((b"GET", 200, 0.1, 0.0, 0.1))
    assert after.tally.count == 3
    assert after.to_fold is before.to_fold is after.tally.to_fold, "where the request path appends"


NAMES = st.sampled_from(["", "test", "a.test", "b.a.test", "*.test", "*.a.test", "*.b.a.test", "part.test", "[::1]"])
PATHS = st.sampled_from(["", "/a", "/a/b", "/a/b/c", "/ab", "/b"])
ASKED_HOSTS = st.sampled_from(
    [b"", b"x", b"test", b"a.test:80", b"b.a.test", b"c.b.a.test", b"z.c.b.a.test", b".test", b"[::1]:1", b"*.test"]
)
ASKED_PATHS = st.sampled_from(
    [
        b"/",
        b"/a",
        b"/a/",
        b"/a/b",
        b"/a/b/",
        b"/a/b/c/d",
        b"/ab",
        b"/abc",
        b"//a",
        b"/a//b",
        b"*",
        b"",
        b"/b" + b"/" * 50,
    ]
)


@given(st.lists(st.tuples(NAMES, PATHS), unique=True, min_size=1, max_size=30), ASKED_HOSTS, ASKED_PATHS)
def test_thousands_are_looked_up_as_a_few_are_tried(places: list[tuple[str, str]], host: bytes, path: bytes) -> None:
    """OP5: what a request costs does not grow with the number of applications; what it finds is the same."""
    routes = [
        Route(GroupKey(f"{number}", "test"), AppOptions(host_name=(name,) if name else (), base_uri=base))
        for number, (name, base) in enumerate(places)
    ]
    few, many = Mounts(routes), Mounts(routes)
    rules = _in_order(routes)
    few._rules, few._index = rules, None
    many._rules, many._index = [], _Index(rules)
    assert few.find(host, path) is many.find(host, path)
