"""Options that contradict each other, or that would have no effect, are refused with a sentence that names the way out (issue 14, HO1)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from passenger_trio.core.option_checks import RULES, check, check_app, check_types
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions


def config(server: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **app: Any) -> Config:
    return Config(server=ServerOptions(**server or {}), pool=PoolOptions(**pool or {}), apps=(AppOptions(**app),))


@pytest.mark.parametrize(
    ("wrong", "option", "way_out"),
    [
        (config(max_requests_jitter=5), "--max-requests-jitter", "--max-requests"),
        (config(max_requests_jitter=5, max_requests=5), "--max-requests-jitter", "more than this"),
        (config(memory_limit=200, hard_memory_limit=100), "--hard-memory-limit", "make it the larger one"),
        (config(warmup_url="nopath"), "--warmup-url", "/health"),
        (config(warmup_url="/a path"), "--warmup-url", "/health"),
        (config(warmup_url="/path#part"), "--warmup-url", "/health"),
        (config(warmup_url="/pfad/ä"), "--warmup-url", "/health"),
        (config({"socket": "/s", "port": 80}), "--port", "one of the two"),
        (config({"socket": "/s", "address": "::1"}), "--address", "one of the two"),
        (config({"socket_mode": "0600"}), "--socket-mode", "--socket"),
        (config({"websocket_ping_interval": 0.0, "websocket_ping_timeout": 5.0}), "--websocket-ping-timeout", "is 0"),
        (config({"access_log": "off", "access_log_format": "json"}), "--access-log-format", "is off"),
        (config({"abort_on_startup_error": True}, min_instances=0), "--abort-on-startup-error", "--min-instances"),
        (config(pool={"memory_check_interval": 1.0}), "--memory-check-interval", "--memory-limit"),
        (config(request_buffering=False, streamed_paths=("/up",)), "--streamed-paths", "--no-request-buffering"),
        (config(pool={"stat_throttle_rate": 0.0}, restart_dir="x"), "--restart-dir", "--stat-throttle-rate"),
        (config(spawn_method="direct", max_preloader_idle_time=1.0), "--max-preloader-idle-time", "--spawn-method"),
        (config(sticky_sessions_cookie_name="x"), "--sticky-sessions-cookie-name", "give --sticky-sessions"),
        (
            config(sticky_sessions_cookie_attributes="Secure"),
            "--sticky-sessions-cookie-attributes",
            "--sticky-sessions",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("--") else "",
)
def test_a_contradiction_is_refused(wrong: Config, option: str, way_out: str) -> None:
    with pytest.raises(OptionError) as caught:
        check(wrong)
    assert caught.value.option == option
    assert way_out in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "right",
    [
        config(),
        config(max_requests_jitter=5, max_requests=6),
        config(memory_limit=200, hard_memory_limit=200),
        config(hard_memory_limit=100),
        config(warmup_url="/health?deep=1%20"),
        config({"socket": "/s", "socket_mode": "0600"}),
        config({"port": 80, "address": "::1"}),
        config({"websocket_ping_interval": 0.0}),
        config({"websocket_ping_timeout": 5.0}),
        config({"access_log": "off"}),
        config({"abort_on_startup_error": True}),
        config({"abort_on_startup_error": False}, min_instances=0),
        config(pool={"memory_check_interval": 1.0}, hard_memory_limit=100),
        config(streamed_paths=("/up",)),
        config(pool={"stat_throttle_rate": 0.0}),
        config(restart_dir="x"),
        config(max_preloader_idle_time=1.0),
        config(sticky_sessions=True, sticky_sessions_cookie_name="x", sticky_sessions_cookie_attributes="Secure"),
    ],
    ids=str,
)
def test_what_goes_together_is_taken(right: Config) -> None:
    check(right)


def test_every_rule_names_an_option() -> None:
    for rule in RULES:
        assert rule.field in {field.name for field in attrs.fields(rule.owner)}


@pytest.mark.parametrize(
    ("app_type", "options", "option"),
    [
        ("rack", {"python": "x"}, "--python"),
        ("node", {"python": "x"}, "--python"),
        ("generic", {"python": "x"}, "--python"),
        ("wsgi", {"ruby": "x"}, "--ruby"),
        ("node", {"ruby": "x"}, "--ruby"),
        ("wsgi", {"node": "x"}, "--node"),
        ("rack", {"node": "x"}, "--node"),
        ("wsgi", {"loop": "trio"}, "--loop"),
        ("rack", {"loop": "asyncio"}, "--loop"),
        ("asgi", {"thread_count": 2}, "--thread-count"),
        ("node", {"thread_count": 2}, "--thread-count"),
        ("generic", {"thread_count": 2}, "--thread-count"),
        ("wsgi", {"max_concurrent_requests_per_process": 2}, "--max-concurrent-requests-per-process"),
        ("rack", {"max_concurrent_requests_per_process": 0}, "--max-concurrent-requests-per-process"),
        ("node", {"max_preloader_idle_time": 1.0}, "--max-preloader-idle-time"),
        ("generic", {"max_preloader_idle_time": 1.0}, "--max-preloader-idle-time"),
    ],
)
def test_an_option_for_another_type_is_refused(app_type: str, options: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_types([AppOptions(root="/shop", **options)], [(app_type,)], [None])
    assert caught.value.option == option
    assert "/shop is a" in caught.value.hint


@pytest.mark.parametrize(
    ("app_type", "options"),
    [
        ("wsgi", {"python": "x", "thread_count": 2}),
        ("asgi", {"python": "x", "loop": "trio", "max_concurrent_requests_per_process": 2}),
        ("rack", {"ruby": "x", "thread_count": 2, "max_preloader_idle_time": 1.0}),
        ("node", {"node": "x", "max_concurrent_requests_per_process": 2}),
        ("generic", {"max_concurrent_requests_per_process": 2}),
    ],
)
def test_an_option_for_this_type_is_taken(app_type: str, options: dict[str, Any]) -> None:
    check_types([AppOptions(**options)], [(app_type,)], [None])


def test_what_may_turn_out_to_be_asgi_may_choose_its_loop() -> None:
    """Only loading the application shows its type."""
    check_types([AppOptions(loop="trio", thread_count=2)], [("wsgi", "asgi")], [None])


def test_an_option_for_all_applications_need_be_for_one_of_them() -> None:
    """The command line's options hold for every application of a file."""
    both = [AppOptions(ruby="ruby3"), AppOptions(ruby="ruby3")]
    check_types(both, [("rack",), ("wsgi",)], [None, None])
    with pytest.raises(OptionError, match="--ruby: 'ruby2'"):
        check_types([both[0], AppOptions(ruby="ruby2")], [("rack",), ("wsgi",)], [None, None])


def test_what_cannot_fork_has_no_preloader() -> None:
    smart = AppOptions(spawn_method="smart")
    with pytest.raises(OptionError, match=r"--spawn-method: 'smart' .*Node.js cannot fork: leave it out"):
        check_types([smart], [("node",)], ["Node.js cannot fork"])
    check_types([smart, smart], [("node",), ("wsgi",)], ["Node.js cannot fork", None])
    check_types([AppOptions()], [("node",)], ["Node.js cannot fork"])


def test_OP4_an_application_is_checked_by_itself_and_not_for_what_others_have() -> None:
    """A file of --apps-dir is not broken because another application has the minimum, or the limit, that an option needs."""
    server, pool = ServerOptions(abort_on_startup_error=True), PoolOptions(memory_check_interval=1.0)
    config = Config(server=server, pool=pool, apps=())
    check_app(AppOptions(min_instances=0), config)
    for wrong in (
        AppOptions(max_requests_jitter=5),
        AppOptions(thread_count=0),
        AppOptions(min_instances=7),
        AppOptions(umask="9"),
        AppOptions(cpu_max="much"),
    ):
        with pytest.raises(OptionError):
            check_app(wrong, config)
