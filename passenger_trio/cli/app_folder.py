"""The files of ``--apps-dir``: each has one application, by the names that an ``[[app]]`` table has.

A file is read again only when it has changed. One that cannot be served is reported, and what it said before is kept
(``core.app_files`` chooses). The name of an application is by default that of its file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import click

from passenger_trio.core.app_files import choose
from passenger_trio.core.config_text import ConfigText, read_app_file
from passenger_trio.errors import ConfigError, PassengerError
from passenger_trio.options import AppOptions

if TYPE_CHECKING:
    from passenger_trio.spawning.detect import DetectedApp

__all__ = ["AppFolder"]

_Stamp = tuple[int, int, int]


@attrs.define(eq=False)
class AppFolder:
    """What is known of the directory."""

    broken: dict[str, str] = attrs.field(factory=dict)
    """Why a file is not served as it is, by its path."""
    found: dict[AppOptions, DetectedApp] = attrs.field(factory=dict)
    """What was found in the directories of those that were read last: it need not be looked for again."""
    _stamps: dict[str, _Stamp] = attrs.field(factory=dict)
    _good: dict[str, AppOptions] = attrs.field(factory=dict)
    """What each file said when it last could be served."""
    _bad: dict[str, str] = attrs.field(factory=dict)
    """What is wrong with a file by itself."""
    _served: dict[str, AppOptions] = attrs.field(factory=dict)

    def read(
        self,
        directory: str,
        make: Callable[[ConfigText], tuple[AppOptions, DetectedApp]],
        fixed: Sequence[AppOptions],
        most: int,
    ) -> list[AppOptions]:
        """The applications to serve now.

        :param make: makes an application of a file's text, and checks it by itself.
        :param fixed: the other applications, with their names. :param most: the size of the pool.
        :raises ConfigError: the directory cannot be read.
        """
        stamps = _stamps(directory)
        for path in self._stamps.keys() - stamps.keys():
            self._good.pop(path, None)
            self._bad.pop(path, None)
        self.found = {}
        for path, stamp in stamps.items():
            if self._stamps.get(path) == stamp:
                continue
            try:
                with open(path, encoding="utf-8") as file:
                    app, found = make(read_app_file(file.read(), path))
            except PassengerError as error:
                self._bad[path] = str(error)
            except click.ClickException as error:
                self._bad[path] = error.format_message()
            except (OSError, UnicodeDecodeError) as error:
                self._bad[path] = f"it cannot be read: {error}"
            else:
                self._good[path] = app
                self.found[app] = found
                self._bad.pop(path, None)
        self._stamps = stamps
        choice = choose(fixed, self._good, self._served, most)
        self._served = dict(choice.served)
        self.broken = dict(sorted({**self._bad, **choice.refused}.items()))
        return [choice.served[path] for path in sorted(choice.served)]


def _stamps(directory: str) -> dict[str, _Stamp]:
    try:
        with os.scandir(directory) as entries:
            found = {}
            for entry in entries:
                if entry.name.endswith(".toml") and not entry.name.startswith("."):
                    try:
                        status = entry.stat()
                    except OSError:
                        continue  # it is gone
                    found[entry.path] = (status.st_mtime_ns, status.st_size, status.st_ino)
            return found
    except OSError as error:
        raise ConfigError(directory, 0, f"apps_dir cannot be read: {error.strerror}") from None
