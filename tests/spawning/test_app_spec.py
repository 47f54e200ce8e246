"""What an application is started with: its command, the members of ``options``, and an environment that holds nothing of anybody else's."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from passenger_trio.options import AppOptions
from passenger_trio.spawning.app_spec import AppSpec, make_app_spec
from passenger_trio.spawning.detect import DetectedApp

CONTRACT = Path(__file__).resolve().parent.parent.parent / "spawn_servers" / "CONTRACT.md"

DETECTED = DetectedApp(
    app_type="wsgi",
    root="/srv/shop",
    startup_file="/srv/shop/wsgi.py",
    entry_module="",
    entry_object="app",
    entry_is_factory=True,
    python="/usr/bin/python3",
    python_reason="",
    reason="",
    env_additions=(("DJANGO_SETTINGS_MODULE", "shop.settings"), ("BOTH", "detected")),
)
BASE = {"PATH": "/bin", "HOME": "/root", "PASSENGER_TRIO_SPAWN_TOKEN": "secret", "PASSENGER_TRIO_PORT": "1", "PWD": "/"}


def spec(detected: DetectedApp = DETECTED, **options: object) -> AppSpec:
    return make_app_spec(AppOptions(**options), detected, BASE, "/run/x")  # type: ignore[arg-type]


def test_the_group_has_a_name() -> None:
    assert str(spec().key) == "shop (development)"
    assert str(spec(name="other", environment="production").key) == "other (production)"


def test_the_command_is_the_interpreter_and_the_loader() -> None:
    python, loader = spec().command
    assert python == "/usr/bin/python3"
    assert loader.endswith("/spawn_servers/python/wsgi_loader.py")
    assert spec().preloader_command == (python, loader, "--preload")


def test_the_environment_is_ours_less_our_settings_plus_the_applications() -> None:
    environment = spec(env=(("MINE", "1"), ("BOTH", "own"), ("PATH", "/opt/bin"))).environment
    assert environment == {
        "PATH": "/opt/bin",
        "HOME": "/root",
        "PWD": "/srv/shop",
        "IN_PASSENGER": "1",
        "PASSENGER_APP_ENV": "development",
        "WSGI_ENV": "development",
        "RACK_ENV": "development",
        "RAILS_ENV": "development",
        "NODE_ENV": "development",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "BOTH": "own",
        "MINE": "1",
    }


def test_one_application_sees_nothing_of_another() -> None:
    """R48."""
    one, other = spec(name="a", env=(("SECRET", "a"),)), spec(name="b")
    assert one.environment["SECRET"] == "a"
    assert "SECRET" not in other.environment
    assert "SECRET" not in BASE


def test_the_options_are_those_of_the_contract_each_of_its_type() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (str|int|float|bool) \|", CONTRACT.read_text(), re.MULTILINE)
    types = {"str": str, "int": int, "float": float, "bool": bool}
    options = spec(thread_count=3, base_uri="/shop/").loader_options("sock")
    assert {name: type(value) for name, value in options.items()} == {name: types[kind] for name, kind in rows}
    assert options["socket_dir"] == "/run/x"
    assert options["socket_name"] == "sock"
    assert options["threads"] == 3
    assert options["base_uri"] == "/shop"
    assert options["startup_file"] == "/srv/shop/wsgi.py"
    assert options["entry_is_factory"] is True


@pytest.mark.parametrize(
    ("app_type", "options", "told"),
    [
        ("wsgi", {}, 1),
        ("wsgi", {"thread_count": 4}, 4),
        ("wsgi", {"thread_count": 4, "max_concurrent_requests_per_process": 3}, 4),
        ("wsgi", {"thread_count": 4, "force_max_concurrent_requests_per_process": 9}, 4),
        ("rack", {"thread_count": 2}, 2),
        ("asgi", {}, 100),
        ("asgi", {"thread_count": 4}, 100),
        ("asgi", {"max_concurrent_requests_per_process": 7}, 7),
        ("asgi", {"max_concurrent_requests_per_process": 7, "force_max_concurrent_requests_per_process": 9}, 9),
        ("asgi", {"max_concurrent_requests_per_process": 0}, 0),
        ("asgi", {"force_max_concurrent_requests_per_process": 0}, 0),
    ],
)
def test_how_many_sessions_a_process_is_to_serve_at_a_time(app_type: str, options: dict[str, int], told: int) -> None:
    made = spec(**options)
    typed = attrs.evolve(made, detected=attrs.evolve(made.detected, app_type=app_type))
    assert typed.loader_options("x")["threads"] == told


@pytest.mark.parametrize(("given", "told"), [("", ""), ("/", ""), ("/a/b/", "/a/b"), ("/a", "/a")])
def test_a_base_uri_has_no_slash_at_its_end(given: str, told: str) -> None:
    assert spec(base_uri=given).loader_options("x")["base_uri"] == told
