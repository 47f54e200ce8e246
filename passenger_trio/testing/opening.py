"""From what a test asks for (marks, the fixture ``passenger_app``, ini file, command line) to its live application.

The nearest says which application it is: what the caller gives, the fixture ``passenger_app``, the nearest mark, the command line, the ini file.
Options add up; the nearest mark wins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from passenger_trio.admin.instances import find_instance, list_instances
from passenger_trio.testing.forked_processes import ForkedProcesses, interface_of
from passenger_trio.testing.leaks import KINDS
from passenger_trio.testing.live_app import LiveApp, options_for_object, options_of
from passenger_trio.testing.servers import Servers

__all__ = ["allowances", "asked_for", "open_live_app"]


def asked_for(request: pytest.FixtureRequest, own: object = None) -> tuple[object, dict[str, Any]]:
    """The application that a test asks for, and the options of its marks.

    :param own: the application of the fixture ``passenger_app``, or of ``passenger_matrix``.
    """
    app: object = request.config.getoption("passenger_app") or request.config.getini("passenger_app")
    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("passenger"))):
        if len(mark.args) > 1:
            raise pytest.UsageError(f"the mark passenger takes one application, not {len(mark.args)}")
        given = dict(mark.kwargs)
        # A mark with a function as its only argument decorates it, by pytest's rule. Hence the keyword.
        app = given.pop("app", mark.args[0] if mark.args else app)
        options.update(given)
    return (app if own is None else own), options


def allowances(item: pytest.Item) -> tuple[list[str], list[str], int]:
    """The patterns and the kinds of leaks that the marks of a test allow, and the threshold of the ini file."""
    patterns = [text for mark in item.iter_markers("passenger_allow_log") for text in mark.args or (".",)]
    kinds = [kind for mark in item.iter_markers("passenger_allow_leak") for kind in mark.args or KINDS]
    if unknown := set(kinds) - set(KINDS):
        raise pytest.UsageError(f"passenger_allow_leak: {sorted(unknown)}; kinds are {', '.join(KINDS)}")
    return patterns, kinds, int(item.config.getini("passenger_leak_threshold"))


@contextmanager
def open_live_app(
    request: pytest.FixtureRequest, servers: Servers, app: object, options: Mapping[str, Any]
) -> Iterator[LiveApp]:
    """Serve an application while the test runs. What the test leaves behind fails it.

    :raises DoesNotStart: the application does not start.
    """
    hook = request.config.hook
    options = dict(options)
    hook.pytest_passenger_options(request=request, options=options)
    live_app, make_processes = _find(request, servers, app, options)
    if make_processes is not None or live_app.is_ours:
        live_app.begin(make_processes)
    try:
        hook.pytest_passenger_start(live_app=live_app, request=request)
        yield live_app
    finally:
        live_app.settle()
        found = hook.pytest_passenger_end(live_app=live_app, request=request)
        findings = live_app.end(*allowances(request.node))
    findings = [text for texts in found for text in texts or ()] + findings
    if findings:
        pytest.fail("\n".join(findings), pytrace=False)


def _find(
    request: pytest.FixtureRequest, servers: Servers, app: object, options: Mapping[str, Any]
) -> tuple[LiveApp, Any]:
    elsewhere = request.config.getoption("passenger_server") or request.config.getini("passenger_server")
    if elsewhere:
        return LiveApp(_address(elsewhere), None), None
    base = request.config.rootpath
    try:
        named = options_of(app, base)
        if named is not None:
            return LiveApp.of(servers.get(named, options)), None
        server = servers.get_for_object(
            lambda socket: options_for_object(app, base, socket, options),
            (interface_of(app), repr(sorted(options.items()))),
        )
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    environment = {name: str(value) for name, value in dict(options.get("env", {})).items()}
    make = partial(ForkedProcesses, app, interface_of(app), server.home / "p", environment)
    return LiveApp.of(server), make


def _address(given: str) -> str | tuple[str, int]:
    """Where the server of ``--passenger-server`` listens.

    :raises pytest.UsageError: it is no address, and no instance that runs.
    """
    is_address = given.startswith("unix:") or "://" in given
    url = given if is_address else _address_of_instance(given)
    if url.startswith("unix:"):
        return url.removeprefix("unix:")
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise pytest.UsageError(
            f"--passenger-server {url!r}: write http://HOST:PORT, unix:/PATH, or the name of an instance"
        )
    return parts.hostname, parts.port or 80


def _address_of_instance(name: str) -> str:
    if os.sep in name:
        found = find_instance(name)
        running = [found] if found is not None and found.is_live else []
    else:
        running = [one for one in list_instances() if name in (one.name, str(one.pid))]
    if not running:
        raise pytest.UsageError(
            f"--passenger-server {name!r}: no such instance of yours runs (passenger-trio list); an address is written http://HOST:PORT or unix:/PATH"
        )
    return running[0].addresses[0]
