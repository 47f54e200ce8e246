"""Where a server's configuration comes from: the interface that a reload uses. ``cli/source``, which reads files, implements it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from passenger_trio.options import Config
from passenger_trio.spawning.known_apps import KnownApps

__all__ = ["ConfigSource", "ReadConfig"]


class ReadConfig(Protocol):
    """A configuration that was read anew."""

    @property
    def config(self) -> Config: ...

    def naming_places(self) -> AbstractContextManager[None]:
        """Adds the file and line of a bad value to its error."""


class ConfigSource(Protocol):
    """Where a server's configuration comes from."""

    @property
    def broken(self) -> Mapping[str, str]:
        """Files of ``--apps-dir`` that are not served as they are, and why."""

    @property
    def found(self) -> KnownApps | None:
        """What was found in the directories of the applications that were read last."""

    def has_other_files(self) -> bool:
        """Whether files of ``--apps-dir`` have come, changed or gone since they were read. Blocking.

        :raises PassengerError: the directory cannot be read.
        """

    def read(self, *, apps_only: bool = False) -> ReadConfig:
        """Read all of it. Blocking: call it in a thread.

        :param apps_only: read the files of ``--apps-dir`` only.

        :raises PassengerError: it cannot be read, or has an invalid value.
        """

    def applied(self, read: ReadConfig) -> None:
        """The server has taken it over."""
