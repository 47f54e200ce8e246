"""The source of a running server's configuration: the arguments and the environment of ``start``, and the file,
which is read anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
import click

from passenger_trio.cli.applications import Mount
from passenger_trio.cli.settings import Settled, find_config, settle
from passenger_trio.errors import ReloadRefused
from passenger_trio.options import Config
from passenger_trio.system import logs

__all__ = ["StartSource"]


class _HasConfig(Protocol):
    @property
    def config(self) -> Config: ...


@attrs.define(eq=False)
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

    def settle(self) -> Settled:
        """As ``read``, but a value of a flag or variable that cannot be used is a ``click.ClickException``."""
        return settle(
            self.ctx,
            self.values,
            find_config(self.path, self.root),
            root=self.root,
            target=self.target,
            environ=os.environ,
            mounts=self.mounts,
            is_named=self.is_named,
        )

    def read(self) -> Settled:
        """The configuration as it is now.

        :raises PassengerError: it cannot be read, or has an invalid value.
        """
        try:
            return self.settle()
        except click.ClickException as error:
            raise ReloadRefused(error.format_message()) from error

    def applied(self, read: _HasConfig) -> None:
        """The server has taken it over: the log follows."""
        server = read.config.server
        logs.configure(server.log_level, server.log_format, bare=server.disable_log_prefix)
