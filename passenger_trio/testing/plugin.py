"""The pytest plugin: fixtures, marks and options. Entry point ``passenger_trio`` of ``pytest11``.

This module is imported in every run of pytest where the package is installed, so it imports nothing
but pytest (TH1). What a fixture needs is imported when it is first used.

``PARTS`` are further plugins of ours under the same law. They attach through ``hooks``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from passenger_trio.testing.live_app import LiveApp
    from passenger_trio.testing.servers import Servers

PARTS: tuple[str, ...] = ()
"""Modules of further fixtures and reports, such as ``passenger_trio.testing.NAME``."""

pytest_plugins = PARTS

_MARKS = (
    "passenger(app, **options): the application of a test, and options of its server (passenger-trio.toml has their names)",
    "passenger_matrix(*apps): run the test once with each of these applications",
    "passenger_allow_log(regex): lines of level error that match do not fail the test",
    "passenger_allow_leak(*kinds): descriptors, threads, processes or sockets that may be left when the test ends",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("passenger", "a real server for the tests (passenger_trio)")
    group.addoption(
        "--passenger-app",
        metavar="APP",
        default=None,
        help="the application of tests that name none: a directory, or module:object",
    )
    parser.addini("passenger_app", "the application of tests that name none", type="string", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from passenger_trio.testing import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)


@pytest.fixture(scope="session")
def passenger_config() -> dict[str, Any]:
    """Options of every server under test. Override it in a conftest.py."""
    return {}


@pytest.fixture(scope="session")
def passenger_server(passenger_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of this session (of this worker of pytest-xdist): one for each application and set of options."""
    from passenger_trio.testing.servers import Servers

    with Servers(passenger_config, tmp_path_factory) as servers:
        yield servers


@pytest.fixture
def live_app(request: pytest.FixtureRequest, passenger_server: Servers) -> Iterator[LiveApp]:
    """The application of the test, in a process that was forked for this test."""
    from passenger_trio.testing.live_app import open_live_app

    with open_live_app(request, passenger_server) as live_app:
        yield live_app
