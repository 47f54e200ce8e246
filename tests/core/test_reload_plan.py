"""OP1, OP2, OP3: what a reload changes, as tables."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from passenger_trio.core import reload_plan
from passenger_trio.core.model import GroupKey
from passenger_trio.core.reload_plan import AppSetup, Kind, Plan, Setup, make_plan
from passenger_trio.options import AppOptions, PoolOptions, ServerOptions

SHOP = GroupKey("shop", "production")
BLOG = GroupKey("blog", "production")


def an_app(key: GroupKey, found: tuple[tuple[str, str], ...] = (), **options: Any) -> AppSetup:
    return AppSetup(key, AppOptions(name=key.name, environment=key.environment, **options), found)


def a_setup(*apps: AppSetup, server: dict[str, Any] | None = None, pool: dict[str, Any] | None = None) -> Setup:
    return Setup(ServerOptions(**server or {}), PoolOptions(**pool or {}), apps)


def another_value(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, "other")
    return value + 1 if isinstance(value, int | float) else f"{value}-other"


def test_two_equal_configurations_change_nothing() -> None:
    assert make_plan(a_setup(an_app(SHOP)), a_setup(an_app(SHOP))) == Plan()


KEYS = ("name", "environment")
"""They make another application of it."""


@pytest.mark.parametrize(
    "field", [field for field in attrs.fields(AppOptions) if field.name not in KEYS], ids=lambda field: field.name
)
def test_each_option_of_an_application_is_live_or_restarts_it(field: attrs.Attribute[Any]) -> None:
    """OP3: and the others are left alone."""
    value = (("A", "b"),) if field.name == "env" else another_value(field.default)
    plan = make_plan(a_setup(an_app(SHOP), an_app(BLOG)), a_setup(an_app(SHOP, **{field.name: value}), an_app(BLOG)))
    live = field.name in reload_plan.LIVE_APP
    assert (plan.changed, plan.restarted) == (((SHOP,), ()) if live else ((), (SHOP,)))
    assert not plan.impossible
    (line,) = plan.lines
    assert line.startswith(f"{'~' if live else '*'} shop (production): {field.name}: ")


@pytest.mark.parametrize("owner", [ServerOptions, PoolOptions])
def test_each_option_of_the_server_is_live_or_named(owner: Any) -> None:
    """OP2: what cannot be changed while the server runs is named."""
    impossible = set()
    for field in attrs.fields(owner):
        changed = {field.name: another_value(field.default)}
        after = a_setup(server=changed) if owner is ServerOptions else a_setup(pool=changed)
        plan = make_plan(a_setup(), after)
        (change,) = plan.changes
        if change.kind is Kind.IMPOSSIBLE:
            impossible.add(field.name)
            assert "start the server anew" in change.line
        assert plan.listens_elsewhere == (field.name in reload_plan.LISTENERS)
    if owner is ServerOptions:
        assert impossible >= {"instance_dir", "data_buffer_dir"}


def test_the_tables_name_options_that_exist() -> None:
    for names, owner in (
        (reload_plan.LIVE_APP, AppOptions),
        (reload_plan.LIVE_POOL, PoolOptions),
        (reload_plan.LIVE_SERVER | reload_plan.LISTENERS, ServerOptions),
    ):
        assert names <= {field.name for field in attrs.fields(owner)}


STORIES: list[tuple[str, Setup, Setup, list[str]]] = [
    (
        "added and removed",
        a_setup(an_app(SHOP)),
        a_setup(an_app(BLOG, root="blog")),
        ["+ blog (production): it is served from blog", "- shop (production): it ends after its requests"],
    ),
    (
        "another environment is another application",
        a_setup(an_app(SHOP)),
        a_setup(an_app(GroupKey("shop", "staging"), root="shop")),
        ["+ shop (staging): it is served from shop", "- shop (production): it ends after its requests"],
    ),
    (
        "values of variables are not shown",
        a_setup(an_app(SHOP, env=(("KEY", "old"), ("GONE", "x")))),
        a_setup(an_app(SHOP, env=(("KEY", "secret"), ("NEW", "y")))),
        ["* shop (production): env: -GONE ~KEY +NEW (it is restarted, rolling)"],
    ),
    (
        "another interpreter is found",
        a_setup(an_app(SHOP, (("interpreter", "/a/python"),))),
        a_setup(an_app(SHOP, (("interpreter", "/b/python"),))),
        ["* shop (production): interpreter: /a/python -> /b/python (it is restarted, rolling)"],
    ),
    (
        "several at once",
        a_setup(an_app(SHOP, max_request_time=5.0), pool={"max_pool_size": 6}),
        a_setup(an_app(SHOP, max_request_time=0.0, thread_count=4), pool={"max_pool_size": 3}, server={"port": 8000}),
        [
            "= server: port: 3000 -> 8000",
            "~ pool: max_pool_size: 6 -> 3",
            "~ shop (production): max_request_time: 5s -> 0s",
            "* shop (production): thread_count: 1 -> 4 (it is restarted, rolling)",
        ],
    ),
    (
        "impossible",
        a_setup(server={"instance_dir": "/a"}),
        a_setup(server={"instance_dir": "/b"}),
        ["! server: instance_dir: /a -> /b (not while it runs: start the server anew)"],
    ),
]


@pytest.mark.parametrize(("before", "after", "lines"), [story[1:] for story in STORIES], ids=[s[0] for s in STORIES])
def test_one_line_for_each_change(before: Setup, after: Setup, lines: list[str]) -> None:
    assert sorted(make_plan(before, after).lines) == sorted(lines)
    assert bool(make_plan(before, after).impossible) == any(line.startswith("!") for line in lines)


def test_FR4_what_fronts_cannot_change_while_they_run_is_named() -> None:
    before = a_setup(an_app(SHOP))
    fine = make_plan(before, a_setup(an_app(SHOP, max_requests=7), an_app(BLOG), server={"max_connections": 9}))
    assert fine.changes
    assert fine.of_listeners == ()
    moved = make_plan(before, a_setup(an_app(SHOP), server={"port": 4000, "socket_backlog": 9}))
    assert [line.partition(" ->")[0] for line in moved.of_listeners] == ["= server: port: 3000"]


def test_OP1_the_same_directory_written_in_another_way_is_no_change() -> None:
    """A file given as ``--config passenger-trio.toml`` is read anew by its absolute path: every application was restarted by the first reload."""
    here = (("directory", "/srv/shop"),)
    before = a_setup(an_app(SHOP, here, root="./shop"))
    assert make_plan(before, a_setup(an_app(SHOP, here, root="/srv/shop"))) == Plan()
    plan = make_plan(before, a_setup(an_app(SHOP, here, root="/srv/shop", max_requests=5)))
    assert (plan.changed, plan.restarted) == ((SHOP,), ())
    plan = make_plan(before, a_setup(an_app(SHOP, (("directory", "/srv/other"),), root="/srv/other")))
    assert plan.restarted == (SHOP,)
