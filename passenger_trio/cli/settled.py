"""The settled configuration: the value of each option, and its origin, so that an error names the place of a bad value.

This module knows values, origins and the lines of the configuration file. It never knows which source wins (``settings``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from passenger_trio.cli.flags import flags
from passenger_trio.core.config_text import ConfigText, Setting
from passenger_trio.errors import ConfigError, NothingToServe, OptionError, PassengerError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions, Config, ServerOptions

__all__ = ["Origins", "Settled"]

Origins = dict[str, str]
"""Option as in the file (``app[0].root``, ``pool.max_pool_size``) -> the origin of its value."""


@frozen
class Settled:
    config: Config
    origins: Origins
    file: ConfigText | None

    @contextmanager
    def naming_places(self) -> Iterator[None]:
        """Add the origin of a bad value to its error: a line of the file, or a variable.

        :raises ConfigError: instead of an ``OptionError``, if the value comes from the file.
        """
        try:
            yield
        except OptionError as error:
            raise self._located(error) from error
        except NothingToServe as error:
            tables = self.file.apps if self.file is not None else ()
            if self.file is not None and error.number is not None and error.number < len(tables):
                lines = [setting.line for setting in tables[error.number].values() if setting.line]
                named = tables[error.number].get("root")
                place = f"{self.file.path}:{named.line if named else min(lines, default=1)}"
                error.args = (f"{place}: {error}",)
            raise

    def _located(self, error: OptionError) -> PassengerError:
        flag = next((flag for flag in flags() if error.option in (flag.long, flag.field)), None)
        field = flag.field if flag is not None else error.option
        for name, setting in self._settings(field, flag.owner if flag is not None else AppOptions):
            table, number = name
            options = self.config.apps[number] if table == "app" else getattr(self.config, table)
            value = getattr(options, field)
            if value != error.value and not (isinstance(value, tuple) and error.value in value):
                continue
            origin = self.origins.get(f"app[{number}].{field}" if table == "app" else f"{table}.{field}", "")
            if setting is not None and self.file is not None and origin == self.file.where(setting):
                return ConfigError(
                    self.file.path, setting.line, f"{field}: {error.value!r} cannot be used: {error.hint}"
                )
            if origin.startswith("environment "):
                variable = origin.removeprefix("environment ")
                return OptionError(f"{variable} in the environment", error.value, error.hint)
        return self._name_located(error)

    def _name_located(self, error: OptionError) -> PassengerError:
        """Add the place of the application whose name, which is that of its directory, is taken."""
        if error.option != "--name" or self.file is None:
            return error
        of = [
            number
            for number, app in enumerate(self.config.apps)
            if not app.name and os.path.basename(os.path.abspath(app.root)) == error.value
        ]
        setting = self.file.apps[of[-1]].get("root") if of and of[-1] < len(self.file.apps) else None
        if setting is None:
            return error
        return ConfigError(self.file.path, setting.line, f"name: {error.value!r} cannot be used: {error.hint}")

    def _settings(self, field: str, owner: type[Any]) -> list[tuple[tuple[str, int], Setting | None]]:
        """The places where an option may be in the file: its table, the table's number, and the
        value there.
        """
        file = self.file
        if owner is not AppOptions:
            table = "server" if owner is ServerOptions else "pool"
            said = {} if file is None else file.server if table == "server" else file.pool
            return [((table, 0), said.get(field))]
        tables = file.apps if file is not None else ()
        return [
            (("app", number), tables[number].get(field) if number < len(tables) else None)
            for number in range(len(self.config.apps))
        ]
