"""The environment of an application's programs: the supervisor's own without the variables that start with ``PASSENGER_TRIO_`` (the supervisor's settings, and
other instances' tokens), plus what every application gets, plus the application's own. One application never sees the variables of another (R48).

``launch`` and ``direct`` add what one spawn needs; ``env_files`` reads the files of ``--env-file``; ``core/users`` knows the variables of a login.
"""

from __future__ import annotations

from collections.abc import Mapping

from passenger_trio.core.users import Account, environment_of
from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp

__all__ = ["Surroundings", "environment_of_app"]

_NAMES_OF_ENVIRONMENT = ("PASSENGER_APP_ENV", "WSGI_ENV", "RACK_ENV", "RAILS_ENV", "NODE_ENV")
"""The variables in which languages and frameworks look for the environment's name (``--environment``)."""


def environment_of_app(surroundings: Mapping[str, str], app: AppOptions, detected: DetectedApp) -> dict[str, str]:
    """:param surroundings: of ``Surroundings.of``."""
    environment = dict(surroundings)
    for name in _NAMES_OF_ENVIRONMENT:
        environment[name] = app.environment
    environment["IN_PASSENGER"] = "1"
    environment["PWD"] = detected.root
    environment.update(detected.env_additions)
    environment.update(app.env)
    return environment


class Surroundings:
    """The variables that all applications of a user have in common. Made once for each user, because there may be thousands of applications."""

    def __init__(self, base: Mapping[str, str]) -> None:
        """:param base: the supervisor's environment."""
        self._base = {name: value for name, value in base.items() if not name.startswith("PASSENGER_TRIO_")}
        self._of: dict[Account, dict[str, str]] = {}

    def of(self, account: Account | None) -> dict[str, str]:
        """The variables of programs that run as this user; None: as the supervisor's user. Shared: do not change them."""
        if account is None:
            return self._base
        if account not in self._of:
            self._of[account] = environment_of(account, self._base)
        return self._of[account]
