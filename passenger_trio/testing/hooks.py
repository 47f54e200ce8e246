"""The hooks of the pytest plugin. Whatever belongs to a test and its application attaches here: our
own parts, and conftest files.

Order of a test: ``pytest_passenger_options``, the application's process is forked,
``pytest_passenger_start``, the test, ``pytest_passenger_end``, the process ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from passenger_trio.testing.live_app import LiveApp

__all__ = ["pytest_passenger_end", "pytest_passenger_options", "pytest_passenger_start"]


@pytest.hookspec
def pytest_passenger_options(request: pytest.FixtureRequest, options: dict[str, Any]) -> None:
    """Change the options of the server under test, in place, before it is looked up or started.

    :param options: names as in ``passenger-trio.toml``, and ``server_environment``, variables of the
        server itself; tests with the same application and the same options share a server.
    """


@pytest.hookspec
def pytest_passenger_start(live_app: LiveApp, request: pytest.FixtureRequest) -> None:
    """The application serves, and the test is about to begin. ``live_app.socket`` may be replaced by
    the path of another socket, to stand between the clients of the test and the server.
    """


@pytest.hookspec
def pytest_passenger_end(live_app: LiveApp, request: pytest.FixtureRequest) -> list[str] | None:
    """The test has ended; its processes still live. Each returned text is a finding: it fails the test."""
