"""The pytest plugin: fixtures, marks and options. Entry point ``passenger_trio`` of ``pytest11``.

This module is imported in every run of pytest where the package is installed, so it imports nothing
but pytest (TH1). What a fixture needs is imported when it is first used.

``PARTS`` are further plugins of ours under the same law. They attach through ``hooks``.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from passenger_trio.testing.clients import WebSockets
    from passenger_trio.testing.live_app import LiveApp
    from passenger_trio.testing.live_log import LiveLog
    from passenger_trio.testing.raw_client import RawClient
    from passenger_trio.testing.servers import Servers

PARTS: tuple[str, ...] = ("passenger_trio.testing.evidence", "passenger_trio.testing.mark_mistake")
"""Modules of further fixtures and reports, such as ``passenger_trio.testing.NAME``."""

pytest_plugins = PARTS

_KEPT = pytest.StashKey[list[str]]()
"""Directories of servers that stay (``--passenger-keep``)."""

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
        default="",
        help="the application of tests that name none: a directory (--passenger-app=PATH, in one word), or module:object",
    )
    group.addoption(
        "--passenger-server",
        metavar="NAME|URL",
        default="",
        help="test a server that runs already instead of starting one: http://HOST:PORT, unix:/PATH, or an instance that"
        " passenger-trio list shows, by name, pid or directory (--passenger-server=/PATH, in one word); nothing is forked",
    )
    group.addoption(
        "--passenger-keep",
        action="store_true",
        help="let the servers' directories stay after the run, with configuration and log, and say where they are",
    )
    parser.addini("passenger_app", "the application of tests that name none", type="string", default="")
    parser.addini(
        "passenger_server", "a server that runs already: what --passenger-server takes", type="string", default=""
    )
    parser.addini("passenger_keep", "let the servers' directories stay after the run", type="bool", default=False)
    parser.addini(
        "passenger_leak_threshold",
        "new descriptors or threads of the application that are no leak (4)",
        type="int",
        default=4,
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from passenger_trio.testing import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    _refuse_paths_that_move_the_root(config)


def _refuse_paths_that_move_the_root(config: pytest.Config) -> None:
    """pytest looks for its rootdir before plugins have told of their options. It takes each word that is a path for a place of tests,
    ``--passenger-server /run/shop`` included, and so finds another rootdir, or none.
    """
    words = [str(word) for word in config.invocation_params.args]
    for option, value in itertools.pairwise(words):
        if option in ("--passenger-server", "--passenger-app") and not value.startswith("-"):
            path = config.invocation_params.dir / value
            if path.exists() and not config.invocation_params.dir.is_relative_to(path):
                raise pytest.UsageError(
                    f"{option} {value}: write {option}={value}. As a word of its own, pytest takes a path for a place of tests, and looks for its rootdir"
                    f" there (now {config.rootpath})"
                )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for home in config.stash.get(_KEPT, []):
        terminalreporter.write_line(f"passenger: configuration and log of a server are in {home}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("passenger_matrix")
    if mark is not None and "live_app" in metafunc.fixturenames:
        names = [app if isinstance(app, str) else getattr(app, "__name__", None) for app in mark.args]
        metafunc.parametrize("live_app", mark.args, indirect=True, ids=names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """End the applications of drop-in clients, when the fixtures of the test are gone."""
    yield
    drop_in = sys.modules.get("passenger_trio.testing.process_wide")
    if drop_in is not None:
        from passenger_trio.testing.opening import allowances

        if findings := drop_in.end_all(*allowances(item)):
            pytest.fail("\n".join(findings), pytrace=False)


@pytest.fixture(scope="session")
def passenger_config() -> dict[str, Any]:
    """Options of every server under test; names as in passenger-trio.toml. Override it in a conftest.py."""
    return {}


@pytest.fixture
def passenger_app() -> Any:
    """The application under test, if no mark or option names it: override it, to return a directory,
    ``"module:object"``, or an object that your fixtures have made.
    """
    return None


@pytest.fixture(scope="session")
def passenger_server(
    request: pytest.FixtureRequest, passenger_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """The servers of this session (of this worker of pytest-xdist): one for each application and set of options."""
    from passenger_trio.testing.run_directory import HOME, temporary_directory
    from passenger_trio.testing.servers import Servers

    keep = request.config.getoption("passenger_keep") or request.config.getini("passenger_keep")
    with Servers(
        passenger_config, lambda: tmp_path_factory.mktemp("pt") if keep else temporary_directory(HOME), keep
    ) as servers:
        yield servers
        request.config.stash[_KEPT] = [str(home) for home in servers.homes] if keep else []


@pytest.fixture
def live_app(request: pytest.FixtureRequest, passenger_app: Any, passenger_server: Servers) -> Iterator[LiveApp]:
    """The application of the test, in a process that was forked for this test."""
    from passenger_trio.testing.opening import asked_for, open_live_app

    app, options = asked_for(request, getattr(request, "param", passenger_app))
    with open_live_app(request, passenger_server, app, options) as live_app:
        yield live_app


@pytest.fixture
def passenger_factory(
    request: pytest.FixtureRequest, passenger_app: Any, passenger_server: Servers
) -> Iterator[Callable[..., LiveApp]]:
    """``passenger_factory(app=None, **options)``: one more live application, for as long as the test lasts."""
    from contextlib import ExitStack

    from passenger_trio.testing.opening import asked_for, open_live_app

    with ExitStack() as opened:

        def make(app: object = None, **options: Any) -> LiveApp:
            usual, given = asked_for(request, passenger_app)
            chosen = usual if app is None else app
            return opened.enter_context(open_live_app(request, passenger_server, chosen, {**given, **options}))

        yield make


@pytest.fixture
def passenger_client(live_app: LiveApp) -> Iterator[Any]:
    """An ``httpx2.Client`` of the live application."""
    with live_app.client() as client:
        yield client


@pytest.fixture
def passenger_ws(live_app: LiveApp) -> Iterator[WebSockets]:
    """``passenger_ws(path)`` opens a WebSocket: ``send``, ``receive``, ``close``."""
    from passenger_trio.testing.clients import WebSockets

    websockets = WebSockets(lambda: live_app.address)
    yield websockets
    websockets.close()


@pytest.fixture
def passenger_raw(live_app: LiveApp) -> Iterator[RawClient]:
    """A connection that sends exactly the bytes that the test gives it."""
    with live_app.connect() as client:
        yield client


@pytest.fixture
def passenger_log(live_app: LiveApp) -> LiveLog:
    """The log of the test: ``events``, ``output``, ``wait(regex)``."""
    from passenger_trio.testing.live_log import LiveLog

    return LiveLog(live_app)
