"""The source of a running server's configuration: the arguments and the environment of ``start``, and the file,
which is read anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from passenger_trio.cli.applications import Mount
from passenger_trio.cli.apps_dir import AppFolder
from passenger_trio.cli.settings import find_config, settle
from passenger_trio.cli.settled import Settled
from passenger_trio.core.config_text import ConfigText
from passenger_trio.errors import ReloadRefused
from passenger_trio.late_classes import define
from passenger_trio.reload.config_source import ReadConfig
from passenger_trio.system import logs
from passenger_trio.system.paths import absolute_path

if TYPE_CHECKING:
    from passenger_trio.spawning.known_apps import KnownApps

__all__ = ["StartSource"]


@define(eq=False)
class StartSource:
    """What ``start`` was told.

    :ivar ctx: its context, which knows the values that were given.
    :ivar path: the configuration file that was given; empty: the usual one in ``root``.
    """

    ctx: click.Context
    values: Mapping[str, Any]
    path: str
    root: str
    target: str
    mounts: Sequence[Mount]
    is_named: bool
    folder: AppFolder = attrs.field(factory=AppFolder)
    _file: ConfigText | None = None
    """The file as it was last taken over: files of ``--apps-dir`` change without it."""

    _directory: str = ""
    """``--apps-dir``, as it was last read."""

    def settle(self) -> Settled:
        """As ``read``, but a value of a flag or variable that cannot be used is a ``click.ClickException``."""
        settled = self._settle(find_config(self.path, self.root))
        if self._file is None:
            self._file = settled.file
        return settled

    def _settle(self, file: ConfigText | None) -> Settled:
        settled = settle(
            self.ctx,
            self.values,
            file,
            root=self.root,
            target=self.target,
            environ=os.environ,
            mounts=self.mounts,
            is_named=self.is_named,
            folder=self.folder,
        )
        self._directory = settled.config.server.apps_dir
        return settled

    @property
    def broken(self) -> dict[str, str]:
        """Files of ``--apps-dir`` that are not served as they are, and why."""
        return self.folder.broken

    @property
    def found(self) -> KnownApps | None:
        """What was found in the directories of the applications that were read last."""
        return self.folder.found

    def has_other_files(self) -> bool:
        return self.folder.has_changed(self._directory)

    def read(self, *, apps_only: bool = False) -> Settled:
        """The configuration as it is now.

        :param apps_only: read the files of ``--apps-dir`` only.

        :raises PassengerError: it cannot be read, or has an invalid value.
        """
        try:
            return self._settle(self._file if apps_only else self._find())
        except click.ClickException as error:
            raise ReloadRefused(error.format_message()) from error

    def _find(self) -> ConfigText | None:
        """The file, in the directory to which the link leads now that led to the working directory (OP21)."""
        try:
            path = absolute_path(self.path, os.environ) if self.path else ""
            return find_config(path, absolute_path(self.root, os.environ))
        except FileNotFoundError:
            raise ReloadRefused("the working directory was removed, and paths are relative to it") from None

    def applied(self, read: ReadConfig) -> None:
        """The server has taken it over: the log follows."""
        if isinstance(read, Settled):
            self._file = read.file
        server = read.config.server
        logs.configure(server.log_level, server.log_format, bare=server.disable_log_prefix)
