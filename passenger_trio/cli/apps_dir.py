"""The files of ``--apps-dir``: each has one application, by the names that an ``[[app]]`` table has.

A file is read again only when it has changed. A file that cannot be served is reported, and its last good version is
served on (``core.apps_dir_plan`` chooses). The name of an application is by default that of its file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import click

from passenger_trio.core.apps_dir_plan import choose
from passenger_trio.core.config_text import ConfigText, read_app_file
from passenger_trio.errors import ConfigError, PassengerError
from passenger_trio.late_classes import define
from passenger_trio.options import AppOptions
from passenger_trio.spawning.accounts import remembering
from passenger_trio.system.regular_files import read_regular

if TYPE_CHECKING:
    from passenger_trio.spawning.detect import DetectedApp
    from passenger_trio.spawning.known_apps import KnownApps

__all__ = ["AppFolder"]

_Stamp = tuple[int, int, int]
_LONGEST = 1024 * 1024


@define(eq=False)
class AppFolder:
    """What is known of the directory."""

    broken: dict[str, str] = attrs.field(factory=dict)
    """Why a file is not served as it is, by its path."""
    found: KnownApps | None = None
    """What was found in the directories of those that were read last: it need not be looked for again."""
    _stamps: dict[str, _Stamp] = attrs.field(factory=dict)
    _good: dict[str, AppOptions] = attrs.field(factory=dict)
    """What each file said when it last could be served."""
    _bad: dict[str, str] = attrs.field(factory=dict)
    """What is wrong with a file by itself."""
    _served: dict[str, AppOptions] = attrs.field(factory=dict)

    def has_changed(self, directory: str) -> bool:
        """Whether ``read`` would find other files than at the last time.

        :raises ConfigError: the directory cannot be read.
        """
        return _stamps(directory) != self._stamps

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
        with remembering():
            return self._read(directory, make, fixed, most)

    def _read(
        self,
        directory: str,
        make: Callable[[ConfigText], tuple[AppOptions, DetectedApp]],
        fixed: Sequence[AppOptions],
        most: int,
    ) -> list[AppOptions]:
        stamps = _stamps(directory)
        for path in self._stamps.keys() - stamps.keys():
            self._good.pop(path, None)
            self._bad.pop(path, None)
        from passenger_trio.spawning.known_apps import (
            KnownApps,
        )  # here: a start without such a directory can do without

        self.found = KnownApps()
        for path, stamp in stamps.items():
            if self._stamps.get(path) == stamp and path not in self._bad:
                continue  # a broken one may be well without a change of its own: its directory is there by now
            try:
                app, found = make(read_app_file(_text(path), path))
            except PassengerError as error:
                self._bad[path] = str(error)
            except click.ClickException as error:
                self._bad[path] = error.format_message()
            except (OSError, UnicodeDecodeError) as error:
                self._bad[path] = f"it cannot be read: {error}"
            else:
                self._good[path] = app
                self.found.add(app, found)
                self._bad.pop(path, None)
        self._stamps = stamps
        choice = choose(fixed, self._good, self._served, most)
        self._served = dict(choice.served)
        self.broken = dict(sorted({**self._bad, **choice.refused}.items()))
        return [choice.served[path] for path in sorted(choice.served)]


def _text(path: str) -> str:
    """Read a file.

    :raises ConfigError: it is no regular file, or too long.
    :raises OSError: it cannot be read.
    :raises UnicodeDecodeError: it is not UTF-8.
    """
    content = read_regular(path, _LONGEST + 1)
    if content is None:
        raise ConfigError(path, 0, "it is no regular file")
    if len(content) > _LONGEST:
        raise ConfigError(path, 0, "it is longer than 1 MiB")
    text = content.decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


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
